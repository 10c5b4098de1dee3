"""--pin: base images by digest as the registry has them, Spack and its packages by commit as git tells them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from hpc3build.errors import InputError, StoreError, ToolError
from hpc3build.recipe import Settings
from hpc3build.run import Completed, Runner, run
from hpc3build.workflows.render import render
from tests.fake_registry import FakeRegistry
from tests.images import make_layout

URL = "https://git.example.org/spack.git"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[FakeRegistry]:
    make_layout(tmp_path / "layout", [{"etc/os-release": b"ID=debian\n"}], tag="12")
    with FakeRegistry() as made:
        made.add(tmp_path / "layout", "mirror/debian")
        yield made


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clone")
    who = [
        "-c",
        "user.name=t",
        "-c",
        "user.email=t@example.com",
        "-c",
        "commit.gpgsign=false",
        "-c",
        "tag.gpgsign=false",
    ]
    for argv in (
        ["init", "--quiet", "--initial-branch=develop"],
        ["commit", "--quiet", "--allow-empty", "-m", "1"],
        ["tag", "-a", "-m", "annotated", "v1.0.0"],
        ["branch", "releases/v2025.07"],
        ["commit", "--quiet", "--allow-empty", "-m", "2"],
        ["branch", "releases/v2025.11"],
        ["tag", "v1.1.0"],
        ["tag", "v9.9.9"],
    ):
        subprocess.run(["git", "-C", str(folder), *who, *argv], check=True, capture_output=True)
    return folder


def commit(clone: Path, ref: str) -> str:
    argv = ["git", "-C", str(clone), "rev-parse", f"{ref}^{{commit}}"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def git_at(clone: Path) -> Runner:
    """Real git, with every URL standing for one clone."""

    def runner(argv: Sequence[str], **options: Any) -> Completed:
        return run([str(clone) if part.startswith("https://") else part for part in argv], **options)

    return runner


def recipe(folder: Path, spack: str, packages: str = "", base: str = "debian:12") -> tuple[str]:
    images = f"{{os: '{base}', spack: {spack}}}"
    (folder / "spack.yaml").write_text(f"spack:\n  specs: [zlib]\n  container:\n    images: {images}\n")
    (folder / "hpc3build.yaml").write_text(f"pin: true\n{packages}")
    return (str(folder),)


def fetched(text: str) -> list[str]:
    return [line.split()[-2] for line in text.splitlines() if "git fetch" in line]


def test_everything_by_what_it_is_now(registry: FakeRegistry, clone: Path, tmp_path: Path) -> None:
    base = f"{registry.host}/mirror/debian:12"
    sources = recipe(tmp_path, f"{{url: '{URL}', ref: v1.0.0}}", base=base)
    context = render(sources, Settings(), git_at(clone)).context
    digest = registry.tags["mirror/debian"]["12"]
    assert [line for line in context.containerfile.splitlines() if line.startswith("FROM")] == [
        f"FROM {base}@{digest} AS builder",
        f"FROM {base}@{digest} AS final",
    ]
    assert context.final_image == base, "the annotation names the base, its digest has a key of its own"
    assert fetched(context.containerfile) == [commit(clone, "v1.0.0"), commit(clone, "releases/v2025.07")]
    assert render(sources, Settings(), git_at(clone)).context.containerfile == context.containerfile


def test_an_image_that_has_a_digest_is_not_asked_for(clone: Path, tmp_path: Path) -> None:
    base = f"registry.example.org/debian:12@sha256:{'0' * 64}"
    text = render(recipe(tmp_path, "v1.1.0", base=base), Settings(), git_at(clone)).context.containerfile
    assert f"FROM {base} AS builder" in text


def test_an_image_that_is_not_there(registry: FakeRegistry, clone: Path, tmp_path: Path) -> None:
    base = f"{registry.host}/mirror/debian:13"
    with pytest.raises(StoreError, match="debian:13"):
        render(recipe(tmp_path, "v1.1.0", base=base), Settings(), git_at(clone))


PINNED_BASE = f"registry.example.org/debian:12@sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("spack", "settings", "refs"),
    [
        ("develop", "", ["develop", "develop"]),
        ("'1.1.0'", "", ["v1.1.0", "releases/v2025.11"]),
        ("v1.0.0", "pins: {spack-packages: v1.1.0}\n", ["v1.0.0", "v1.1.0"]),
    ],
)
def test_the_packages_of_each_release(spack: str, settings: str, refs: list[str], clone: Path, tmp_path: Path) -> None:
    sources = recipe(tmp_path, spack, settings, base=PINNED_BASE)
    text = render(sources, Settings(), git_at(clone)).context.containerfile
    assert fetched(text) == [commit(clone, ref) for ref in refs]


def test_a_release_whose_packages_are_not_known(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        render(recipe(tmp_path, "v9.9.9", base=PINNED_BASE), Settings(), git_at(clone))
    assert "v9.9.9" in caught.value.message and "spack-packages" in caught.value.hint


def plain(folder: Path, checks: str) -> tuple[str]:
    found = recipe(folder, f"{{url: '{URL}', ref: v1.0.0, {checks}}}")
    (folder / "hpc3build.yaml").unlink()
    return found


def test_resolve_sha_is_for_spack_alone_and_verify_changes_nothing(clone: Path, tmp_path: Path) -> None:
    def text(checks: str) -> str:
        return render(plain(tmp_path, checks), Settings(), git_at(clone)).context.containerfile

    assert fetched(text("resolve_sha: true")) == [commit(clone, "v1.0.0")]
    assert fetched(text("verify: true")) == ["v1.0.0"]


def test_a_reference_that_is_not_there(clone: Path, tmp_path: Path) -> None:
    sources = recipe(tmp_path, f"{{url: '{URL}', ref: v7.0.0, verify: true}}")
    (tmp_path / "hpc3build.yaml").unlink()
    with pytest.raises(InputError, match=r"spack: https://git\.example\.org/spack\.git has no v7\.0\.0"):
        render(sources, Settings(), git_at(clone))


def test_a_server_that_does_not_answer_and_the_way_without(tmp_path: Path) -> None:
    with pytest.raises(ToolError) as caught:
        render(plain(tmp_path, "verify: true"), Settings(), git_at(tmp_path / "nothing"))
    assert "does not answer" in caught.value.message and "--spack-source" in caught.value.hint


def test_nothing_is_asked_without_it(tmp_path: Path) -> None:
    def never(*_: Any, **__: Any) -> Completed:
        raise AssertionError("no process is needed")

    text = render(plain(tmp_path, "verify: false"), Settings(), never).context.containerfile
    assert fetched(text) == ["v1.0.0"]
