"""The collector as one POSIX shell script, for nodes without Python 3.10: made of the same table of sources.

Beside POSIX it uses head -c, readlink -f and grep -ao, which GNU coreutils, busybox and toybox have; timeout where it
is there. What a node lacks is left out.
"""

from __future__ import annotations

import shlex

from hpc3build.host import sources
from hpc3build.host.probe import HEAD

_FUNCTIONS = r"""
tab=$(printf '\t')
quoted() { tr -d '\000\r' | awk '{ print "|" $0 }'; }
file() {  # LIMIT PATH...
    limit=$1; shift
    for path do
        [ -f "$path" ] && [ -r "$path" ] || continue
        case $path in *"$tab"*) continue ;; esac
        printf 'file\t%s\n' "$path"
        { head -c "$limit" "$path" 2>/dev/null || :; } | quoted
    done
}
name() {
    for path do
        [ -e "$path" ] || [ -h "$path" ] || continue
        case $path in *"$tab"*) continue ;; esac
        printf 'name\t%s\n' "$path"
    done
}
value() { printf 'value\t%s\t%s\n' "$1" "$(printf '%s' "$2" | tr '\t\r\n' '   ')"; }
seen=' '
library() {
    for path do
        [ -f "$path" ] && [ -r "$path" ] || continue
        case $path in *"$tab"*) continue ;; esac
        real=$(readlink -f "$path" 2>/dev/null) || real=$path
        case $seen in *" $real "*) continue ;; esac
        seen="$seen$real "
        printf 'library\t%s\t%s\n' "$path" "$real"
        LC_ALL=C grep -aoE "$marks" "$real" 2>/dev/null | sed 's/\.$//' | LC_ALL=C sort -u | quoted
    done
}
command_of() {  # NAME COMMAND...
    what=$1; shift
    command -v "$1" >/dev/null 2>&1 || return 0
    {
        if command -v timeout >/dev/null 2>&1; then set -- timeout "$seconds" "$@"; fi
        if "$@" >"$work/$what.out" 2>"$work/$what.err" </dev/null; then
            [ -s "$work/$what.out" ] || cp "$work/$what.err" "$work/$what.out"
            mv "$work/$what.out" "$work/$what.ok"
        fi
    } &
}
"""


def script() -> str:
    """The whole script. It writes the probe to standard output and needs no root."""
    lines = [
        "#!/bin/sh",
        "# Made by hpc3build fingerprint --script: sh FILE > probe; hpc3build fingerprint --from-probe probe",
    ]
    lines += [
        "set -u",
        "LC_ALL=C; export LC_ALL",
        f"marks={shlex.quote(_marks())}",
        f"seconds={sources.COMMAND_SECONDS}",
    ]
    lines += ["work=$(mktemp -d) || exit 1", "trap 'rm -rf \"$work\"' EXIT", _FUNCTIONS.strip("\n")]
    lines.append('[ "${1-}" = --fast ] || {')
    lines += [f"    command_of {name} {shlex.join(argv)}" for name, argv in sources.COMMANDS.items()]
    lines += ["}", f"printf '%s\\n' {shlex.quote(HEAD)}", 'value machine "$(uname -m)"']
    for name in sources.VARIABLES:
        lines.append(f'[ -z "${{{name}-}}" ] || value env.{name} "${name}"')
    lines += [
        "if [ -r /etc/subuid ]; then",
        '    if grep -q "^$(id -un):" /etc/subuid; then value subuid yes; else value subuid no; fi',
    ]
    lines += [
        "fi",
        f"for tool in {' '.join(sources.PROGRAMS)}; do",
        '    path=$(command -v "$tool" 2>/dev/null) || continue',
    ]
    lines += [
        '    case $path in /*) printf \'program\\t%s\\t%s\\n\' "$tool" "$path" ;; esac',
        "done",
        "release=$(uname -r)",
    ]
    for pattern, limit in sources.FILES:
        lines.append(f"file {limit} {_pattern(pattern)}")
    lines.append(f"for path in {sources.PCI}; do")
    lines.append(
        f'    grep -qE {shlex.quote(sources.PCI_CLASSES)} "$path" 2>/dev/null && file {sources.PCI_BYTES} "$path"'
    )
    lines.append("done")
    lines += [f"name {pattern}" for pattern in sources.NAMES]
    lines += [
        _MODULES.replace("@names@", " ".join(sources.MODULES)),
        _LIBRARIES.replace("@names@", sources.LIBRARY_NAMES),
    ]
    lines += [f"library_of {pattern}" for pattern in sources.LIBRARIES]
    lines += ["wait", 'for path in "$work"/*.ok; do', '    [ -f "$path" ] || continue']
    lines += [
        "    what=${path##*/}; printf 'command\\t%s\\n' \"${what%.ok}\"",
        f'    head -c {sources.COMMAND_BYTES} "$path" | quoted',
    ]
    lines += ["done", "printf 'end\\n'"]
    return "\n".join(lines) + "\n"


def _marks() -> str:
    """grep's form of the expression: one line is never matched over its end, so no class needs to say so."""
    return sources.MARKS.replace(r"[^\n]", ".")


def _pattern(pattern: str) -> str:
    return pattern.replace("{release}", '"$release"')


_MODULES = r"""old_ifs=$IFS
IFS=:; for tree in ${MODULEPATH-}; do IFS=$old_ifs
    for module in @names@; do name "$tree/$module"/*; done
done; IFS=$old_ifs"""

_LIBRARIES = r"""library_of() {
    for found do
        case ${found##*/} in libc.so.6) library "$found"; continue ;; esac
        if printf '%s\n' "${found##*/}" | grep -qxE '@names@'; then library "$found"; fi
    done
}
IFS=:; for folder in ${LD_LIBRARY_PATH-}; do IFS=$old_ifs
    case $folder in /*) library_of "$folder"/libmpi* "$folder"/libfabric.so.1 "$folder"/libucp.so.0 ;; esac
done
IFS=:; for folder in ${PATH-}; do IFS=$old_ifs
    if [ -e "$folder/mpirun" ] || [ -e "$folder/mpiexec" ]; then
        library_of "${folder%/*}"/lib/libmpi* "${folder%/*}"/lib64/libmpi*
    fi
done; IFS=$old_ifs
tr '\000' '\n' 2>/dev/null </etc/ld.so.cache | grep -aE '^/.*/(@names@)$' >"$work/cached" || :
while IFS= read -r found; do library "$found"; done <"$work"/cached"""
