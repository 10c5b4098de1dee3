"""Keep what runs: ``keep.py PREFIX ROOTFS`` in the builder, after the installation.

Removes modules that only the build needed, and of the others logs, test reports (they hold the builder's environment),
devel module files and easyblock copies; of compilers all but the libraries that programs load. The reprod records
stay: evidence is read from them. Python 3.6, standard library only.
"""

import json
import os
import re
import shutil
import sys

COMPILERS = ("GCCcore", "GCC", "binutils", "LLVM", "Clang", "nvidia-compilers", "intel-compilers")
PROFILE = """\
# Written by hpc3build: Lmod, and the modules that were asked for. Quiet; for bash alone, and once per shell.
if [ -n "${BASH_VERSION-}" ] && [ -z "${hpc3_modules-}" ]; then
    case $- in *u*) hpc3_modules=u; set +u ;; *) hpc3_modules=1 ;; esac
    for hpc3_script in /opt/lmod/lmod/init/bash /etc/profile.d/lmod.sh /usr/share/lmod/lmod/init/bash; do
        if [ -r "$hpc3_script" ]; then . "$hpc3_script"; break; fi
    done
    module use %s/modules/all >/dev/null 2>&1 || true
    module load %s >/dev/null 2>&1 || true
    [ "$hpc3_modules" = 1 ] || set -u
    unset hpc3_script
fi
"""
RUNTIME_LIBRARY = re.compile(r"\.so(\.\d+)*$")


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


def drop_build_only(prefix, kept):
    """Software and module files of modules that are not kept. Returns the folders that stay."""
    software = os.path.join(prefix, "software")
    folders = []
    for name in sorted(os.listdir(software)):
        for version in sorted(os.listdir(os.path.join(software, name))):
            folder = os.path.join(software, name, version)
            if "%s/%s" % (name, version) in kept:
                folders.append((name, folder))
            else:
                remove(folder)
        if not os.listdir(os.path.join(software, name)):
            os.rmdir(os.path.join(software, name))
    for top, _, files in os.walk(os.path.join(prefix, "modules")):
        for file in files:
            version = file[:-4] if file.endswith(".lua") else file
            if "%s/%s" % (os.path.basename(top), version) not in kept:
                remove(os.path.join(top, file))
    for top, _, _ in os.walk(os.path.join(prefix, "modules"), topdown=False):
        if not os.listdir(top):
            os.rmdir(top)
    return folders


def slim_records(folder):
    records = os.path.join(folder, "easybuild")
    for name in sorted(os.listdir(records)) if os.path.isdir(records) else ():
        if name != "reprod":
            remove(os.path.join(records, name))
    remove(os.path.join(records, "reprod", "easyblocks"))


def slim_compiler(folder):
    """Only shared libraries that programs load at run time, where they are."""
    for top, folders, files in os.walk(folder, topdown=False):
        relative = os.path.relpath(top, folder).split(os.sep)
        if relative[0] == "easybuild":
            continue
        places = [at for at, part in enumerate(relative) if part in ("lib", "lib64")]
        in_library = bool(places) and relative[places[0] + 1 : places[0] + 2] != ["gcc"]
        for file in files:
            if not (in_library and RUNTIME_LIBRARY.search(file)):
                remove(os.path.join(top, file))
        for name in folders:
            path = os.path.join(top, name)
            if os.path.islink(path):
                continue
            if not os.listdir(path) and name != "easybuild":
                os.rmdir(path)


def write(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(text)
    os.chmod(path, 0o644)


def main(prefix, root):
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "keep.json"), encoding="utf-8") as stream:
        record = json.load(stream)
    kept = {entry["module"]: entry for entry in record["modules"]}
    for name, folder in drop_build_only(prefix, kept):
        slim_records(folder)
        asked_for = os.path.relpath(folder, os.path.join(prefix, "software")) in record["roots"]
        if name in COMPILERS and not asked_for and not record.get("keep_compilers"):
            slim_compiler(folder)
    native = os.path.join(here, "native", "target.json")
    if os.path.exists(native):
        with open(native, encoding="utf-8") as stream:
            record["native"] = json.load(stream)
    write(os.path.join(root, "opt/hpc3build/easybuild.json"), json.dumps(record, indent=1, sort_keys=True) + "\n")
    if record.get("load_modules"):
        names = " ".join("'%s'" % name for name in record["roots"])
        write(os.path.join(root, "etc/profile.d/z11_hpc3build_modules.sh"), PROFILE % (prefix, names))


if __name__ == "__main__":
    main(*sys.argv[1:])
