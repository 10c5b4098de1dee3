"""docker: builds by its own command with BuildKit, which the SDK lacks; everything else by the SDK."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hpc3build.engines import DEFAULT, How, own_name
from hpc3build.engines.buildah import build_failure
from hpc3build.errors import StoreError, ToolError, ToolMissing
from hpc3build.oci import OCI_LAYER, Descriptor
from hpc3build.reference import DAEMON, Reference, is_digest, parse
from hpc3build.run import Completed, Runner
from hpc3build.stores.daemon import DaemonStore, connect, docker_told
from hpc3build.stores.layout import Layout

#: A client without BuildKit may stand first on the PATH.
COMMANDS = ("docker", "/usr/bin/docker", "/usr/local/bin/docker")
_BUILTIN = 23  # clients before this release bring BuildKit's front end themselves, later ones need buildx
_PIECE = 1 << 20
_THREADS = 4


class Docker:
    """The engine protocol over docker."""

    name = "docker"
    store = DAEMON
    lacks: frozenset[str] = frozenset()

    def __init__(self, runner: Runner) -> None:
        self._run = runner

    def version(self) -> str:
        """The daemon's version. Raises ToolError where it is not reached."""
        with self._client() as client:
            return str(client.version()["Version"])

    def build(self, context: Path, *, secrets: Mapping[str, Path], no_cache: bool = False) -> str:
        command = self._command()
        with TemporaryDirectory(prefix="hpc3build-") as folder, self._client() as client:
            id_file = Path(folder) / "id"
            argv = ["env", "DOCKER_BUILDKIT=1", command, "build", "--progress=plain", "--iidfile", str(id_file)]
            argv += ["--file", str(context / "Containerfile")]
            argv += ["--network", "host"] if _lacks_bridge(client) else []
            argv += ["--no-cache"] if no_cache else []
            for name, path in sorted(secrets.items()):
                argv += ["--secret", f"id={name},src={path}"]
            try:
                self._run([*argv, str(context)], stream=True)
            except ToolError as error:
                raise build_failure(error) from error
            return id_file.read_text().strip().removeprefix("sha256:")

    def export(self, image: str, layout: Path, tag: str) -> None:
        """See Engine; the same image gives the same bytes."""
        with self._client() as client, DaemonStore(_reference(image), client) as store:
            manifest = store.manifest()
            target = Layout.create(layout)

            def compress(layer: Descriptor) -> Descriptor:
                with store.blob(layer.digest) as stream:
                    digest, size = target.put_stream(_gzipped(iter(lambda: stream.read(_PIECE), b"")))
                return Descriptor(f"{OCI_LAYER}+gzip", digest, size)

            with ThreadPoolExecutor(_THREADS) as pool:
                layers = tuple(pool.map(compress, manifest.layers))
            with store.blob(manifest.config.digest) as stream:
                target.put_blob(stream.read())
            target.put_manifest(manifest.with_layers(layers), tag)

    def digest(self, image: str) -> str | None:
        with self._client() as client:
            try:
                with docker_told(image):
                    found = client.images.get(image).attrs.get("RepoDigests") or ()
            except StoreError:
                return None
        digests = {str(name).rpartition("@")[2] for name in found}
        return digest if len(digests) == 1 and is_digest(digest := digests.pop()) else None

    def prepared(self, image: str) -> AbstractContextManager[str]:
        return nullcontext(image)

    def run(self, image: str, argv: Sequence[str], how: How = DEFAULT) -> Completed:
        """See Launcher. Statuses of what does not start are docker's own: 125, 126 and 127."""
        from docker.errors import APIError, NotFound

        with self._client() as client, docker_told(image):
            options = {"network_mode": "host"} if _lacks_bridge(client) else {}
            name = own_name()
            try:
                try:
                    container = client.containers.create(image, list(argv), name=name, **_options(how), **options)
                except NotFound:
                    raise
                except APIError as error:  # no command at all, say
                    return _not_started(argv, error)
                try:
                    with _given(container, how.stdin):
                        container.start()
                    status = int(container.wait(timeout=how.timeout)["StatusCode"])
                    out, err = container.logs(stderr=False), container.logs(stdout=False)
                except APIError as error:
                    return _not_started(argv, error)
                except OSError as error:  # what requests raises where no answer comes in time, or none at all
                    if how.timeout is None or "timed out" not in str(error):
                        raise
                    raise ToolError(f"{argv[0]} did not finish within {how.timeout:g} s in {image}") from error
            finally:
                with suppress(NotFound):  # it was never made
                    client.api.remove_container(name, force=True)
        return Completed(tuple(argv), status, out.decode("utf-8", "replace"), err.decode("utf-8", "replace"))

    def remove(self, image: str) -> None:
        """Take a name away, and the image with its last name; one that is not there is no error."""
        from docker.errors import APIError

        with self._client() as client:
            try:
                client.images.remove(image, noprune=True)
            except APIError:
                return

    def _client(self) -> Any:
        try:
            return _Closing(connect("docker"))
        except StoreError as error:
            raise ToolError(error.message, hint=error.hint) from error

    def _command(self) -> str:
        """A docker command that can build with BuildKit. Raises ToolMissing."""
        seen = False
        for command in COMMANDS:
            try:
                words = self._run([command, "--version"], check=False).stdout.split()
            except ToolMissing:
                continue
            seen = True
            release = words[2].partition(".")[0] if len(words) > 2 else ""
            if release.isdigit() and int(release) < _BUILTIN:
                return command
            if self._run([command, "buildx", "version"], check=False).returncode == 0:
                return command
        if not seen:
            raise ToolMissing("docker: command not found", hint="install the package docker.io")
        raise ToolMissing(
            "docker cannot build with BuildKit: its plug-in buildx is missing", hint="install docker-buildx-plugin"
        )


class _Closing:
    """A client of the SDK as a context manager that gives the client itself."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __enter__(self) -> Any:
        return self._client

    def __exit__(self, *_: object) -> None:
        self._client.close()


def _reference(image: str) -> Reference:
    hexadecimal = image.removeprefix("sha256:")
    if is_digest(f"sha256:{hexadecimal}"):
        return Reference(DAEMON, "", image_id=hexadecimal)
    return parse(f"{DAEMON}:{image}")


def _options(how: How) -> dict[str, Any]:
    """What the SDK calls the parts of ``how``."""
    given: dict[str, Any] = {
        "user": how.user,
        "group_add": [str(group) for group in how.groups],
        "read_only": how.read_only,
        "entrypoint": None if how.entrypoint else [""],
        "stdin_open": how.stdin is not None,
        "environment": dict(how.env),
        "volumes": [f"{folder}:{path}" for folder, path in how.mounts],
        "working_dir": how.folder,
    }
    return {name: value for name, value in given.items() if value}


@contextmanager
def _given(container: Any, stdin: str | None) -> Iterator[None]:
    """Hand ``stdin`` to a container that is started in the block."""
    if stdin is None:
        yield
        return
    stream = container.attach_socket(params={"stdin": 1, "stream": 1})
    wire = getattr(stream, "_sock", stream)  # over HTTPS the SDK gives the socket itself
    try:
        yield
        wire.sendall(stdin.encode())
        with suppress(OSError):
            wire.shutdown(socket.SHUT_WR)
    finally:
        stream.close()
        wire.close()


def _lacks_bridge(client: Any) -> bool:
    """Whether the daemon has no network of its own (dockerd --bridge=none): then the host's is used."""
    return not any(network.name == "bridge" for network in client.networks.list(names=["bridge"]))


def _gzipped(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """gzip without a time stamp; level 4 takes half the time of 6 for some per cent more bytes."""
    packer = zlib.compressobj(4, zlib.DEFLATED, 31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


def _not_started(argv: Sequence[str], error: Any) -> Completed:
    told = str(error.explanation or error)
    return Completed(tuple(argv), _status(told), "", f"docker: {told}\n")


def _status(told: str) -> int:
    if "permission denied" in told:
        return 126
    return 127 if "not found" in told or "no such file" in told else 125
