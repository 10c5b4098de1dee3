"""Hooks for EasyBuild: at the end of an installation, write down what an image of it would say.

    eb --hooks="$(hpc3build easybuild-hooks)" APP.eb

The facts of what was asked for, with the compiler flags that were really used, are written to $HPC3BUILD_FACTS, or else
beside the records of the installation: SOFTWARE/APP/VERSION/easybuild/hpc3build.json. `hpc3build annotate REF --from
FILE` writes them to an image. Whatever goes wrong here is a warning: it never fails an installation that is done.

Runs in eb's own process, under eb's Python: standard library and EasyBuild only. Facts are worked out by the hpc3build
that this file belongs to, in a process of its own; where that cannot run, what was installed is written down instead,
and `hpc3build facts` makes facts of it anywhere.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys

from easybuild.framework.easyconfig.easyconfig import ActiveMNS
from easybuild.framework.easyconfig.tools import parse_easyconfigs
from easybuild.tools.build_log import print_msg, print_warning
from easybuild.tools.config import build_option, install_path, update_build_option
from easybuild.tools.modules import NoModulesTool
from easybuild.tools.robot import resolve_dependencies

EXPORT = re.compile(r"^export (CC|CC_SEQ|CFLAGS)=(['\"]?)(.*)\2\s*$", re.MULTILINE)
HERE = os.path.dirname(os.path.abspath(__file__))
# In an installed hpc3build this file lies below the package, in a checkout beside it.
PACKAGE = next(
    (
        folder
        for folder in (os.path.join(HERE, "..", "..", ".."), os.path.join(HERE, "..", "..", "hpc3build"))
        if os.path.isdir(os.path.join(folder, "frontends"))
    ),
    "",
)


def post_build_and_install_loop_hook(ecs_with_res):
    """Called by eb with pairs of an easyconfig and how its installation went."""
    try:
        installed = [ec for ec, result in ecs_with_res if result.get("success")]
        if installed and not build_option("extended_dry_run"):
            for target, roots in places(installed):
                write(target, roots)
    except Exception as error:  # anything at all: the software is installed
        print_warning("hpc3build: no facts were written: %s" % error)


def places(installed):
    """Pairs of a file to write and the easyconfigs that it is about: those that no other of this run needs."""
    needed = {dep["full_mod_name"] for ec in installed for dep in ec["ec"].all_dependencies}
    roots = [ec for ec in installed if ec["full_mod_name"] not in needed]
    if os.environ.get("HPC3BUILD_FACTS"):
        return [(os.path.abspath(os.environ["HPC3BUILD_FACTS"]), roots)]
    return [(os.path.join(folder_of(ec), "easybuild", "hpc3build.json"), [ec]) for ec in roots]


def folder_of(entry):
    """Where an easyconfig is installed, by the site's own naming scheme."""
    return os.path.join(install_path(), ActiveMNS().det_install_subdir(entry["ec"]))


def write(target, roots):
    document = closure([ec["spec"] for ec in roots])
    closure_file = target + ".closure"
    with open(closure_file, "w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=1, sort_keys=True)
    command, environment = hpc3build()
    done = None
    if command:
        done = subprocess.run(
            [*command, "facts", closure_file, "--json"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            universal_newlines=True,
            check=False,
        )
    if done is None or done.returncode != 0:
        why = done.stderr.strip() if done else "this Python is too old for it, and it is not on PATH"
        print_warning("hpc3build could not run (%s): `hpc3build facts %s` makes facts of this" % (why, closure_file))
        return
    with open(target + ".new", "w", encoding="utf-8") as stream:
        stream.write(done.stdout)
    os.replace(target + ".new", target)
    os.unlink(closure_file)
    print_msg("hpc3build: facts of %s: %s" % (", ".join(document["roots"]), target))


def hpc3build():
    """The command that works out facts, and its environment: the one on PATH, or this file's own package."""
    found = shutil.which("hpc3build")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    if found:
        return [found], environment
    if sys.version_info >= (3, 10):
        return [sys.executable, "-m", "hpc3build"], dict(
            environment, PYTHONPATH=os.path.dirname(os.path.realpath(PACKAGE))
        )
    return None, environment


def closure(specs):
    """What hpc3build's resolver would say of these easyconfigs, and how each module was really built."""
    resolver = load_resolver()
    keep = build_option("robot_path")
    if not keep:
        # Without --robot eb looks nowhere; what is installed already was found somewhere, once.
        from easybuild.tools.options import get_paths_for

        shipped = get_paths_for("easyconfigs", robot_path=None)
        update_build_option("robot_path", [os.path.dirname(spec) for spec in specs] + shipped)
    try:
        parsed, _ = parse_easyconfigs([(spec, False) for spec in specs], validate=False)
        roots = [entry["full_mod_name"] for entry in parsed]
        ordered = resolve_dependencies(parsed, NoModulesTool(), retain_all_deps=True)
    finally:
        update_build_option("robot_path", keep)
    document = resolver.document(ordered, roots)
    folders = {entry["full_mod_name"]: folder_of(entry) for entry in ordered}
    for module in document["modules"]:
        module["built"] = built(folders[module["module"]])
    return document


def load_resolver():
    """The parts of hpc3build that read EasyBuild's objects, without hpc3build's own modules round them."""
    path = os.path.join(PACKAGE, "frontends", "easybuild_modules.py")
    spec = importlib.util.spec_from_file_location("hpc3build_easybuild_modules", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(installed):
    """Compiler and flags from the records of an installed module; empty where there are none."""
    folder = os.path.join(installed, "easybuild", "reprod")
    found = {}
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
        if name.endswith(".env"):
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as stream:
                text = stream.read()
            found.update((name, value) for name, _, value in EXPORT.findall(text))
    return found
