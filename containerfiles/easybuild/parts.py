"""Lay out what stays as the final image's layers: ``parts.py PREFIX TARGET``, after everything else in the builder.

Software moves to TARGET/PART/PREFIX/software by the part that keep.json gives it. The folders that are made here have
one fixed time, so that a part that has not changed is the same layer again. Python 3.6, standard library only.
"""

import json
import os
import subprocess
import sys


def folder(path, made):
    if not os.path.isdir(path):
        folder(os.path.dirname(path), made)
        os.mkdir(path, 0o755)
        made.append(path)


def move(source, target, made):
    folder(os.path.dirname(target), made)
    # mv keeps hard links, owners and times also from one layer to another, where a rename is refused.
    subprocess.run(["mv", source, target], check=True)


def main(prefix, target):
    here = os.path.dirname(os.path.abspath(__file__))
    with open(os.path.join(here, "keep.json"), encoding="utf-8") as stream:
        record = json.load(stream)
    made = []
    for part in record["parts"]:
        folder(os.path.join(target, part), made)
    for entry in record["modules"]:
        software = os.path.join(prefix, "software", entry["module"])
        if os.path.isdir(software):
            move(software, os.path.join(target, entry["part"]) + software, made)
    modules = os.path.join(prefix, "modules")
    if os.path.isdir(modules):
        move(modules, os.path.join(target, record["parts"][-1]) + modules, made)
    for path in reversed(made):
        os.utime(path, (0, 0))


if __name__ == "__main__":
    main(*sys.argv[1:])
