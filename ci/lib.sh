# shellcheck shell=bash
# Sourced by ci/demo, ci/test and ci/base-image: what a bare Debian or Ubuntu machine needs before
# hpc3build can build and run images. Everything here may be called again at no cost.
# Results go to stdout, so all that these functions say goes to stderr.

ROOT=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd -P)
HPC3_LOG=
HPC3_TICKER=

# What ci/base-image runs, and what building and running an image takes on top. Recommendations are
# not installed, so runc, uidmap and the keyring are named. engine_env makes do without a network plugin.
# shellcheck disable=SC2034 # for those who source this
BASE_PACKAGES=(ca-certificates debian-archive-keyring mmdebstrap podman python3 runc skopeo uidmap)
# shellcheck disable=SC2034
ENGINE_PACKAGES=("${BASE_PACKAGES[@]}" buildah python3-venv)
# dockerd and a client with BuildKit; the tests start a daemon of their own (8 s to install).
# shellcheck disable=SC2034
DOCKER_PACKAGES=(docker.io)

say() { printf '%s\n' "$*" >&2; }

die() {
    say "error: $1"
    exit "${2:-1}"
}

# Each caller sets this as its EXIT trap (or calls it there).
lib_cleanup() {
    if [[ -n $HPC3_TICKER ]]; then kill "$HPC3_TICKER" 2>/dev/null || true; fi
    if [[ -n $HPC3_LOG ]]; then rm -f -- "$HPC3_LOG"; fi
    HPC3_TICKER='' HPC3_LOG=''
}

# quietly WHAT COMMAND...: runs a long command, shows its newest line every few seconds, and its last
# lines if it fails. The command stays in the foreground, so that Ctrl-C reaches it.
quietly() {
    local what=$1 rc=0 start=$SECONDS
    shift
    HPC3_LOG=$(mktemp)
    (
        # $$ is the script itself: no ticker outlives it. The sleep holds no pipe of the caller open.
        while sleep 5 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
            line=$(tail -n 1 -- "$HPC3_LOG" 2>/dev/null | tr -d '\r' | cut -c1-100) || true
            say "    $((SECONDS - start)) s: ${line:-$what}"
        done
    ) &
    HPC3_TICKER=$!
    "$@" >"$HPC3_LOG" 2>&1 </dev/null || rc=$?
    kill "$HPC3_TICKER" 2>/dev/null || true
    wait "$HPC3_TICKER" 2>/dev/null || true
    if ((rc)); then
        say "$what failed (exit code $rc). Its last lines:"
        # A proxy's or an index's password may stand in a URL.
        tail -n 30 -- "$HPC3_LOG" | sed -E 's#(://)[^/@[:space:]]+@#\1***@#g; s/^/    /' >&2
    fi
    lib_cleanup
    return "$rc"
}

# step WHAT: announces a step, after saying how long the one before took. steps_done ends the last one.
STEP_WHAT=
STEP_START=0
STEP_TIMES=()
steps_done() {
    if [[ -n $STEP_WHAT ]]; then
        STEP_TIMES+=("$(printf '%4d s  %s' $((SECONDS - STEP_START)) "$STEP_WHAT")")
        say "    ($((SECONDS - STEP_START)) s)"
    fi
    STEP_WHAT=
}
step() {
    steps_done
    STEP_WHAT=$* STEP_START=$SECONDS
    say "[${SECONDS} s] $*"
}

# need_packages PACKAGE...: installs what is missing, and asks apt for nothing when nothing is.
need_packages() {
    local -A have=()
    local missing=() package status as_root=()
    while read -r package status; do
        [[ $status != installed ]] || have[${package%%:*}]=1
    done < <(dpkg-query -W -f='${binary:Package} ${db:Status-Status}\n' -- "$@" 2>/dev/null || true)
    for package in "$@"; do
        [[ -n ${have[$package]:-} ]] || missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        # sudo forgets the environment, where a proxy may be set: env passes on what apt reads.
        as_root=(sudo -n env)
        for package in http_proxy https_proxy no_proxy; do
            [[ -z ${!package:-} ]] || as_root+=("$package=${!package}")
        done
        sudo -n true 2>/dev/null || die "as root, run: apt-get install --no-install-recommends ${missing[*]}" 3
    else
        as_root=(env)
    fi
    say "    installing ${missing[*]}"
    local apt=("${as_root[@]}" DEBIAN_FRONTEND=noninteractive NEEDRESTART_MODE=l apt-get -q -y
        -o Acquire::Retries=3 -o DPkg::Lock::Timeout=120)
    # The lists of a fresh machine are missing or old. Once per script is enough.
    if [[ -z ${HPC3_APT_UPDATED:-} ]]; then
        quietly "apt-get update" "${apt[@]}" update || return 3
        export HPC3_APT_UPDATED=1
    fi
    quietly "apt-get install" "${apt[@]}" install --no-install-recommends "${missing[@]}" || return 3
}

# make_venv [EXTRAS]: .venv in the checkout with hpc3build, editable. Nothing runs when neither
# pyproject.toml nor the Python changed and the extras (comma separated) are there already.
make_venv() {
    # Never the first python3 on the PATH: a private one under root's home is closed to other users.
    local python=/usr/bin/python3 venv=$ROOT/.venv stamp=$ROOT/.venv/hpc3build.stamp
    local key='' old_key='' old_extras='' extras=${1:-} extra wanted=
    key=$({ "$python" -V; printf '%s\n' "$ROOT"; cat -- "$ROOT/pyproject.toml"; } | sha256sum)
    key=${key%% *}
    if [[ -r $stamp ]]; then { read -r old_key && read -r old_extras; } <"$stamp" || true; fi
    if [[ $key == "$old_key" && -x $venv/bin/python && -x $venv/bin/hpc3build ]]; then
        for extra in ${extras//,/ }; do
            [[ ,$old_extras, == *",$extra,"* ]] || wanted=1
        done
        [[ -n $wanted ]] || return 0
    fi
    # What ci/test has put there stays when ci/demo asks for less.
    extras=$(printf '%s\n' "${extras//,/$'\n'}" "${old_extras//,/$'\n'}" | sed '/^$/d' | sort -u | paste -sd, -)
    # An environment of another Python, or one moved here, is made anew.
    if ! grep -qsx 'home = /usr/bin' "$venv/pyvenv.cfg" || ! "$venv/bin/python" -m pip --version >/dev/null 2>&1 \
        || ! head -n 1 "$venv/bin/pip" | grep -qF "$venv/"; then
        quietly "python3 -m venv" "$python" -m venv --clear "$venv" || return 3
    fi
    rm -f -- "$stamp"
    say "    installing hpc3build${extras:+ with $extras} into .venv"
    (
        # A site's pip.conf and PIP_* hold as they are. pip has its own list of authorities, which lacks
        # a site's: the system's file is what everything else on the machine trusts.
        if [[ -z ${PIP_CERT:-}${REQUESTS_CA_BUNDLE:-}${CURL_CA_BUNDLE:-} ]] &&
            ! "$venv/bin/pip" config list 2>/dev/null | grep -qE '^(global|install)\.cert='; then
            cert=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
            if [[ -r $cert ]]; then export PIP_CERT=$cert; fi
        fi
        export PIP_RETRIES=${PIP_RETRIES:-5} PIP_DEFAULT_TIMEOUT=${PIP_DEFAULT_TIMEOUT:-60}
        export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
        quietly "pip install" "$venv/bin/python" -m pip install --progress-bar off -e "$ROOT${extras:+[$extras]}"
    ) || return 3
    printf '%s\n%s\n' "$key" "$extras" >"$stamp.new"
    mv -f -- "$stamp.new" "$stamp"
}

# at_most LIMIT MAX: the number a container may get when the hard limit is LIMIT.
at_most() {
    if [[ $1 == unlimited ]] || (($1 > $2)); then echo "$2"; else echo "$1"; fi
}

containers_conf() {
    local files processes
    # Engines ask for 1048576 of both, which needs CAP_SYS_RESOURCE where the hard limit is lower.
    files=$(at_most "$(ulimit -Hn)" 1048576)
    # podman and buildah lower their own limit to pid_max as they start, and cannot raise it again.
    processes=$(at_most "$(ulimit -Hu)" "$(cat /proc/sys/kernel/pid_max 2>/dev/null || echo 32768)")
    printf '# Written by ci/lib.sh for this machine.\n[containers]\n'
    # The host's network: neither a network plugin nor iptables is needed.
    printf 'netns = "host"\n'
    printf 'default_ulimits = ["nofile=%s:%s", "nproc=%s:%s"]\n' "$files" "$files" "$processes" "$processes"
    # Without systemd nobody answers for its cgroups and journal.
    if [[ ! -d /run/systemd/system ]]; then printf 'log_driver = "k8s-file"\n'; fi
    printf '[engine]\n'
    if [[ ! -d /run/systemd/system ]]; then printf 'cgroup_manager = "cgroupfs"\nevents_logger = "file"\n'; fi
    # crun refuses cgroup v1 and the hybrid of both.
    if [[ $(stat -f -c %T /sys/fs/cgroup 2>/dev/null) != cgroup2fs ]] || ! command -v crun >/dev/null; then
        printf 'runtime = "runc"\n'
    fi
}

# overlay_works DIR: whether the kernel mounts an overlay whose layers lie in DIR (it does not on an
# overlay, that is in most containers, nor on some network file systems). Where root is only a container's, engines mount
# in a user namespace of their own.
overlay_works() {
    local dir rc=0
    mkdir -p -- "$1" && dir=$(mktemp -d -- "$1/overlay-test.XXXXXX") || return 1
    mkdir "$dir/lower" "$dir/upper" "$dir/work" "$dir/merged"
    local argv=(mount -t overlay overlay -o "lowerdir=$dir/lower,upperdir=$dir/upper,workdir=$dir/work" "$dir/merged")
    if "${argv[@]}" 2>/dev/null; then
        umount "$dir/merged"
    else
        unshare --user --map-root-user --mount "${argv[@]}" 2>/dev/null || rc=1
    fi
    rm -rf -- "$dir"
    return "$rc"
}

# engine_env: exports what makes plain `podman run IMAGE COMMAND` and `buildah bud` work here. What the
# user has set stays as it is.
engine_env() {
    local conf theirs graph=/var/lib/containers/storage policy
    if [[ -z ${CONTAINERS_CONF:-} ]]; then
        for theirs in /etc/containers/containers.conf "${XDG_CONFIG_HOME:-$HOME/.config}/containers/containers.conf"; do
            # The variable replaces those files; nothing is merged.
            [[ ! -e $theirs ]] || say "    note: $theirs is set aside for this run; set CONTAINERS_CONF to keep it"
        done
        conf=$ROOT/out/containers.conf
        if ! { mkdir -p -- "$ROOT/out" && [[ -w $ROOT/out ]]; } 2>/dev/null; then
            # A checkout that cannot be written. One name per user, so that runs do not pile up files.
            mkdir -p -- "${XDG_RUNTIME_DIR:-$HOME/.cache}/hpc3build"
            conf=${XDG_RUNTIME_DIR:-$HOME/.cache}/hpc3build/containers.conf
        fi
        containers_conf >"$conf.$$"
        mv -f -- "$conf.$$" "$conf" # another run may be reading it
        export CONTAINERS_CONF=$conf
    fi
    # Isolation by chroot needs no network plugin, cgroup or namespace, and builds the same image.
    export BUILDAH_ISOLATION=${BUILDAH_ISOLATION:-chroot}

    # A storage in use stays with its driver. A file, since skopeo 1.9 does not read STORAGE_DRIVER; none at
    # all where an overlay works, which is what engines choose by themselves.
    if ((EUID == 0)) && [[ -z ${STORAGE_DRIVER:-}${CONTAINERS_STORAGE_CONF:-} && ! -e /etc/containers/storage.conf &&
        ! -d $graph/overlay-images && ! -d $graph/btrfs-images && ! -d $graph/zfs-images ]]; then
        if [[ -d $graph/vfs-images ]] || ! overlay_works "${graph%/*}"; then
            say "    note: no overlay file system here: images are stored with the vfs driver (slower, larger)"
            conf=${CONTAINERS_CONF%/*}/storage.conf
            # Beside the user's own file there is no place of ours.
            [[ $CONTAINERS_CONF == "$ROOT"/out/* ]] || conf=$(mktemp)
            printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers/storage"\ngraphroot = "%s"\n' "$graph" >"$conf.$$"
            mv -f -- "$conf.$$" "$conf"
            export CONTAINERS_STORAGE_CONF=$conf
        fi
    fi

    # Debian's packages bring a policy; engines refuse to work without any, and no variable names one.
    policy=${XDG_CONFIG_HOME:-$HOME/.config}/containers/policy.json
    if [[ ! -e /etc/containers/policy.json && ! -e $policy ]]; then
        mkdir -p -- "${policy%/*}"
        printf '{"default": [{"type": "insecureAcceptAnything"}]}\n' >"$policy"
    fi
}
