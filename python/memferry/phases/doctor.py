"""What a person on call wants to know first: the machine, and each store with its migrations. Changes nothing."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Final, Literal

from memferry._native import EmbeddedStore
from memferry.backends.neo4j.connection import Connection
from memferry.backends.qdrant.source import connect as connect_qdrant
from memferry.backends.state import state_directory
from memferry.errors import MemferryError, StoreError
from memferry.phases.status import Standing, standings
from memferry.stores import open_source, read_ledger
from memferry.urls import StoreUrl

__all__ = ["Check", "look_at_machine", "look_at_store"]

Verdict = Literal["ok", "warn", "fail"]

LITTLE_BYTES: Final = 256 << 20
"""Free disk below this is said."""
LARGE_WAL_BYTES: Final = 64 << 20
SKEW_SECS: Final = 5.0
"""Clocks further apart than this make a lock's lease hard to judge."""
SLOW_SECS: Final = 0.25
_ROUNDS: Final = 3


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        about: The machine, or a store by its URL.
        name: What was looked at.
        verdict: `ok`, `warn` or `fail`.
        detail: What was found.
        hint: What to do about it.
    """

    about: str
    name: str
    verdict: Verdict
    detail: str
    hint: str | None = None


def look_at_machine() -> Iterator[Check]:
    """Versions, core, packages, folders."""

    def check(name: str, verdict: Verdict, detail: str, hint: str | None = None) -> Check:
        return Check("machine", name, verdict, detail, hint)

    version = importlib.metadata.version("memferry")
    yield check("memferry", "ok", f"{version}, Python {platform.python_version()}, {platform.platform(terse=True)}")
    try:
        yield check("core", "ok", f"Rust core makes and reads a store, SQLite {_sqlite_version()}")
    except (MemferryError, OSError) as error:
        yield check("core", "fail", str(error), "the scratch folder has to be writable; TMPDIR names another one")
    try:
        yield check("neo4j driver", "ok", importlib.metadata.version("neo4j"))
    except importlib.metadata.PackageNotFoundError:
        yield check("neo4j driver", "warn", "not installed", "for Neo4j stores: pip install memferry[neo4j]")
    yield _folder("machine", "scratch", Path(tempfile.gettempdir()))
    try:
        yield _folder("machine", "state", state_directory())
    except MemferryError as error:
        yield check("state", "fail", str(error), error.hint)


def _sqlite_version() -> str:
    """Version of the core's SQLite: it stands in the header of a store that the core has just made."""
    with tempfile.TemporaryDirectory(prefix="memferry-") as folder:
        path = Path(folder) / "store.db"
        made = EmbeddedStore.open_target(path)
        identity = made.store_id()
        del made  # The last connection puts everything into the file.
        if EmbeddedStore.open_source(path).store_id() != identity:
            raise StoreError("store-corrupt", "a store that was just made is another one")
        number = int.from_bytes(path.read_bytes()[96:100], "big")
    return f"{number // 1_000_000}.{number // 1000 % 1000}.{number % 1000}"


def look_at_store(url: StoreUrl) -> Iterator[Check]:
    """Reach, latency, credentials, encryption, format, disk, migrations."""

    def check(name: str, verdict: Verdict, detail: str, hint: str | None = None) -> Check:
        return Check(url.text, name, verdict, detail, hint)

    servers = [half for half in (url.graph, url.vectors) if half] if url.backend == "hybrid" else [url]
    for server in servers if url.path is None else []:
        looked = [*_look_at_server(server)]
        yield from looked
        if any(one.verdict == "fail" for one in looked):
            return
    there = True
    try:
        began = time.monotonic()
        source = open_source(url)
        try:
            rows = [stream.rows for stream in source.streams()]
        finally:
            source.close()
        counted = "not counted without reading" if None in rows else f"{sum(r or 0 for r in rows):,} rows"
        millis = (time.monotonic() - began) * 1000
        yield check("read", "ok", f"{source.identity}, profile {source.profile}, {counted}, opened in {millis:.0f} ms")
    except MemferryError as error:
        there = False
        if error.code != "store-missing":
            yield check("read", "fail", f"{error.code}: {error}", error.hint)
            return
        yield check("read", "warn", f"nothing there yet: {error}", "as a target it will be made")
    if url.path is not None:
        yield from _files(url.text, url.path, there=there)
    try:
        with read_ledger(url) as documents:
            found = [] if documents is None else list(standings(documents))
    except MemferryError as error:
        yield check("migrations", "fail", f"{error.code}: {error}", error.hint)
        return
    if not found:
        yield check("migrations", "ok", "none into this store")
    for row in found:
        yield _migration(url, row)


Make = Callable[..., Check]


def _look_at_server(url: StoreUrl) -> Iterator[Check]:
    def check(name: str, verdict: Verdict, detail: str, hint: str | None = None) -> Check:
        return Check(url.text, name, verdict, detail, hint)

    yield from _encryption(url, check)
    try:
        yield from _server(url, check)
    except MemferryError as error:
        yield check("reach", "fail", f"{error.code}: {error}", error.hint)


def _encryption(url: StoreUrl, check: Make) -> Iterator[Check]:
    secret = url.secrets.api_key or url.secrets.password
    yield check("credentials", "ok", "sent" if secret else "none are sent")
    if url.tls:
        by = f"checked by {url.secrets.ca_file}" if url.secrets.ca_file else "checked by the system's authorities"
        yield check("tls", "ok", f"the certificate is {by}")
    elif _is_loopback(url.host):
        yield check("tls", "ok", "none, on this machine only")
    else:
        what = "credentials and memories" if secret else "memories"
        yield check("tls", "warn", f"{what} cross the network in clear text", "add ?tls=1 where the server speaks TLS")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _server(url: StoreUrl, check: Make) -> Iterator[Check]:
    """Round trips, version, clock: what the server tells."""
    if url.backend == "qdrant":
        store = connect_qdrant(url)
        yield _round_trips(check, store.collections)
    elif url.backend == "neo4j":
        connection = Connection(url)
        try:
            yield _round_trips(check, lambda: connection.read("RETURN 1"))
            [(version,)] = connection.read(
                "CALL dbms.components() YIELD name, versions WHERE name = 'Neo4j Kernel' RETURN versions[0]"
            )
            yield check("server", "ok", f"Neo4j {version}")
            before = time.time()
            [(millis,)] = connection.read("RETURN datetime().epochMillis")
            skew = millis / 1000 - (before + time.time()) / 2
        finally:
            connection.close()
        verdict: Verdict = "ok" if abs(skew) <= SKEW_SECS else "warn"
        hint = None if verdict == "ok" else "leases of locks are judged by the clock of whoever looks"
        yield check("clock", verdict, f"the server's is {skew:+.1f} s from ours", hint)


def _round_trips(check: Make, ask: Callable[[], object]) -> Check:
    took = []
    for _ in range(_ROUNDS):
        began = time.monotonic()
        ask()
        took.append(time.monotonic() - began)
    median = statistics.median(took)
    text = f"answers in {median * 1000:.1f} ms (of {_ROUNDS}, the slowest {max(took) * 1000:.1f})"
    hint = None if median <= SLOW_SECS else "each page waits for a round trip: run memferry nearer to it"
    return check("reach", "ok" if hint is None else "warn", text, hint)


def _files(about: str, path: Path, *, there: bool) -> Iterator[Check]:
    size = path.stat().st_size if there else 0
    yield _folder(about, "disk", path.parent, need_bytes=2 * size)
    wal = path.with_name(f"{path.name}-wal")
    if wal.exists() and wal.stat().st_size > LARGE_WAL_BYTES:
        hint = "a long reader stops checkpoints; look for who holds the store open"
        yield Check(about, "wal", "warn", f"{wal.name} has {wal.stat().st_size >> 20:,} MiB", hint)


def _folder(about: str, name: str, folder: Path, *, need_bytes: int = 0) -> Check:
    existing = folder
    while not existing.exists() and existing != existing.parent:
        existing = existing.parent
    if name == "disk" and existing != folder:
        return Check(about, name, "fail", f"no folder: {folder}", "make it, or name another one")
    free = shutil.disk_usage(existing).free
    detail = f"{folder}: {free >> 20:,} MiB free"
    if not os.access(existing, os.W_OK):
        return Check(about, name, "warn", f"{detail}, not writable", "enough for a source, not for a target")
    if free < max(LITTLE_BYTES, need_bytes):
        return Check(about, name, "warn", detail, f"a copy may need {max(LITTLE_BYTES, need_bytes) >> 20:,} MiB")
    return Check(about, name, "ok", detail)


def _migration(url: StoreUrl, row: Standing) -> Check:
    name = f"migration {row.migration}"
    text = f"{row.state} {row.outcome or ''}".strip() + (f", {row.percent:g} %" if row.percent is not None else "")
    if row.lock is not None and row.lock.alive:
        at = f"process {row.lock.pid} on {row.lock.host}, last sign {row.lock.silent_secs:.0f} s ago"
        return Check(url.text, name, "ok", f"{text}: at work, {at}")
    if row.unfinished:
        verb = "rollback" if row.state == "rolling_back" else "migrate"
        hint = row.command or f"the same `memferry {verb}` command resumes"
        return Check(url.text, name, "warn", f"{text}: nobody is at work", hint)
    quarantined, conflicts = row.books.total("quarantined"), row.books.total("conflicts")
    if quarantined or conflicts:
        hint = f"memferry quarantine list {url.text}" if quarantined else f"memferry report {url.text}"
        return Check(url.text, name, "warn", f"{text}, quarantined {quarantined:,}, conflicts {conflicts:,}", hint)
    return Check(url.text, name, "ok", text)
