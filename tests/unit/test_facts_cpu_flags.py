"""Compiler flags to targets and back: the part of rule R2 that inverts archspec's own flags."""

from __future__ import annotations

import re
import warnings

import pytest
from archspec.cpu import TARGETS

from hpc3build.errors import InputError
from hpc3build.facts import cpu, cpu_flags

# The least and the newest release of each step in archspec's table, and those of distributions.
GCC = ("4.8.5", "5.4.0", "7.5.0", "8.5.0", "9.4.0", "10.2.1", "11.3.0", "12.2.0", "13.2.0", "14.2.0", "15.1.0")


def built() -> list[tuple[str, str, str]]:
    found = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # archspec warns of POWER8 before GCC 4.9
        for target in TARGETS:
            for version in GCC:
                try:
                    found.append((target, version, cpu_flags.flags(target, "gcc", version)))
                except InputError:
                    continue
    return found


BUILT = built()


def test_gcc_builds_for_most_targets() -> None:
    assert len({target for target, *_ in BUILT}) > 50


def test_the_target_found_is_never_higher_than_the_one_built_for() -> None:
    wrong = [
        (target, version, flags, found)
        for target, version, flags in BUILT
        if (found := cpu_flags.target_of(flags)[0]) is not None and not cpu.satisfies(target, found)
    ]
    assert wrong == []


def test_flags_of_a_newest_gcc_lead_to_a_target_of_the_same_family() -> None:
    newest = [(target, flags) for target, version, flags in BUILT if version == GCC[-1]]
    lost = [target for target, flags in newest if cpu_flags.target_of(flags)[0] is None]
    # archspec gives these the flags of something that they do not satisfy, or that is not ordered with them.
    lost = [target for target in lost if TARGETS[target].family.name in ("x86_64", "aarch64")]
    assert set(lost) <= {"m2", "m3", "armv8.6a"}


@pytest.mark.parametrize("version", GCC[5:])
@pytest.mark.parametrize("target", ["x86_64", "x86_64_v2", "x86_64_v3", "x86_64_v4", "haswell", "zen2"])
def test_the_targets_that_people_ask_for_come_back_as_they_are(target: str, version: str) -> None:
    assert cpu_flags.target_of(cpu_flags.flags(target, "gcc", version))[0] == target


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("-O2 -ftree-vectorize -march=x86-64-v3 -fno-math-errno", "x86_64_v3"),
        ("-march=znver3", "zen3"),
        ("-march=x86-64-v3 -mtune=generic", "x86_64_v3"),
        ("-O2 -march=x86-64 -mtune=generic", "x86_64"),
        ("-mcpu=generic -mtune=generic", "aarch64"),
        ("-march=haswell -mtune=haswell", "haswell"),
        ("-march=core-avx2", "haswell"),
        ("-march=skylake-avx512", "skylake_avx512"),
        ("-mcpu=a64fx", None),  # archspec adds -msve-vector-bits, so these are not its own
        ("-march=native -march=znver2", "zen2"),  # as for the compiler the last one counts
        ("-march=znver2 -march=native", None),
        ("-march=native", None),
        ("-mcpu=native", None),
        ("-march=znver99", None),
        ("-march=", None),
        ("-xHost", None),
        ("-tp=host", None),
        ("-march=x86-64 -mavx2", None),
        ("-march=x86-64 -mpopcnt", None),
        ("-march=x86-64 -maes", None),
        ("-march=x86-64 -mssse3", None),
        ("-mavx512f", None),
    ],
)
def test_flags_to_target(flags: str, expected: str | None) -> None:
    found, flag = cpu_flags.target_of(flags)
    assert found == expected
    assert flag, "what decided, or what could not be understood, is named"
    assert all(word in flags for word in flag.split())


@pytest.mark.parametrize(
    "flags", ["", "-O2 -g", "-mtune=znver3", "-O3 -fopenmp -I/opt/march=x", "-DX=-march=zen", "-m64", "-mcmodel=large"]
)
def test_flags_that_decide_nothing_name_nothing(flags: str) -> None:
    assert cpu_flags.target_of(flags) == (None, "")


def test_tuning_and_switched_off_extensions_leave_the_target() -> None:
    assert cpu_flags.target_of("-march=znver3 -mtune=znver4 -mno-avx -mprefer-vector-width=128")[0] == "zen3"


def test_flags_are_those_that_gcc_of_that_release_understands() -> None:
    assert re.match(r"-march=x86-64-v3\b", cpu_flags.flags("x86_64_v3", "gcc", "12.2.0"))
    assert "-mavx2" in cpu_flags.flags("x86_64_v3", "gcc", "8.5.0")
    assert cpu_flags.flags("zen3", "gcc", "12.2.0").startswith("-march=znver3")


@pytest.mark.parametrize(
    ("target", "compiler", "version", "says"),
    [
        ("zen3", "gcc", "4.8.5", "gcc 4.8.5 cannot build for zen3"),
        ("zen99", "gcc", "12", "zen99"),
        ("zen3", "no-such-compiler", "1", "no flags"),
    ],
)
def test_what_cannot_be_built_is_an_input_error(target: str, compiler: str, version: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        cpu_flags.flags(target, compiler, version)
