"""Save the application's environment: run in the builder as ``capture.py ACTIVATE_SCRIPT ROOTFS``.

Compares the environment before and after the activation script and writes ROOTFS/etc/profile.d/z10_hpc3build.sh for
login shells and ROOTFS/opt/hpc3build/environment.json, from which hpc3build bakes config.Env. Python 3.6, standard
library only: it runs on whatever the base image has.
"""

import json
import os
import re
import subprocess
import sys

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# State of shells, of Lmod and of Spack itself, and pointers to records that the final stage does not keep.
DROPPED = re.compile(
    r"^(_.*|PWD|OLDPWD|SHLVL|HOME|BASH_ENV|BASH_FUNC_.*|ENV|FPATH|LOADEDMODULES|_LMFILES_|LMOD_.*|__LMOD_.*|_ModuleTable.*"
    r"|MODULEPATH.*|MODULESHOME|MODULES_.*|EBDEVEL.*|SPACK_.*|CPATH|C_INCLUDE_PATH|LIBRARY_PATH|ACLOCAL_PATH)$"
)
# Entries that the loader and the shell know anyway (in LD_LIBRARY_PATH they would change its order), and Lmod's own.
SYSTEM_ENTRIES = re.compile(r"^(/usr(/local)?)?/(lib|lib64|bin|sbin)/?$|^/usr/share/lmod(/|$)")
# Variables that are lists even where only one entry is set.
LISTS = re.compile(r"(^|_)(PATH|DIRS)$|PATH$")

PROFILE = """\
# Written by hpc3build: the application's environment. Quiet, runs no command, safe under set -eu, may be read twice.
# A variable that the user set stays; entries of lists go to the front, once.
hpc3_prepend() {
    eval "hpc3_old=\\${$1-}"
    case ":$hpc3_old:" in
        *":$2:"*) ;;
        *) eval "export $1=\\"\\$2\\${hpc3_old:+:\\$hpc3_old}\\"" ;;
    esac
}
"""

# Only where something is set. The entries of a recipe's own PATH that stand behind the system's stay behind.
SET = """\
hpc3_append() {
    case ":$PATH:" in *":$1:"*) ;; *) export PATH="$PATH:$1" ;; esac
}
# NAME VALUE: what the shell was started with (the image's configuration, or what the user gave instead) wins over what
# the distribution's scripts set since; without either it is VALUE. Only bash can tell the two apart.
hpc3_set() {
    eval "hpc3_old=\\${$1-\\$2}"
    hpc3_new=$hpc3_old
    if [ "$hpc3_old" != "$2" ] && [ -n "${BASH_VERSION-}" ] && [ -r /proc/self/environ ]; then
        ( eval "$1=" ) 2>/dev/null || return 0
        hpc3_new=$2
        while IFS= read -r -d '' hpc3_entry; do
            case $hpc3_entry in "$1="*) hpc3_new=${hpc3_entry#*=} ;; esac
        done </proc/self/environ
    fi
    eval "$1=\\$hpc3_new"
    export "$1"
}
# The same for a list. Where the distribution's scripts only added to it, it stays as they left it.
hpc3_list() {
    hpc3_set "$1" "$2"
    [ -n "$hpc3_new" ] || hpc3_new=$hpc3_old
    case ":$hpc3_old:" in
        *":$hpc3_new:"*) hpc3_new=$hpc3_old ;;
        *) hpc3_new=$hpc3_new${hpc3_old:+:$hpc3_old} ;;
    esac
    eval "$1=\\$hpc3_new"
}
"""

# Open MPI crashes without HOME under a UID that has no name, and without a place for its session.
ELSEWHERE = """\
export HOME="${HOME:-/tmp}"
if [ ! -w "${TMPDIR:-/tmp}" ] && [ -w /dev/shm ]; then
    export TMPDIR=/dev/shm
fi
"""


def environment(script):
    """The environment (name to value) that a clean bash has after sourcing ``script``; none for an empty name."""
    command = '. "$1" >&2; env -0' if script else "env -0"
    start = {"PATH": DEFAULT_PATH, "HOME": "/nonexistent", "USER": "nobody", "LC_ALL": "C"}
    done = subprocess.run(
        ["/bin/bash", "--noprofile", "--norc", "-e", "-c", command, "capture", script],
        env=start,
        stdout=subprocess.PIPE,
        check=False,
    )
    if done.returncode != 0:
        sys.exit("capture.py: %s failed with exit status %d" % (script, done.returncode))
    pairs = (entry.partition("=") for entry in done.stdout.decode("utf-8", "surrogateescape").split("\0") if entry)
    return {name: value for name, _, value in pairs}


def difference(before, after):
    """What activation changed: entries put in front of lists, and plain variables."""
    prepend, plain = {}, {}
    for name, value in sorted(after.items()):
        if value == before.get(name) or not re.match(r"^[A-Za-z_][A-Za-z0-9_]*$", name) or DROPPED.match(name):
            continue
        if LISTS.search(name):
            old = set(before.get(name, "").split(":"))
            entries = [
                entry
                for entry in dict.fromkeys(value.split(":"))
                if entry and entry not in old and not SYSTEM_ENTRIES.match(entry)
            ]
            if entries:
                prepend[name] = entries
        else:
            plain[name] = value
    return prepend, plain


def quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def split_path(value):
    """A recipe's own PATH: the entries before the system's, and those behind. Every /etc/profile sets PATH anew."""
    entries = [entry for entry in dict.fromkeys(value.split(":")) if entry]
    system = [number for number, entry in enumerate(entries) if SYSTEM_ENTRIES.match(entry)]
    first = system[0] if system else len(entries)
    return entries[:first], [entry for entry in entries[first:] if not SYSTEM_ENTRIES.match(entry)]


def profile(prepend, plain):
    front, back = split_path(plain.get("PATH", ""))
    lines = [PROFILE]
    if plain:
        lines.append(SET)
    for name, value in sorted(plain.items()):
        if name != "PATH":
            lines.append("%s %s %s\n" % ("hpc3_list" if LISTS.search(name) else "hpc3_set", name, quoted(value)))
    lines += ["hpc3_append %s\n" % quoted(entry) for entry in back]
    for name, entries in sorted({**prepend, "PATH": prepend.get("PATH", []) + front}.items()):
        lines += ["hpc3_prepend %s %s\n" % (name, quoted(entry)) for entry in reversed(entries)]
    lines.append(ELSEWHERE)
    if plain:
        lines.append("unset -f hpc3_append hpc3_set hpc3_list\nunset hpc3_new hpc3_entry\n")
    lines.append("unset -f hpc3_prepend\nunset hpc3_old\n")
    return "".join(lines)


def write(root, path, text):
    target = os.path.join(root, path)
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(target, "w", encoding="utf-8", errors="surrogateescape") as stream:
        stream.write(text)
    os.chmod(target, 0o644)


def main(script, root):
    prepend, plain = difference(environment(""), environment(script))
    own = os.path.join(os.path.dirname(os.path.abspath(__file__)), "env.json")
    with open(own, encoding="utf-8") as stream:
        plain.update(json.load(stream))
    document = json.dumps({"prepend": prepend, "set": plain}, indent=1, sort_keys=True)
    write(root, "etc/profile.d/z10_hpc3build.sh", profile(prepend, plain))
    write(root, "opt/hpc3build/environment.json", document + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
