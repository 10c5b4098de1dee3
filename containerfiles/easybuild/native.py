"""For --target native: ask archspec for this builder's CPU, and give every compiler family the flags of that target.

Run by the Python that has archspec. Writes native/options.txt for eb and native/target.json for the image's record.
EasyBuild's own -march=native could use more than the target's name says: then nobody could tell where the image runs.
"""

import json
import os
import sys
import warnings

import archspec.cpu


def flags_of(target, compilers):
    """The flags by family, None where one of the compilers cannot build for this target."""
    found = {}
    for family, its in sorted(compilers.items()):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                flags = target.optimization_flags(its["compiler"], its["version"])
        except archspec.cpu.UnsupportedMicroarchitecture:
            return None
        if not flags:
            return None
        found[family] = flags.replace("-tp ", "-tp=")
    return found


def main():
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), "native")
    with open(os.path.join(here, "compilers.json"), encoding="utf-8") as stream:
        compilers = json.load(stream)
    host = archspec.cpu.host()
    for target in [host, *host.ancestors]:
        found = flags_of(target, compilers)
        if found is not None:
            break
    else:
        sys.exit("native.py: %s: no target that all of %s build for" % (host.name, sorted(compilers)))
    option = "--optarch=" + (";".join("%s:%s" % pair for pair in sorted(found.items())) or "GENERIC")
    with open(os.path.join(here, "options.txt"), "w", encoding="utf-8") as stream:
        stream.write(option + "\n")
    with open(os.path.join(here, "target.json"), "w", encoding="utf-8") as stream:
        json.dump({"host": host.name, "target": target.name, "option": option}, stream, sort_keys=True)
    print("native.py: this builder is %s: %s" % (host.name, option))


if __name__ == "__main__":
    main()
