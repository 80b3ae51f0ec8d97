"""To and from Qdrant: the test server of the suite, or the real one that `MEMFERRY_TEST_QDRANT_URL` names."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import DIM, Row, cpu_of, example, migrate, plain, removed, store_of

STREAMS = 2
"""Ranges that memferry copies at a time, so streams of the anchors."""
IN_FLIGHT = 4
"""Requests that memferry has on their way at a time: two of each range."""


@dataclass(frozen=True)
class Server:
    """A running server."""

    address: str
    pid: int | None

    def make(self, name: str) -> None:
        """Makes a collection as memferry makes it, empty."""
        from memferry._native import QdrantStore  # noqa: PLC0415 - not in the processes that are measured

        store = QdrantStore(f"http://{self.address}")
        if store.exists(name):
            store.delete_collection(name)
        spec = [{"name": "default", "kind": "dense", "dim": DIM, "distance": "cosine"}]
        store.create(name, json.dumps(spec), deferred_index=True)
        store.create_payload_index(name, "kind", "keyword")

    def drop(self, *names: str) -> None:
        """Deletes collections, ledgers too."""
        from memferry._native import QdrantStore  # noqa: PLC0415 - as above

        store = QdrantStore(f"http://{self.address}")
        for name in store.collections():
            if name.removesuffix("_memferry_ledger") in names:
                store.delete_collection(name)

    def url(self, name: str) -> str:
        """The store URL of a collection."""
        return f"qdrant://{self.address}/{name}"

    @contextlib.contextmanager
    def cpu(self, into: list[float]) -> Iterator[None]:
        """CPU seconds of the server within the block; nothing where it runs elsewhere."""
        before = cpu_of(self.pid) if self.pid else 0.0
        yield
        into.append(cpu_of(self.pid) - before if self.pid else float("nan"))


@contextlib.contextmanager
def server() -> Iterator[Server]:
    """The server of the benchmarks."""
    from testbed.qdrant import QdrantServer  # noqa: PLC0415 - only where it is wanted

    with QdrantServer() as running:
        yield Server(f"{running.host}:{running.port}", None if running.is_external else running.process.pid)


def qdrant(folder: Path, records: int) -> list[Row]:
    """All pairs with Qdrant."""
    store = store_of(folder, records)
    rows: list[Row] = []
    with server() as there:
        rows += _write(there, store, records)
        rows += _clients(there, records)
        rows += _read(there, folder, records)
        there.drop("bench", "sent", "copied")
    rows += _verify(rows_of_verify, store, records) if (rows_of_verify := _kept.pop("verify", None)) else []
    return rows


_kept: dict[str, Any] = {}
"""What one measurement leaves for the next."""


def _write(there: Server, store: Path, records: int) -> list[Row]:
    ours: list[tuple[float, dict[str, Any]]] = []
    sent: list[tuple[float, float]] = []
    server_cpu: list[float] = []
    for _ in range(2):
        there.drop("bench")
        with there.cpu(server_cpu):
            times = migrate(str(store), there.url("bench"))
        ours.append((times["phases"]["copy"]["wall"], times))
        there.make("sent")
        sent.append(example("bare_qdrant", f"http://{there.address}", "bench", "sent", str(IN_FLIGHT))["send"])
        there.drop("sent")
    wall, times = min(ours, key=lambda pair: pair[0])
    rate, cpu = max(sent)
    phases = times["phases"]
    _kept["sent"] = rate
    _kept["verify"] = phases["verify"]
    _kept["cpu"] = phases["copy"]["cpu"] / records * 1e5
    _kept["whole"] = times["cpu"] / records * 1e5
    return [
        Row(
            "embedded -> Qdrant",
            f"a raw sender of encoded upserts, wait=true, {IN_FLIGHT} on their way",
            ">= 0.9",
            f"{records / wall / rate:.2f}",
            f"{records / wall:,.0f} and {rate:,.0f} points a second; client CPU {_kept['cpu']:.2f} and {cpu:.2f} s per "
            f"100k; server CPU of the whole run {min(server_cpu) / records * 1e5:.2f} s per 100k",
        ),
        Row(
            "Python's share of CPU, embedded -> Qdrant",
            "the whole run: plan, copy, proof",
            "<= 5 %",
            f"{times['python_cpu'] / times['cpu'] * 100:.1f} %",
            f"of {times['cpu']:.2f} CPU s",
        ),
    ]


def _clients(there: Server, records: int) -> list[Row]:
    count = min(records, 20_000)
    seen = {}
    for how in ("lists", "numpy"):
        there.make("sent")
        seen[how] = [float(word) for word in plain("upsert", how, there.address, "sent", str(count)).output.split()]
        there.drop("sent")
    return [
        Row(
            "the same, client CPU per 100k points of 1.8 kB, everything of the copy",
            "Python `upsert` of lists; `upload_collection` of numpy",
            "<= 1.5 s",
            f"{_kept['cpu']:.2f} s",
            f"{seen['lists'][1]:.2f} s; {seen['numpy'][1]:.2f} s; with plan and proof memferry takes "
            f"{_kept['whole']:.2f} s",
        )
    ]


def _read(there: Server, folder: Path, records: int) -> list[Row]:
    scrolled, walls, cpus = [], [], []
    for _ in range(2):
        scrolled.append(example("bare_qdrant", f"http://{there.address}", "bench", str(STREAMS))["scroll"])
        with removed(folder / "back.db") as target:
            times = migrate(there.url("bench"), target)
        walls.append(times["phases"]["copy"]["wall"])
        cpus.append(times["phases"]["copy"]["cpu"] / records * 1e5)
    rate, cpu = max(scrolled)
    back = records / min(walls)
    both = []
    for _ in range(2):
        there.drop("copied")
        both.append(migrate(there.url("bench"), there.url("copied"))["phases"]["copy"])
    across = min(phase["wall"] for phase in both)
    bound = records / rate + records / _kept["sent"]
    _kept["scroll"] = rate
    return [
        Row(
            "Qdrant -> embedded",
            f"the bare Rust scroll, {STREAMS} streams",
            ">= 0.8",
            f"{back / rate:.2f}",
            f"{back:,.0f} and {rate:,.0f} points a second; client CPU {min(cpus):.2f} and {cpu:.2f} s per 100k",
        ),
        Row(
            "Qdrant -> Qdrant",
            "bare scroll, then raw sender",
            ">= 0.8",
            f"{bound / across:.2f}",
            f"{records / across:,.0f} points a second, the sum of both {records / bound:,.0f}; client CPU "
            f"{min(phase['cpu'] for phase in both) / records * 1e5:.2f} s per 100k",
        ),
    ]


def _verify(phase: dict[str, float], store: Path, records: int) -> list[Row]:
    cursor, _ = example("bare_cursor", str(store), "bare")["bare"]
    slower = min(cursor, _kept["scroll"])
    return [
        Row(
            "verify, embedded against Qdrant",
            "the slower of the two bare reads",
            ">= 0.85",
            f"{records / phase['wall'] / slower:.2f}",
            f"{records / phase['wall']:,.0f} records a second, bare cursor {cursor:,.0f}, bare scroll "
            f"{_kept['scroll']:,.0f}; client CPU {phase['cpu'] / records * 1e5:.2f} s per 100k",
        )
    ]
