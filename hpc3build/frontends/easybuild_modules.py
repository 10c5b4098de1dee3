"""EasyBuild's parsed and ordered easyconfigs as the document that hpc3build reads.

Part of the script easybuild_closure.py, and of the hooks in plugins/: standard library and EasyBuild only.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


def document(ordered: list[dict[str, Any]], roots: list[str]) -> dict[str, Any]:
    """The closure: ``ordered`` are easyconfigs as EasyBuild's robot returns them, ``roots`` names of modules."""
    from easybuild.tools.version import EASYBLOCKS_VERSION, FRAMEWORK_VERSION

    modules = [module(entry) for entry in ordered]
    mark_build_only(modules, roots)
    return {
        "tool": f"EasyBuild {FRAMEWORK_VERSION} (easyblocks {EASYBLOCKS_VERSION})",
        "easybuild_version": str(FRAMEWORK_VERSION),
        "roots": roots,
        "easybuild_options": options(),
        "n": len(modules),
        "n_runtime": sum(not entry["builddep"] for entry in modules),
        "modules": modules,
    }


def options() -> dict[str, Any]:
    from easybuild.tools.config import build_option

    return {name: build_option(name) for name in ("optarch", "cuda_compute_capabilities", "rpath")}


def module(entry: dict[str, Any]) -> dict[str, Any]:
    """One module, in the form of the recorded closures."""
    ec = entry["ec"]
    # Unresolved values: %(installdir)s and its like have none here, and raise.
    toolchainopts = dict(ec.get_ref("toolchainopts") or {})
    record: dict[str, Any] = {
        **package(ec),
        "easyconfig": Path(entry["spec"]).name,
        "module": entry["full_mod_name"],
        "easyblock": ec["easyblock"] or f"EB_{ec['name']}",
        "moduleclass": ec["moduleclass"],
        "deps": [package(dep) for dep in ec.dependencies(runtime_only=True)],
        "builddeps": [package(dep) for dep in ec.dependencies(build_only=True)],
        "toolchainopts": toolchainopts,
        "osdependencies": list(ec.get_ref("osdependencies") or []),
        "path": str(Path(entry["spec"]).resolve()),
        **optional(ec, toolchainopts),
        **toolchain(ec),
    }
    if licence := eula(ec):
        record["eula"] = licence
    extensions = ec.get_ref("exts_list") or []
    if extensions:
        record["n_exts"] = len(extensions)
    record |= beside(ec, Path(entry["spec"]))
    return plain(record)  # type: ignore[no-any-return]


#: Which of EasyBuild 5.4.1's easyblocks call check_accepted_eula, the name that they want accepted, and its text.
EULAS = {
    "EB_CUDA": ("CUDA", "https://docs.nvidia.com/cuda/eula/index.html"),
    "EB_cuDNN": ("cuDNN", "https://docs.nvidia.com/deeplearning/cudnn/latest/reference/eula.html"),
    "EB_CUDAcompat": ("NVIDIA-driver", "https://www.nvidia.com/content/DriverDownload-March2009/licence.php?lang=us"),
    "NvidiaBase": ("NVHPC", "https://docs.nvidia.com/hpc-sdk/eula/index.html"),
    "EB_AOCC": ("AOCC", "http://developer.amd.com/wordpress/media/files/AOCC_EULA.pdf"),
    "IntelBase": (
        "Intel-oneAPI",
        "https://software.intel.com/content/www/us/en/develop/articles/end-user-license-agreement.html",
    ),
    "EB_Sentaurus": ("Synopsys", "what its installer shows"),
}


def eula(ec: Any) -> dict[str, str] | None:
    """The licence that EasyBuild wants accepted before it installs this: a matter of the easyblock's ancestors."""
    from easybuild.framework.easyconfig.easyconfig import get_easyblock_class

    if ec["accept_eula"]:
        return None
    easyblock = get_easyblock_class(ec["easyblock"], name=ec["name"], error_on_missing_easyblock=False)
    names = [ancestor.__name__ for ancestor in easyblock.__mro__] if easyblock else []
    if any(name.startswith("System") for name in names):
        return None  # SystemCompiler and SystemMPI descend from Intel's easyblocks, and install nothing
    for ancestor in names:
        # Before 2021 Intel asked for a licence file.
        if ancestor in EULAS and not (ancestor == "IntelBase" and str(ec["version"]) < "2021"):
            name, url = EULAS[ancestor]
            return {"name": name, "url": url}
    return None


def package(dep: Any) -> dict[str, Any]:
    if dep.get("external_module"):
        return external(dep)
    chain = dep["toolchain"]
    return {
        "name": dep["name"],
        "version": dep["version"],
        "versionsuffix": dep["versionsuffix"] or "",
        "toolchain": {"name": chain["name"], "version": chain["version"]},
    }


def external(dep: Any) -> dict[str, Any]:
    """A dependency on a module of one site, which no easyconfig describes."""
    metadata = dep.get("external_module_metadata") or {}
    return {
        "name": (metadata.get("name") or [dep["full_mod_name"]])[0],
        "version": (metadata.get("version") or [None])[0],
        "versionsuffix": "",
        "toolchain": {"name": "system", "version": "system"},
        "external_module": True,
        "module": dep["full_mod_name"],
    }


def optional(ec: Any, toolchainopts: dict[str, Any]) -> dict[str, Any]:
    cuda = ec.template_values.get("cudaver")
    values = {
        "cudaver": str(cuda) if cuda else None,
        "cuda_compute_capabilities": ec.get_ref("cuda_compute_capabilities"),
        "license": ec.get_ref("software_license"),
    }
    record = {name: value for name, value in values.items() if value}
    if "optarch" in toolchainopts:
        record["optarch"] = toolchainopts["optarch"]  # False is a statement, too: no -march at all
    return record


def toolchain(ec: Any) -> dict[str, Any]:
    """The families, taken from the instance: two toolchains of one name (NVHPC) differ in what they hold."""
    from easybuild.tools.module_naming_scheme.utilities import det_full_ec_version

    kind = type(ec.toolchain)
    record: dict[str, Any] = {"compiler_family": getattr(kind, "COMPILER_FAMILY", None)}
    if getattr(kind, "MPI_FAMILY", None):
        record |= {"mpi_family": kind.MPI_FAMILY, "mpi_module": kind.MPI_MODULE_NAME}
    record["toolchain_deps"] = [
        {**package(dep), "module": dep["full_mod_name"] or f"{dep['name']}/{det_full_ec_version(dep)}"}
        for dep in ec.toolchain.tcdeps or ()
    ]
    return record


def beside(ec: Any, path: Path) -> dict[str, list[str]]:
    """The sources and patches that lie in the easyconfig's own folder, extensions' included."""
    here = {entry.name for entry in path.resolve().parent.iterdir() if entry.is_file()}
    kinds = {"sources": ("sources",), "patches": ("patches", "postinstallpatches", "exts_list", "components")}
    return {
        kind: sorted({text for name in names for text in texts(resolved(ec, name))} & here)
        for kind, names in kinds.items()
    }


def resolved(ec: Any, name: str) -> Any:
    from easybuild.framework.easyconfig.easyconfig import resolve_template

    value = ec.get_ref(name) if name in ec else None
    return resolve_template(value, ec.template_values, expect_resolved=False) if value else value


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from texts(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from texts(inner)


def plain(value: Any) -> Any:
    """``value`` as JSON can hold it: an easyconfig may put anything anywhere."""
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def mark_build_only(modules: list[dict[str, Any]], roots: Iterable[str]) -> None:
    """``builddep`` is true for what no root reaches through run-time dependencies and toolchains."""
    by_package = {key(entry): entry for entry in modules}
    by_module = {entry["module"]: entry for entry in modules}
    queue = [by_module[name] for name in roots if name in by_module]
    seen = {id(entry) for entry in queue}
    while queue:
        entry = queue.pop()
        chain = entry["toolchain"]
        reached = [by_package.get(key(dep)) for dep in entry["deps"]]
        reached += [m for m in modules if m["name"] == chain["name"] and full_version(m) == chain["version"]]
        for other in reached:
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                queue.append(other)
    for entry in modules:
        entry["builddep"] = id(entry) not in seen


def key(dep: dict[str, Any]) -> tuple[str, ...]:
    chain = dep["toolchain"]
    return dep["name"], dep["version"], dep["versionsuffix"], chain["name"], chain["version"]


def full_version(entry: dict[str, Any]) -> str:
    """A module's version as a toolchain's version names it: 22.7-CUDA-11.7.0, 2023b."""
    return f"{entry['version']}{entry['versionsuffix']}"
