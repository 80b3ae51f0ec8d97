"""The project's Qdrant test server, or any real Qdrant that `MEMFERRY_TEST_QDRANT_URL` names."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import qdrant_client

from testbed import cache
from testbed.errors import TestbedError
from testbed.ports import release_port, reserve_port
from testbed.process import ManagedProcess, run_tool
from testbed.qdrant_faults import QdrantFaults
from testbed.tls import Certificates

__all__ = ["API_KEY_VARIABLE", "URL_VARIABLE", "QdrantServer", "installed"]

URL_VARIABLE = "MEMFERRY_TEST_QDRANT_URL"
API_KEY_VARIABLE = "MEMFERRY_TEST_QDRANT_API_KEY"

_SOURCES = Path(__file__).resolve().parents[1] / "servers" / "qdrant"
_BINARY = "qdrant-testserver"
_NOT_SOURCES = {"target", "tests", "README.md"}
_BUILD_DEADLINE_SECS = 3600.0
_START_DEADLINE_SECS = 120.0
_STOP_GRACE_SECS = 30.0  # the server itself waits up to 20 s for running work
_PORT_TRIES = 3
_PORT_TAKEN = "Address already in use"
_DEFAULT_GRPC_PORT = 6334


def installed() -> Path:
    """The test server's binary, built on first use and after every change of its sources (8 CPU minutes, then less)."""
    return cache.cached("qdrant", version=_sources_hash(), build=_build) / _BINARY


class QdrantServer:
    """One Qdrant, made but not started.

    Where `MEMFERRY_TEST_QDRANT_URL` names a real server it stands for that one: `start` only checks that it answers,
    and what would break it (kills, restarts, faults) raises. A server made with a key or certificates of its own is
    always the test server.

    Args:
        storage: Folder of its data; a temporary one, removed by `close`, if not given.
        api_key: What clients must send.
        certificates: Serve TLS with these.

    Attributes:
        api_key: What clients must send, if anything.
        is_external: Whether this is a real server that the environment named.
        uses_tls: Whether clients must speak TLS.
    """

    def __init__(
        self,
        storage: Path | None = None,
        *,
        api_key: str | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self.api_key = api_key
        self._certificates = certificates
        self._process: ManagedProcess | None = None
        external = os.environ.get(URL_VARIABLE, "") if api_key is None and certificates is None else ""
        self.is_external = bool(external)
        self.uses_tls = certificates is not None
        if self.is_external:
            self._host, self._port, self.uses_tls = _parsed(external)
            self.api_key = os.environ.get(API_KEY_VARIABLE) or None
            return
        self._host, self._port = "127.0.0.1", 0
        self._binary = installed()
        self._temporary = storage is None
        self._folder = storage or Path(tempfile.mkdtemp(prefix="memferry-qdrant-"))

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def host(self) -> str:
        """Where its gRPC is served."""
        return self._host

    @property
    def port(self) -> int:
        """Its gRPC port, the same over all restarts."""
        return self._port

    @property
    def url(self) -> str:
        """The store URL of the server, without a collection."""
        return f"qdrant://{self._host}:{self._port}"

    @property
    def certificates(self) -> Certificates | None:
        """The certificates it was made with."""
        return self._certificates

    @property
    def process(self) -> ManagedProcess:
        """The server's process: `kill9`, `stop_cont`, `log_path`."""
        self._require_own("has no process here")
        if self._process is None:
            raise TestbedError("this Qdrant was never started")
        return self._process

    @property
    def faults(self) -> QdrantFaults:
        """Faults on demand, for the process that runs now."""
        self._require_own("has no faults on demand")
        control = re.search(r"^control \S+:(\d+)$", self.process.log_since_start(), re.MULTILINE)
        if not self.process.is_running or control is None:
            raise TestbedError("faults on demand need a running server")
        return QdrantFaults(int(control.group(1)))

    def start(self) -> None:
        """Start it and wait until it listens; the first start also picks the port."""
        if self.is_external:
            self._require_answer()
            return
        if self._process is not None:
            self._process.start()
            return
        for attempt in range(1, _PORT_TRIES + 1):
            self._port = reserve_port()
            process = self._new_process()
            try:
                process.start()
            except TestbedError:
                release_port(self._port)
                if attempt == _PORT_TRIES or _PORT_TAKEN not in process.log_since_start():
                    raise
            else:
                self._process = process
                return

    def stop(self) -> None:
        """End it in good order; the data stay. A real server is left alone."""
        if self._process is not None:
            self._process.stop()

    def kill9(self) -> None:
        """End it as a crash would; the data stay."""
        self.process.kill9()

    def restart(self) -> None:
        """Start it again on the same port and data, after an orderly stop if it still runs."""
        self.process.restart()

    def close(self) -> None:
        """Kill it and remove its data; the log of a folder that was given stays. A real server is left alone."""
        if self.is_external:
            return
        if self._process is not None:
            self._process.kill9()
        release_port(self._port)
        shutil.rmtree(self._folder if self._temporary else self._folder / "data", ignore_errors=True)

    @contextlib.contextmanager
    def client(self, *, timeout_secs: int = 60) -> Iterator[qdrant_client.QdrantClient]:
        """The official Python client over gRPC, closed at the end of the block."""
        trusted = None
        if self._certificates is not None:
            trusted = {"root_certificates": self._certificates.authority.read_bytes()}
        client = qdrant_client.QdrantClient(
            host=self._host,
            grpc_port=self._port,
            prefer_grpc=True,
            https=self.uses_tls,
            api_key=self.api_key,
            timeout=timeout_secs,
            check_compatibility=False,
            grpc_options=trusted,
            verify=False,  # of REST, which nobody asks: a client would read all authorities there are, each time
        )
        try:
            yield client
        finally:
            client.close()

    @contextlib.contextmanager
    def collections(self) -> Iterator[str]:
        """A prefix for collection and alias names that nobody else uses; what bears it at the end is deleted."""
        prefix = f"memferry_test_{secrets.token_hex(6)}_"
        try:
            yield prefix
        finally:
            if self.is_external or self.process.is_running:
                self._delete_collections(prefix)

    def _delete_collections(self, prefix: str) -> None:
        with self.client() as client:
            for collection in client.get_collections().collections:
                if collection.name.startswith(prefix):
                    client.delete_collection(collection.name)

    def _new_process(self) -> ManagedProcess:
        self._folder.mkdir(parents=True, exist_ok=True)
        argv: list[str | Path] = [self._binary, "--listen", f"127.0.0.1:{self._port}", "--control", "127.0.0.1:0"]
        argv += ["--storage", self._folder / "data"]
        if self.api_key is not None:
            key_file = self._folder / "api-key"
            key_file.touch(mode=0o600)
            key_file.write_text(self.api_key)
            argv += ["--api-key-file", key_file]
        if self._certificates is not None:
            argv += ["--tls-cert", self._certificates.certificate, "--tls-key", self._certificates.key]
        process = ManagedProcess(
            "qdrant-testserver",
            argv,
            log_path=self._folder / "console.log",
            # the control line comes last
            ready=lambda: re.search(r"^control \S+\n", process.log_since_start(), re.MULTILINE) is not None,
            ready_deadline_secs=_START_DEADLINE_SECS,
            stop_grace_secs=_STOP_GRACE_SECS,
        )
        return process

    def _require_own(self, what: str) -> None:
        if self.is_external:
            raise TestbedError(f"the real Qdrant that {URL_VARIABLE} names {what}\nhint: unset {URL_VARIABLE}")

    def _require_answer(self) -> None:
        try:
            with self.client() as client:
                client.get_collections()
        except Exception as error:  # the client raises whatever its transport does
            raise TestbedError(f"the Qdrant that {URL_VARIABLE} names does not answer: {error}") from error


def _parsed(url: str) -> tuple[str, int, bool]:
    """Host, gRPC port and TLS of a real server's URL."""
    parts = urlsplit(url)
    if parts.scheme not in {"qdrant", "http", "https"} or not parts.hostname:
        raise TestbedError(f"{URL_VARIABLE} must be qdrant://, http:// or https:// with host and gRPC port, got: {url}")
    if parts.username or parts.password:
        raise TestbedError(f"{URL_VARIABLE} must hold no secret\nhint: put the API key into {API_KEY_VARIABLE}")
    return parts.hostname, parts.port or _DEFAULT_GRPC_PORT, parts.scheme == "https"


@functools.cache
def _sources_hash() -> str:
    if not (_SOURCES / "Cargo.toml").is_file():
        raise TestbedError("the sources of the Qdrant test server are missing: tests/servers/qdrant")
    compiler = run_tool(["rustc", "--version"], what="asking Rust for its version")
    digest = hashlib.sha256(compiler.encode())
    for path in sorted(_SOURCES.rglob("*")):
        name = path.relative_to(_SOURCES)
        if path.is_file() and name.parts[0] not in _NOT_SOURCES:
            digest.update(f"{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def _build(into: Path) -> None:
    """Build in one target folder for all versions, so that a change of a source rebuilds only what it must."""
    target = cache.folder() / "qdrant-target"
    with cache.locked("qdrant-target"):
        run_tool(
            ["cargo", "build", "--release", "--locked"],
            what="building the Qdrant test server",
            cwd=_SOURCES,
            env={"CARGO_TARGET_DIR": str(target)},
            deadline_secs=_BUILD_DEADLINE_SECS,
        )
        shutil.copy2(target / "release" / _BINARY, into / _BINARY)
