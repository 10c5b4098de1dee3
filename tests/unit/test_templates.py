"""A recipe's own template (container:template) over ours, as Spack's users write them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hpc3build.containerfile import build_context
from hpc3build.errors import InputError
from hpc3build.frontends import spack
from hpc3build.recipe import Settings
from hpc3build.run import run
from tests.dockerfile_words import instructions

# The example of Spack's manual on containers.
OF_THE_MANUAL = """\
{% extends "container/Dockerfile" %}
{% block build_stage %}
RUN echo "Start building"
{{ super() }}
{% endblock %}
{% block final_stage %}
{{ super() }}
COPY data /share/myapp/data
{% endblock %}
"""
EXTENDS = '{% extends "container/Dockerfile" %}\n'
SECTION = """\
    images: {os: 'debian:12', spack: '1.0'}
    os_packages: {build: [libfoo-dev], final: [libgomp1]}
    labels: {x.y: z}
"""


def write(folder: Path, template: str | bytes, name: str = "mine.j2", dirs: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    config = f"  config:\n    template_dirs: [{dirs}]\n" if dirs else ""
    text = f"spack:\n  specs: [zlib]\n{config}  container:\n    template: {name}\n{SECTION}"
    (folder / "spack.yaml").write_text(text)
    (folder / name).parent.mkdir(exist_ok=True, parents=True)
    (folder / name).write_bytes(template if isinstance(template, bytes) else template.encode())
    return folder


def render(folder: Path, form: str = "containerfile") -> str:
    recipe = spack.load((str(folder),), Settings(format=form), run)
    return build_context(recipe, spack.context(recipe, spack.stack(recipe)), form).containerfile


def refused(folder: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        render(folder)
    assert caught.value.exit_code == 2 and "\n" not in caught.value.message
    return caught.value


def test_the_example_of_the_manual_works_as_it_is(tmp_path: Path) -> None:
    """Block by block where Spack has them: before super() Spack is there, after it what it installed is."""
    found = instructions(render(write(tmp_path, OF_THE_MANUAL)))
    told = [f"{word} {rest}" for word, rest in found]

    def at(part: str) -> int:
        return next(number for number, line in enumerate(told) if part in line)

    order = ["fetch --quiet", "Start building", "libfoo-dev", "spack/install.sh", "capture.py", " AS final"]
    order += ["COPY --from=builder /opt/software", "libgomp1", "COPY data /share/myapp/data", "finish.sh", "ENTRYPOINT"]
    places = [at(part) for part in order]
    assert places == sorted(places)
    assert 'ENV PATH="/opt/spack/bin:$PATH"' in told, "RUN spack works, as in Spack's own builder images"
    assert sum("libgomp1" in line for line in told) == sum("libfoo-dev" in line for line in told) == 1


def test_a_block_without_super_leaves_out_what_it_replaces(tmp_path: Path) -> None:
    text = render(write(tmp_path, EXTENDS + "{% block final_stage %}\nRUN true\n{% endblock %}"))
    assert "libgomp1" not in text and "spack/install.sh" in text and "COPY --from=builder /opt/software" in text


@pytest.mark.parametrize("dirs", ["./site", "$env/site", "site"])
def test_it_is_looked_for_where_spack_looks(tmp_path: Path, dirs: str) -> None:
    folder = write(tmp_path, EXTENDS, name="mine.j2", dirs=dirs)
    (folder / "site").mkdir()
    (folder / "site/mine.j2").write_text(EXTENDS + "{% block final_stage %}\nRUN in-the-site\n{% endblock %}")
    assert "RUN in-the-site" in render(folder)
    assert b"template_dirs" not in spack_yaml(folder)


def spack_yaml(folder: Path) -> bytes:
    recipe = spack.load((str(folder),), Settings(), run)
    return spack.context(recipe, None).files["spack/spack.yaml"]


def test_templates_of_ones_own_may_extend_each_other(tmp_path: Path) -> None:
    folder = write(tmp_path, '{% extends "base.j2" %}{% block final_stage %}{{ super() }}\nRUN b\n{% endblock %}')
    (folder / "base.j2").write_text(EXTENDS + "{% block final_stage %}{{ super() }}\nRUN a\n{% endblock %}")
    lines = render(folder).splitlines()
    assert lines.index("RUN a") < lines.index("RUN b")


def test_they_read_what_spack_gives_them(tmp_path: Path) -> None:
    template = EXTENDS + (
        "{% block final_stage %}\n{{ super() }}\n"
        "RUN echo {{ paths.environment }} {{ paths.store }} {{ paths.view }} {{ paths.view_parent }} "
        "{{ paths.former_view }} {{ build.image }} {{ run.image }} {{ os_packages_final.list[0] }}\n"
        "RUN {{ os_packages_final.install }} x && {{ os_packages_final.clean }}\n"
        "{% if os_package_update and strip and not depfile and render_phase.final %}\nRUN yes\n{% endif %}\n"
        "RUN {{ labels['x.y'] }}\n{% endblock %}"
    )
    text = render(write(tmp_path, template))
    paths = "/opt/spack-environment /opt/software /opt/views/view /opt/views /opt/view"
    assert f"RUN echo {paths} debian:12 debian:12 libgomp1" in text
    assert "RUN apt-get install -y --no-install-recommends x && rm -rf" in text
    assert "\nRUN yes\n" in text and "\nRUN z\n" in text


def test_the_same_blocks_in_a_definition(tmp_path: Path) -> None:
    template = OF_THE_MANUAL.replace("container/Dockerfile", "container/singularity.def")
    text = render(
        write(tmp_path, template.replace("RUN ", "    ").replace("COPY data /", "    cp -r /data /")), "apptainer"
    )
    assert text.index('echo "Start building"') < text.index("install.sh") < text.index("cp -r /data /share/myapp/data")


def test_the_default_templates_by_name_are_ours(tmp_path: Path) -> None:
    text = render(write(tmp_path, "nothing", name="container/Dockerfile"))
    assert "nothing" not in text and "spack/install.sh" in text


@pytest.mark.parametrize(
    ("template", "line", "words"),
    [
        ("FROM x\nRUN y\n", 1, "does not extend container/Dockerfile"),
        ("{% extends base %}", 1, "does not extend"),
        ('\n{% extends "container/bootstrap-base.dockerfile" %}', 2, "no counterpart"),
        ('{% extends "container/ubuntu_2204.dockerfile" %}', 1, "no counterpart"),
        (EXTENDS + "{% block post_checkout %}\n{% endblock %}", 2, "no block post_checkout"),
        (EXTENDS + "{% block final_stage %}\n{{ nothing }}{% endblock %}", 3, "'nothing' is undefined"),
        (EXTENDS + "{% block final_stage %}\n{{ manifest }}{% endblock %}", 3, "'manifest' is undefined"),
        (EXTENDS + "{% block final_stage %}\n{{ ''.__class__.__mro__ }}{% endblock %}", 3, "unsafe"),
        (EXTENDS + "{% block final_stage %}\n{{ 1 / 0 }}{% endblock %}", 3, "ZeroDivisionError"),
        (EXTENDS + "{% block final_stage %}\n{% for i in range(10**9) %}{% endfor %}{% endblock %}", 3, "Overflow"),
        (EXTENDS + "{% block final_stage %}\n{% if %}\n{% endblock %}", 3, ""),
        (EXTENDS + "{% block final_stage %}\nFROM x AS y\n{% endblock %}", None, "another stage"),
        (EXTENDS + "{% block build_stage %}{{ super() }}\nRUN x \\\n{% endblock %}", None, "swallow"),
        (EXTENDS + "{% block final_stage %}{{ super() }}\nRUN x \\\n{% endblock %}", None, "swallow"),
        (EXTENDS + "{% block final_stage %}\nRUN <<EOF\nx\nEOF\n{% endblock %}", None, "heredocs"),
        (b"\xff" + EXTENDS.encode(), None, "cannot be read"),
        ('{% extends "mine.j2" %}', None, "without end"),
        (EXTENDS + "{% block final_stage %}{{ '%s' % ('x' * 3000000) }}{% endblock %}", None, "more than"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_told_with_its_place(
    template: str | bytes, line: int | None, words: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, template)
    error = refused(folder)
    place = rf"{folder}/mine\.j2:{line}: " if line else rf"{folder}/spack\.yaml:4: spack:container:template: "
    assert re.match(place, error.message), error.message
    assert words in error.message


def test_a_template_that_is_not_there(tmp_path: Path) -> None:
    folder = write(tmp_path, EXTENDS, dirs="nowhere")
    (folder / "mine.j2").unlink()
    error = refused(folder)
    assert "no template mine.j2" in error.message and f"{folder}/nowhere, {folder}" in error.hint


def test_what_to_change_is_said(tmp_path: Path) -> None:
    hint = refused(write(tmp_path, "FROM x\n")).hint
    assert '{% extends "container/Dockerfile" %}' in hint and "build_stage and final_stage" in hint
