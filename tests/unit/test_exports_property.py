"""Whatever an image says: every export parses back, keeps to its place, and shows a terminal no control character."""

from __future__ import annotations

import io
import json
import shlex
import sys

from hypothesis import example, given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from hpc3build.exports import FORMATS
from tests import nfd
from tests.exported import CUDA, HOST, HOSTILE, MPICH, ROCM, as_ch_run, keys, subject

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
VALUES = st.one_of(TEXT, st.sampled_from(sorted({*CUDA.values(), *ROCM.values(), *MPICH.values(), *HOSTILE.values()})))
PAIRS = st.dictionaries(st.sampled_from(keys()) | TEXT, VALUES, max_size=20)
ENV = st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="="), min_size=1, max_size=8), TEXT)


@given(PAIRS, ENV, TEXT.filter(bool), TEXT)
@example({**MPICH}, {}, "a", "amd64")
@example({**CUDA}, {"A": "'x'"}, "a\x00\x7f", "\x85")
def test_every_export_parses_back(pairs: dict[str, str], env: dict[str, str], image: str, platform: str) -> None:
    one = subject(pairs, env=env, image=image, platform={"os": "linux", "architecture": platform}, host=HOST)
    made = {name: form.write([one]).text for name, form in FORMATS.items()}
    if sys.version_info >= (3, 11):
        import tomllib

        assert tomllib.loads(made["edf"])["image"] == image
    assert json.loads(made["sarus"] or "{}").get("version", "1.0.0") == "1.0.0"
    assert json.loads(made["compspec"] or "{}").get("kind", "CompatibilitySpec") == "CompatibilitySpec"
    assert shlex.split(made["podman"])[-1] == image
    assert image in shlex.split(made["apptainer"])[-1]
    if made["nfd"]:
        nfd.check(YAML(typ="safe").load(io.StringIO(made["nfd"])))
    listed = YAML(typ="safe").load(io.StringIO(made["metahub"]))
    assert listed["image"] == image and listed["manifests"][0]["platform"]["architecture"] == platform
    kept = as_ch_run(made["charliecloud"])
    assert kept.items() <= env.items()
    assert {name for name, value in env.items() if (name + value).isprintable()} <= set(kept)
    for name, text in made.items():
        if name not in ("podman", "apptainer", "charliecloud"):  # these hold the name as given, or a tab
            assert all(line.isprintable() for line in text.split("\n")), name
