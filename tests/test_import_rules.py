"""docs/architecture.md as a test: which module may import what, read from the source (lazy imports count too)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "hpc3build"
#: Parts of the script that runs under another Python, beside the real EasyBuild.
CLOSURE = {f"frontends.easybuild_{name}" for name in ("cage", "closure", "files", "modules", "problems")}

#: Who alone may import these. A name that ends in ".*" stands for a folder.
ONLY = {
    "subprocess": {"run"},
    "oras": {"stores.registry"},
    "docker": {"engines.docker", "stores.daemon"},
    "ruamel": {"yamlread"},
    "jinja2": {"templates", "ci", "catalog"},
    "easybuild": set(),
    "spack": set(),
}
#: Lowest first; a module imports of its own layer and of lower ones.
LAYERS = (
    [
        *("__init__", "errors", "findings", "stack", "jsonedit", "jsonread", "yamlread"),
        *("oci", "imageconfig", "interrupts", "mpinames", "pairs", "reference", "sonames", "urls"),
    ],
    ["recipe", "resources", "run", "bases", "instructions"],
    ["evidence", "host"],
    ["facts"],
    ["frontends", "engines", "stores", "site"],
    [
        "rewrite",
        "match",
        "environment",
        "containerfile",
        "templates",
        "conformance",
        "index",
        "catalog",
        "exports",
        "ci",
    ],
    ["workflows"],
    [
        "report",
        "report_check",
        "report_match",
        "options",
        "console",
        "cli_annotate",
        "cli_check",
        "cli_receipt",
        "cli_ci",
        "cli_export",
        "cli_host",
        "cli",
        "__main__",
    ],
)
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


MODULES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(tree: ast.AST, package: tuple[str, ...] = ("hpc3build",)) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything imported, functions and TYPE_CHECKING included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if called in ("import_module", "__import__") and node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)


def package_of(path: Path) -> tuple[str, ...]:
    return ("hpc3build", *path.relative_to(PACKAGE).parent.parts)


def imported_by(module: str) -> list[tuple[int, str]]:
    path = MODULES[module]
    return list(imports(ast.parse(path.read_text(encoding="utf-8")), package_of(path)))


def own(imported: str) -> str | None:
    """The module of ours that an import leads to: ``hpc3build.facts.cpu.known`` -> ``facts.cpu``."""
    parts = imported.split(".")
    if parts[0] != "hpc3build":
        return None
    for length in range(len(parts), 1, -1):
        if (name := ".".join(parts[1:length])) in MODULES:
            return name
    return "__init__"


def wrong_order(module: str, found: list[tuple[int, str]]) -> list[str]:
    """Imports that lead up: layers count by the first part of the name."""
    layer = LAYER[module.split(".")[0]]
    told = []
    for line, name in found:
        target = own(name)
        if target is not None and LAYER[target.split(".")[0]] > layer:
            told.append(f"{module}:{line} imports {name}, which lies above it")
    return told


def not_allowed(module: str, found: list[tuple[int, str]]) -> list[str]:
    return [
        f"{module}:{line} imports {name}, only {sorted(ONLY[top]) or 'nobody'} may"
        for line, name in found
        if (top := name.split(".")[0]) in ONLY and module not in ONLY[top]
    ]


def test_every_module_has_a_layer() -> None:
    assert {name.split(".")[0] for name in MODULES} <= set(LAYER)


@pytest.mark.parametrize("module", [name for name in MODULES if name not in CLOSURE])
def test_imports_lead_down(module: str) -> None:
    assert wrong_order(module, imported_by(module)) == []


@pytest.mark.parametrize("module", [name for name in MODULES if name not in CLOSURE])
def test_only_the_seam_imports_it(module: str) -> None:
    assert not_allowed(module, imported_by(module)) == []


@pytest.mark.parametrize("module", MODULES)
def test_processes_start_in_run_alone(module: str) -> None:
    """os.system, os.popen, os.exec… and asyncio's processes would go round ``run``."""
    if module in ("run", *CLOSURE):
        return
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    starts = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("os", "asyncio", "pty")
        and node.attr.startswith(("system", "popen", "exec", "spawn", "posix_spawn", "fork", "create_subprocess"))
    }
    assert starts == set()


#: What reads the environment, and what the date.
ENVIRONMENT = {
    "environ",
    "environb",
    "getenv",
    "expanduser",
    "expandvars",
    "home",
    "getproxies",
    "getproxies_environment",
}
DATE = {"time.time", "time.time_ns", "time.localtime", "time.gmtime", "datetime.now", "datetime.utcnow", "date.today"}


def test_who_reads_environment_and_date_is_named() -> None:
    """docs/architecture.md lists the modules below workflows that do."""
    readers: dict[str, set[str]] = {"environment": set(), "date": set()}
    for module, path in MODULES.items():
        if module in CLOSURE or LAYER[module.split(".")[0]] >= LAYER["workflows"]:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Attribute):
                continue
            if node.attr in ENVIRONMENT and ast.unparse(node.value) in ("os", "os.path", "Path", "urllib.request"):
                readers["environment"].add(module)
            if ast.unparse(node) in DATE or ast.unparse(node).startswith(tuple(f"datetime.{name}" for name in DATE)):
                readers["date"].add(module)
    text = (PACKAGE.parent / "docs/architecture.md").read_text(encoding="utf-8")
    told = " ".join(text.partition("What reaches other machines")[2].partition("\n\n")[0].split())
    environment, _, date = told.partition("Clocks bound waiting")
    for told, found in ((environment, readers["environment"]), (date, readers["date"])):
        assert {name.replace("/", ".") for name in re.findall(r"`(\w+/\w+)`", told)} == found


def test_closure_stands_alone() -> None:
    for module in CLOSURE:
        assert {found for _, name in imported_by(module) if (found := own(name)) is not None} <= CLOSURE
    others = [module for module in MODULES if module not in CLOSURE]
    assert [module for module in others for _, name in imported_by(module) if own(name) in CLOSURE] == []


def test_third_parties_are_declared() -> None:
    """What is imported is the standard library, ours, or a dependency of pyproject.toml (test and dev are none)."""
    text = (PACKAGE.parent / "pyproject.toml").read_text(encoding="utf-8")
    declared = "\n".join(line for line in text.splitlines() if not line.startswith(("test =", "dev =")))
    for module in MODULES:
        for line, name in imported_by(module) if module not in CLOSURE else ():
            top = name.split(".")[0]
            assert top in sys.stdlib_module_names or top == "hpc3build" or f'"{top}' in declared, (
                f"{module}:{line} {top}"
            )


@pytest.mark.parametrize(
    ("module", "source", "found"),
    [
        ("oci", "from hpc3build.facts import Key", 1),
        ("oci", "def f():\n    from hpc3build import rewrite", 1),
        ("oci", "from . import rewrite", 1),
        ("facts", "import hpc3build.evidence.elf", 0),
        ("facts.cpu", "from hpc3build.stores import open_store", 1),
        ("workflows.build", "from hpc3build.report import dumps", 1),
        ("stack", "from hpc3build import __version__", 0),
        ("cli", "import subprocess", 1),
        ("run", "import subprocess", 0),
        ("workflows.build", "from ruamel.yaml import YAML", 1),
        ("frontends.easybuild", "import importlib\nimportlib.import_module('easybuild.tools')", 1),
        ("stores.layout", "from docker import client", 1),
    ],
)
def test_the_rules_bite(module: str, source: str, found: int) -> None:
    what = list(imports(ast.parse(source)))
    assert len(wrong_order(module, what) + not_allowed(module, what)) == found
