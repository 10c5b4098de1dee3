"""What HPC3 expects of an image: static rules over its manifest, configuration and files, live ones over an engine."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from hpc3build.containerfile import CMD, ENTRYPOINTS, ENVIRONMENT
from hpc3build.engines import Engine, How
from hpc3build.errors import InputError
from hpc3build.evidence.layers import ImageFiles
from hpc3build.facts import Key, Need
from hpc3build.facts import vocabulary as voc
from hpc3build.findings import Finding, Outcome
from hpc3build.oci import ImageConfig, Manifest


@dataclass(frozen=True)
class Image:
    """What the static rules look at."""

    manifest: Manifest
    config: ImageConfig
    files: ImageFiles


#: Users that an HPC site may start a container as; the last is in no passwd file.
USERS = (("root", "0:0"), ("nobody", "65534:65534"), ("an unknown user", "12345:54321"))
PROBE = "hpc3build-probe"
#: podman-run(1): the engine itself, or its runtime, failed before any command ran.
ENGINE_FAILED = (125, 126)

#: Files that only a build needs, or that tell of the site that built: what each is, and the paths that give it away.
LEFTOVERS = (
    (
        "a compiler",
        r"/(?:usr/)?(?:local/)?bin/(?:[\w.-]*-)?(?:gcc|g\+\+|gfortran|clang|clang\+\+|cc|c\+\+|nvcc|icx|ifx)"
        r"(?:-\d[\d.]*)?",
    ),
    ("a compiler", r"/(?:.*/)?(?:cc1|cc1plus|f951|lto1)"),
    ("a linker or assembler", r"/(?:usr/)?bin/(?:[\w.-]*-)?(?:ld|as)(?:\.bfd|\.gold|\.lld)?"),
    ("a build tool", r"/(?:usr/)?bin/(?:make|gmake|cmake|ninja|eb)"),
    ("a build dependency", r"/usr/include/.*\.h"),
    ("a build dependency", r"/usr/lib/(?:.*/)?openmpi/include/.*\.h"),
    ("the package manager that built", r"/opt/(?:spack/bin/spack|hpc3build/(?:build|tools|work)(?:/.*)?)"),
    ("a site's CA", r"/usr/local/share/ca-certificates/.*\.crt|/etc/pki/ca-trust/source/anchors/.*"),
    ("a build secret", r"/run/secrets/.+"),
    (
        "a proxy or mirror setting",
        r"/etc/apt/apt\.conf|/etc/apt/apt\.conf\.d/.*(?:proxy|artifact|mirror).*|/etc/apt/auth\.conf.*",
    ),
    ("a pip setting", r"/etc/pip\.conf|/etc/xdg/pip/.*|/root/\.(?:config/pip|pip)/.*|/etc/pip/.*"),
    (
        "a package cache",
        r"/var/cache/(?:apt/(?:archives/.*\.deb|.*pkgcache\.bin)|dnf/.*|yum/.*)|/root/\.cache/.+"
        r"|/var/lib/apt/lists/.*_(?:Packages|InRelease).*",
    ),
    ("a builder's log", r".*/easybuild/(?:[^/]*\.log(?:\.gz)?|[^/]*_test_report\.md)"),
    ("a driver of the host", r".*/libcuda\.so[.\d]*"),
)
_LEFTOVERS = tuple((what, re.compile(pattern)) for what, pattern in LEFTOVERS)
_SITE_VARIABLES = re.compile(
    r"(?i)(?:https?|ftp|all|no)_proxy|PIP_.*|SSL_CERT_FILE|SSL_CERT_DIR|CURL_CA_BUNDLE|"
    r"REQUESTS_CA_BUNDLE|GIT_SSL_CAINFO|APT_CONFIG"
)


def wanted(path: str) -> int | None:
    """Bytes to read of a file for the rules: the names of all, the content of login scripts."""
    return 64 << 10 if _is_login_script(path) or path == ENVIRONMENT else 0


def _is_login_script(path: str) -> bool:
    return (
        path in ("/etc/profile", "/etc/bash.bashrc", "/etc/bashrc")
        or re.fullmatch(r"/etc/profile\.d/[^/]+\.sh", path) is not None
    )


def entrypoint(image: Image) -> Iterator[Finding]:
    """The container drops into a login shell, the same for every application."""
    found = image.config.entrypoint
    for name, line in ENTRYPOINTS.items():
        if found == line:
            loses = "; it loses quoting and exit codes, --entrypoint hpc3-exec keeps them" if name == "hpc3" else ""
            yield Finding("entrypoint", Outcome.OK, f"the entry point is {name}'s{loses}")
            return
    yield Finding(
        "entrypoint",
        Outcome.FAILS,
        f"the entry point is {list(found or ())}",
        f"HPC3 asks for {list(ENTRYPOINTS['hpc3'])}",
    )


def command(image: Image) -> Iterator[Finding]:
    """Asked for nothing, it gives a shell."""
    if image.config.cmd == CMD:
        yield Finding("command", Outcome.OK, "without a command there is a shell")
    else:
        yield Finding("command", Outcome.FAILS, f"the command is {list(image.config.cmd or ())}", 'CMD ["/bin/bash"]')


def environment(image: Image) -> Iterator[Finding]:
    """The application's environment is in config.Env too: most HPC engines skip the entry point."""
    env = image.config.env
    path = env.get("PATH", "")
    if not path or not all(entry.startswith("/") for entry in path.split(":")):
        yield Finding(
            "environment", Outcome.FAILS, f"config.Env has PATH={path!r}", "an absolute PATH, with the application's"
        )
    elif ENVIRONMENT not in image.files:
        yield Finding(
            "environment", Outcome.UNKNOWN, "the image does not record which environment its application needs"
        )
    elif "/opt/" not in path:
        yield Finding(
            "environment",
            Outcome.FAILS,
            f"the application is not on config.Env's PATH={path}",
            "hpc3build build bakes it in",
        )
    else:
        yield Finding("environment", Outcome.OK, "config.Env has the application's PATH")
    left = sorted(name for name in env if _SITE_VARIABLES.fullmatch(name))
    if left:
        yield Finding(
            "environment",
            Outcome.FAILS,
            f"config.Env keeps settings of a site: {', '.join(left)}",
            "give them to the build as secrets",
        )


def same_words(image: Image) -> Iterator[Finding]:
    """Labels and annotations of the vocabulary say the same (R10): runtimes read labels."""
    labels, annotations = image.config.labels, image.manifest.annotations
    ours = sorted(
        name for name in {*labels, *annotations} if name in voc.BY_NAME and name != "org.opencontainers.image.ref.name"
    )
    differing = [name for name in ours if labels.get(name) != annotations.get(name)]
    if not ours:
        yield Finding("labels", Outcome.FAILS, "the image says nothing of itself", "hpc3build annotate --labels")
    for name in differing:
        yield Finding(
            "labels",
            Outcome.FAILS,
            f"the label says {labels.get(name)!r}, the annotation {annotations.get(name)!r}",
            "hpc3build annotate --labels",
            name,
        )
    if ours and not differing:
        yield Finding("labels", Outcome.OK, f"{len(ours)} pairs are the same as labels and as annotations")


def mandatory(image: Image) -> Iterator[Finding]:
    """Every mandatory key is there and well formed; one that is honestly unknown is no fault."""
    pairs = {**image.manifest.annotations, **image.config.labels}
    missing = [key for key in voc.KEYS if _is_due(key, pairs) and key.name not in pairs]
    for key in missing:
        yield Finding(
            "mandatory", Outcome.UNKNOWN, "not known of this image", f"hpc3build annotate -a {key.name}=…", key.name
        )
    if not missing:
        yield Finding("mandatory", Outcome.OK, "all mandatory keys are there")


def _is_due(key: Key, pairs: Mapping[str, str]) -> bool:
    """Whether the image owes ``key``: a mandatory one, or one of the GPU that it says it needs."""
    if key.need is Need.MANDATORY:
        return True
    gpus = pairs.get(voc.GPU.name, "none").split(",")
    return key.condition in gpus or (key is voc.GPU_ARCHITECTURE and gpus != ["none"])


def well_formed(image: Image) -> Iterator[Finding]:
    """Values follow the grammar of their keys, and no privileged key is there."""
    pairs = {**image.manifest.annotations, **image.config.labels}
    wrong = False
    for name, value in sorted(pairs.items()):
        if name.startswith(voc.FORBIDDEN_PREFIXES):
            wrong = True
            yield Finding("forbidden", Outcome.FAILS, "privileged runtimes act on this key", "remove it", name)
        elif (key := voc.BY_NAME.get(name)) is not None:
            try:
                key.check(value)
            except InputError as error:
                wrong = True
                yield Finding("well-formed", Outcome.FAILS, error.message, error.hint, name)
    if not wrong:
        yield Finding("well-formed", Outcome.OK, "all values follow their grammar, no privileged key is there")


def login_scripts(image: Image) -> Iterator[Finding]:
    """No login script asks for the name of a user that may have none."""
    wrong = False
    for path in sorted(filter(_is_login_script, image.files)):
        text = image.files[path].data.decode("utf-8", "replace")
        code = "\n".join(line.split("#")[0] for line in text.splitlines())
        if found := re.search(r"\bwhoami\b|\bid -(?:un|nu|gn|ng)\b|\blogname\b", code):
            wrong = True
            yield Finding("any-uid", Outcome.FAILS, f"{path} calls {found.group()}", "an unknown UID has no name")
    if not wrong:
        yield Finding("any-uid", Outcome.OK, "no login script asks for a user's name")


def leftovers(image: Image) -> Iterator[Finding]:
    """Only what runs is in the image: no compiler, build dependency, cache, secret or setting of the site."""
    found: dict[str, list[str]] = {}
    for path in image.files:
        if image.files[path].kind == "directory":
            continue
        for what, pattern in _LEFTOVERS:
            if pattern.fullmatch(path):
                found.setdefault(what, []).append(path)
    for what, paths in found.items():
        more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
        yield Finding("leftovers", Outcome.FAILS, f"{what}: {min(paths)}{more}", "install it in the builder stage only")
    if not found:
        looked = ", ".join(dict.fromkeys(what for what, _ in LEFTOVERS))
        yield Finding("leftovers", Outcome.OK, f"none found; looked for {looked}")


STATIC: tuple[Callable[[Image], Iterator[Finding]], ...] = (
    entrypoint,
    command,
    environment,
    same_words,
    mandatory,
    well_formed,
    login_scripts,
    leftovers,
)


def static(image: Image) -> tuple[Finding, ...]:
    """All static rules."""
    return tuple(finding for rule in STATIC for finding in rule(image))


def live(engine: Engine, image: str) -> Iterator[Finding]:
    """Run a command as every kind of user: through the entry point, also on a read-only root, and round it.

    What the engine cannot express is told once and is never green.
    """
    started = engine.run(image, ["true"], How(entrypoint=False, timeout=120))
    if started.returncode in ENGINE_FAILED:
        last = (started.stderr.strip() or "no output").splitlines()[-1]
        hint = "docs/troubleshooting.md; this says nothing of the image"
        yield Finding(
            f"any-uid:{engine.name}", Outcome.UNKNOWN, f"n/a: {engine.name} starts nothing here: {last}", hint
        )
        return
    for lack in sorted(engine.lacks):
        yield Finding(f"any-uid:{engine.name}", Outcome.UNKNOWN, f"n/a: {engine.name} run lacks {lack}")
    for who, user in USERS:
        who = f"as {who} ({user})"
        if "an entry point" not in engine.lacks:
            yield _probe(engine, image, who, user)
            if "a read-only root" not in engine.lacks:
                yield _probe(engine, image, f"{who} on a read-only root", user, read_only=True)
        yield _probe(engine, image, f"{who} round the entry point", user, entrypoint=False)


def _probe(
    engine: Engine, image: str, how: str, user: str, *, read_only: bool = False, entrypoint: bool = True
) -> Finding:
    rule = f"any-uid:{engine.name}"
    done = engine.run(image, ["echo", PROBE], How(user=user, read_only=read_only, entrypoint=entrypoint, timeout=120))
    if done.returncode == 0 and done.stdout.strip() == PROBE:
        return Finding(rule, Outcome.OK, f"{how}: runs")
    last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-1]
    return Finding(rule, Outcome.FAILS, f"{how}: exit status {done.returncode}: {last}")
