"""MPI of an image on a host: what each portability mode needs, and what the image's own MPI does without one.

Rules: the ABI families of facts/mpi.py; within one, the host's library file must be as new as the image's (libtool
versions are safe forward, not backward); every library that is put into a container must find its glibc symbols there.
The modes' meaning is this project's: docs/match.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import MappingProxyType

from hpc3build.facts import vocabulary as voc
from hpc3build.findings import Finding
from hpc3build.host.fingerprint import Fingerprint, Mpi, numbers
from hpc3build.match import tables
from hpc3build.match.judgement import Judgement, at_least, degraded, fails, ok, unknown

FAMILY_NEAR, FAMILY_SAME_FILE = 1, 2
#: Members of MPICH's ABI that number their files themselves (Intel MPI and Cray MPICH stay at libmpi.so.12.0): the
#: SONAME is all that the ABI Compatibility Initiative promises of them.
_OWN_NUMBERS = frozenset({"intel-mpi", "cray-mpich", "mvapich", "mvapich2", "parastation"})
_TITLES = MappingProxyType({"mpich": "MPICH-ABI", "openmpi": "Open MPI", "mpi-abi": "standard-ABI"})


@dataclass(frozen=True)
class Wanted:
    """What an image says of its MPI."""

    families: tuple[str, ...]
    abi: str | None
    pmi: tuple[str, ...] | None
    libc: str | None
    glibc: str | None
    libfabric: str | None

    @property
    def title(self) -> str:
        """For messages."""
        return " and ".join(_TITLES.get(family, family) for family in self.families)


def judge(values: tuple[str | None, ...], host: Fingerprint) -> Judgement:
    """``values``: families, ABI version, modes, PMI, libc provider, glibc, libfabric ABI."""
    families, abi, modes, pmi, libc, glibc, libfabric = values
    if families is None:
        return Judgement((unknown("mpi", voc.MPI, "the image does not say whether it uses MPI"),))
    if families == "none":
        return Judgement((ok("mpi", voc.MPI, "uses no MPI"),))
    wanted = Wanted(tuple(families.split(",")), abi, tuple(pmi.split(",")) if pmi else None, libc, glibc, libfabric)
    score = _near(wanted, host)
    if modes is None:
        return Judgement((_without_mode(wanted, host),), score)
    judged = [Judgement((_MODES[mode](wanted, host),)) for mode in modes.split(",") if mode in _MODES]
    # The list is best first, and one way that works is enough.
    return Judgement(min(judged, key=lambda found: found.severity).findings, score)


def _near(wanted: Wanted, host: Fingerprint) -> int:
    same = [mpi for mpi in host.mpi or () if mpi.family in wanted.families]
    if any(mpi.abi and mpi.abi == wanted.abi for mpi in same):
        return FAMILY_SAME_FILE
    return FAMILY_NEAR if same else 0


def _replace(wanted: Wanted, host: Fingerprint) -> Finding:
    """The host's libmpi takes the place of the image's."""
    rule, key = "mpi.replace", voc.MPI
    if wanted.libc == "musl":
        return fails(rule, voc.LIBC_PROVIDER, "a host's MPI cannot be put into an image of musl: it needs glibc")
    if host.mpi is None:
        return unknown(rule, key, f"its {wanted.title} library is to be replaced, and the host's MPI is not known")
    same = [mpi for mpi in host.mpi if mpi.family in wanted.families]
    if not same:
        there = ", ".join(sorted({_called(mpi) for mpi in host.mpi})) or "no MPI"
        message = f"its {wanted.title} library cannot be replaced: this host has {there}; it keeps its own"
        return degraded(rule, key, message, "one node, or the fabrics that the image itself can use")
    judged = [_replaced(wanted, mpi) for mpi in same]
    return min(judged, key=lambda finding: Judgement((finding,)).severity)


def _called(mpi: Mpi) -> str:
    name = mpi.implementation or _TITLES.get(mpi.family or "", mpi.family or "an MPI")
    return f"{name} {mpi.version}" if mpi.version else name


def _replaced(wanted: Wanted, mpi: Mpi) -> Finding:
    rule = "mpi.replace"
    own_numbers = mpi.implementation in _OWN_NUMBERS
    known = mpi.abi is not None and wanted.abi is not None
    if known and not own_numbers and not at_least(mpi.abi or "", wanted.abi or ""):
        message = (
            f"this host's {_called(mpi)} is libmpi {mpi.abi}, older than the image's {wanted.abi}; it keeps its own"
        )
        return degraded(rule, voc.MPI_ABI, message, "libraries are safe to replace by newer ones only")
    if (refused := _glibc(rule, f"this host's {_called(mpi)}", mpi.glibc, wanted)) is not None:
        return refused
    if own_numbers:
        hint = "unconfirmed: it numbers its file itself, so only the SONAME was compared; newer functions may lack"
        return ok(
            rule, voc.MPI, f"this host's {_called(mpi)} has the {wanted.title} ABI and can replace the image's", hint
        )
    if not known:
        whose = "the host's" if mpi.abi is None else "the image's"
        message = f"this host's {_called(mpi)} is of its family, but the version of {whose} library file is not known"
        return unknown(
            rule, voc.MPI_ABI, message, "load the module and make the fingerprint anew, or annotate --detect"
        )
    return ok(rule, voc.MPI_ABI, f"this host's {_called(mpi)} (libmpi {mpi.abi}) can replace the image's {wanted.abi}")


def _glibc(rule: str, what: str, needs: str | None, wanted: Wanted) -> Finding | None:
    """Whether a library of the host finds its glibc symbols in the image; None when it does."""
    key = voc.GLIBC
    if needs is None:
        return None
    if wanted.glibc is None:
        return unknown(rule, key, f"{what} needs glibc {needs}, and the image does not say which it ships")
    if at_least(wanted.glibc, needs):
        return None
    return fails(rule, key, f"{what} needs glibc {needs}, and the image ships {wanted.glibc}")


def _own(wanted: Wanted, host: Fingerprint) -> Finding:
    """The image's own MPI, started by the host's launcher over PMI."""
    rule = "mpi.launch"
    if host.launcher.pmi is not None:
        return _by_slurm(wanted, host.launcher.pmi)
    if host.launcher.mpirun is not None:
        return _by_mpirun(wanted, host)
    message = f"its own {wanted.title} runs on one node; this host's launcher is not known"
    return ok(rule, voc.MPI, message, "start it with the image's own mpirun")


def _by_slurm(wanted: Wanted, flavours: tuple[str, ...]) -> Finding:
    rule, key = "mpi.launch", voc.PMI
    speaks = wanted.pmi
    if speaks is None:
        # Sources: docs.open-mpi.org, launching with Slurm (PMIx); MPICH's Hydra speaks PMI-1 and PMI-2.
        speaks = ("pmix",) if wanted.families == ("openmpi",) else ("2", "1") if wanted.families == ("mpich",) else ()
    names = {"1": ("pmi1",), "2": ("pmi2", "cray_shasta")}
    for flavour in speaks:
        fits = [
            name
            for name in flavours
            if name in names.get(flavour, ()) or (flavour[:4] == "pmix" and name[:4] == "pmix")
        ]
        if fits:
            hint = (
                "" if wanted.pmi else "the image does not say which PMI it speaks; this is what its family usually does"
            )
            return ok(rule, key, f"its own {wanted.title} runs, started by srun --mpi={fits[0]}", hint)
    spoken = ", ".join(wanted.pmi) if wanted.pmi else "not said"
    message = (
        f"its own {wanted.title} (PMI: {spoken}) does not meet this host's srun ({', '.join(flavours) or 'no PMI'})"
    )
    return degraded(rule, key, message, "one node, by the image's own mpirun")


def _by_mpirun(wanted: Wanted, host: Fingerprint) -> Finding:
    """Without Slurm, mpirun outside and libmpi inside must be of one implementation, and Open MPI's of one major."""
    rule = "mpi.launch"
    launcher = host.launcher
    family = "openmpi" if launcher.mpirun == "openmpi" else "mpich"
    called = f"{launcher.mpirun} {launcher.mpirun_version or ''}".strip()
    if family not in wanted.families:
        message = f"its own {wanted.title} cannot be started by this host's mpirun of {called}"
        return degraded(rule, voc.MPI, message, "one node, by the image's own mpirun")
    major = tables.OPENMPI_MAJOR.get((*numbers(wanted.abi or ""), -1, -1)[1]) if family == "openmpi" else None
    outside = numbers(launcher.mpirun_version or "")
    if major is not None and outside and major.value != str(outside[0]):
        message = (
            f"its Open MPI {major.value} (libmpi {wanted.abi}) cannot be started by this host's mpirun of {called}"
        )
        hint = "one node, by the image's own mpirun" + ("" if major.confirmed else f"; unconfirmed: {major.source}")
        return degraded(rule, voc.MPI_ABI, message, hint)
    return ok(rule, voc.MPI, f"its own {wanted.title} runs, started by this host's mpirun of {called}")


def _libfabric(wanted: Wanted, host: Fingerprint) -> Finding:
    """The host's libfabric takes the place of the image's, as the CXI hook does."""
    rule, key = "mpi.libfabric", voc.LIBFABRIC_ABI
    if wanted.libc == "musl":
        return fails(rule, voc.LIBC_PROVIDER, "a host's libfabric cannot be put into an image of musl: it needs glibc")
    have = host.fabric.libfabric
    if have is None:
        message = "its libfabric is to be replaced, and this host has none that was found; it keeps its own"
        return degraded(rule, key, message, "one node, or the fabrics that the image itself can use")
    if wanted.libfabric is None:
        return unknown(
            rule, key, f"this host has libfabric ABI {have}, and the image does not say which it was built for"
        )
    if not at_least(have, wanted.libfabric):
        return fails(rule, key, f"built for libfabric ABI {wanted.libfabric}, and this host's {have} is older")
    if (refused := _glibc(rule, "this host's libfabric", host.fabric.libfabric_glibc, wanted)) is not None:
        return refused
    return ok(rule, key, f"this host's libfabric (ABI {have}) can replace the image's {wanted.libfabric}")


def _ucx(wanted: Wanted, host: Fingerprint) -> Finding:
    """UCX has no ABI number: it is replaced as a set."""
    if host.fabric.ucx is None:
        return degraded("mpi.ucx", voc.MPI_MODE, "its UCX is to be replaced, and this host has none that was found")
    hint = "unconfirmed: UCX has no ABI number, so it is replaced with all its modules"
    return ok("mpi.ucx", voc.MPI_MODE, f"this host's UCX {host.fabric.ucx} can replace the image's", hint)


def _translate(wanted: Wanted, host: Fingerprint) -> Finding:
    """wi4mpi translates calls between families."""
    message = "its MPI calls are to be translated (wi4mpi), and whether this host does that is not known"
    return unknown("mpi.translate", voc.MPI_MODE, message)


_MODES: MappingProxyType[str, Callable[[Wanted, Fingerprint], Finding]] = MappingProxyType(
    {
        "mpi_replace": _replace,
        "mpi_system": _own,
        "libfabric_inject": _libfabric,
        "ucx_inject": _ucx,
        "mpi_translate": _translate,
    }
)


def _without_mode(wanted: Wanted, host: Fingerprint) -> Finding:
    found = _own(wanted, host)
    hint = "no portability mode is recorded, so its own MPI is meant" + (f"; {found.hint}" if found.hint else "")
    return replace(found, hint=hint)
