#!/bin/bash
# Install one part of the easyconfigs: install.sh PREFIX PART [SOURCES], as a plain user, with nothing of the caller's
# environment but the site's proxies and CA (EasyBuild's records would keep the rest). SOURCES is a folder of sources.
set -euo pipefail
prefix=$1
part=$2
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=/opt/hpc3build/tools
keep=()
for name in http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY SSL_CERT_FILE CURL_CA_BUNDLE; do
    [ -z "${!name-}" ] || keep+=("$name=${!name}")
done
mapfile -t options <"$here/options.txt"
# Decided in this builder, for --target native.
[ ! -e "$here/native/options.txt" ] || mapfile -t -O "${#options[@]}" options <"$here/native/options.txt"
# The person's own files; those of the parts before this one are here, too. EasyBuild looks for sources on the robot path
# before it looks where it has fetched some; SOURCES has them by their software's name, so it is first.
robot='' sources=''
for folder in "${3-}" "$here"/*/easyconfigs; do
    [ ! -d "$folder" ] || robot=$robot$folder: sources=$sources:$folder
done
# A source that is a URL is taken from nowhere else.
[ ! -d "${3-}/fetched" ] || cp -rf "$3/fetched/." /opt/hpc3build/sources/
[ ! -e "$here/own/hooks.py" ] || options+=("--hooks=$here/own/hooks.py")
if [ -d "$here/own/easyblocks" ]; then
    options+=("--include-easyblocks=$(find "$here/own/easyblocks" -name '*.py' | LC_ALL=C sort | paste -sd, -)")
fi
# The last colon keeps EasyBuild's own.
[ -z "$robot" ] || options+=("--robot-paths=$robot")

# Some easyconfigs, then the options that are theirs alone.
install_run() {
    [ "${#run[@]}" -gt 0 ] || return 0
    env -i HOME=/opt/hpc3build/work USER=easybuild LC_ALL=C.UTF-8 PYTHONUNBUFFERED=1 PATH="$tools/bin:/usr/bin:/bin" ${keep[@]+"${keep[@]}"} \
        /bin/bash --noprofile --norc -c '
            for script in /opt/lmod/lmod/init/bash /etc/profile.d/lmod.sh /usr/share/lmod/lmod/init/bash; do
                if [ -r "$script" ]; then . "$script"; break; fi
            done
            exec eb "$@"
        ' eb "${run[@]}" "${options[@]}" ${told[@]+"${told[@]}"} --robot --color=never --ignoreconfigfiles= \
        --modules-tool=Lmod --prefix=/opt/hpc3build/work --installpath="$prefix" \
        --sourcepath="/opt/hpc3build/sources$sources" </dev/null
}

status=0
run=() told=()
while IFS= read -r line && [ "$status" -eq 0 ]; do
    case $line in
        '')
            install_run || status=$?
            run=() told=()
            ;;
        --*) told+=("$line") ;;
        *) run+=("$line") ;;
    esac
done <"$here/$part/easyconfigs.txt"
[ "$status" -ne 0 ] || install_run || status=$?
if [ "$status" -ne 0 ]; then
    # What the failing command itself said lies in a file that ends with the container.
    output=$(ls -td /tmp/eb-*/run-shell-cmd-output/*/ 2>/dev/null | head -n 1 || true)
    if [ -n "$output" ] && { [ -s "$output"out.txt ] || [ -s "$output"err.txt ]; }; then
        echo "== last lines of the command that failed:" >&2
        tail -q -n 20 "$output"out.txt "$output"err.txt >&2 2>/dev/null || true
    fi
fi
# They hold the environment, and a proxy's password with it: the engine keeps this layer, as its cache.
rm -f -- "$prefix"/software/*/*/easybuild/easybuild-*_test_report.md "$prefix"/software/*/*/easybuild/easybuild-*.log*
exit "$status"
