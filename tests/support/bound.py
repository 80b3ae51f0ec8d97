"""Two embedded stores and a binding in a small API server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import memferry
from support.checker import read_embedded
from support.fake_api import FakeApi, binding_status, kubeconfig, projection
from testbed import wait
from testbed.neo4j import Neo4jServer
from testbed.process import ManagedProcess

__all__ = [
    "LEASE_SECS",
    "Application",
    "Bound",
    "Notes",
    "Switched",
    "World",
    "carry",
    "graph_notes",
    "lost",
    "notes",
    "switch",
    "switches",
]

LEASE_SECS = 3


class World:
    """Two embedded stores, one binding."""

    binding = "memory"

    def __init__(self, api: FakeApi, folder: Path) -> None:
        self.api = api
        self.folder = folder
        self.stores = {"a": folder / "a.db", "b": folder / "b.db"}

    @property
    def kubeconfig(self) -> Path:
        return kubeconfig(self.folder, self.api.port)

    def say(self, active: str, revision: int, mode: str = "Serving", **more: Any) -> None:
        """What the operator does: the status, then the Secret."""
        self.api.binding("memory", **binding_status(active, revision, mode, **more))
        self.api.secret("memferry-binding-memory", **projection(active, self.stores[active], revision))

    def said(self, pod: str) -> tuple[int, str, str]:
        return self.api.said(f"memferry-client-memory-{pod}")

    def until_said(self, pod: str, revision: int, mode: str, active: str) -> None:
        wanted = (revision, mode, active)
        wait.until(lambda: self.said(pod) == wanted, what=f"{pod} acknowledges {wanted}")

    def ids(self, side: str) -> set[str]:
        with memferry.open(self.stores[side]) as store:
            return {record.id for record in store.list()}


class Application:
    """The example application as a process of its own.

    Args:
        world: Where its binding is.
        pod: What it says it is.
        env: More variables.
        chosen: More options of its command line, or others.
    """

    def __init__(
        self,
        world: Bound,
        folder: Path,
        pod: str = "pod",
        *,
        env: Mapping[str, str | None] | None = None,
        **chosen: object,
    ) -> None:
        options: dict[str, object] = {
            "name": pod,
            "pod": pod,
            "kubeconfig": world.kubeconfig,
            "interval-secs": 0.005,
            "lease-secs": LEASE_SECS,
            "freeze-wait-secs": 10,
            **chosen,
        }
        arguments = [str(part) for name, value in options.items() for part in (f"--{name}", value)]
        script = Path(__file__).parents[2] / "examples" / "application_in_cluster.py"
        self.pod = pod
        self.log = folder / f"{pod}.log"
        self.process = ManagedProcess(
            f"application {pod}",
            [sys.executable, script, world.binding, *arguments],
            log_path=self.log,
            ready=lambda: '"event": "connected"' in self.process.log_since_start(),
            ready_deadline_secs=120,
            env=env,
        )

    def __enter__(self) -> Self:
        self.process.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.stop()

    def lines(self, event: str) -> list[dict[str, Any]]:
        """What it told so far, of one kind, of all its lives."""
        if not self.log.exists():
            return []
        # The last line may be half written.
        lines = self.log.read_text("utf-8").split("\n")[:-1]
        told = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in told if line["event"] == event]

    def acknowledged(self) -> set[str]:
        """Ids of writes that it was told are done."""
        return {line["id"] for line in self.lines("written")}

    def switches(self) -> list[float]:
        """See `switches`."""
        return switches(self.lines("written"))

    def goes_on(self, writes: int = 3) -> None:
        """Waits until so many more writes are acknowledged."""
        wanted = len(self.lines("written")) + writes
        wait.until(lambda: len(self.lines("written")) >= wanted, what=f"{self.pod} goes on writing")


def switches(written: Iterable[Mapping[str, Any]]) -> list[float]:
    """Seconds from the last write that was acknowledged on one side to the first one on the other."""
    pairs = pairwise(written)
    return [later["at"] - before["at"] for before, later in pairs if later["active"] != before["active"]]


Notes = dict[str, str | None]
"""Content of every memory, by id."""


def notes(path: Path) -> Notes:
    """Those of an embedded store, read without memferry."""
    records = read_embedded(path).records
    return {key: fields["content"] for (kind, key), fields in records.items() if kind == "memory"}


def graph_notes(neo4j: Neo4jServer) -> Notes:
    """Those of a graph, read without memferry."""
    text = "MATCH (n:MemferryMemory) RETURN coalesce(n.full_id, n.id), n.content"
    with neo4j.driver() as driver, driver.session(database="neo4j") as session:
        return {row[0]: row[1] for row in session.run(text).values()}


def lost(acknowledged: Iterable[str], found: Notes) -> set[str]:
    """Ids of writes of `app` that are not there, or not as they were written."""
    return {one for one in acknowledged if found.get(one) != f"note {int(one.removeprefix('app-'))} of app"}


class Bound(Protocol):
    """A binding and how clients reach it."""

    @property
    def binding(self) -> str:
        """Its name."""

    @property
    def kubeconfig(self) -> Path:
        """Of a client."""


class Switched(Bound, Protocol):
    """A binding that a test switches."""

    stores: dict[str, Path]

    def say(self, active: str, revision: int, mode: str = "Serving", **more: Any) -> None:
        """What the operator does: the status, then the Secret."""

    def until_said(self, pod: str, revision: int, mode: str, active: str) -> None:
        """Waits until a client has acknowledged this."""

    def ids(self, side: str) -> set[str]:
        """What is in a store."""


def carry(world: Switched, source: str, target: str) -> None:
    """The final pass: what the target does not have, or has otherwise."""
    with memferry.open(world.stores[source]) as here, memferry.open(world.stores[target]) as there:
        known = {record.id: record for record in there.list()}
        there.put([record for record in here.list() if known.get(record.id) != record])


def switch(world: Switched, application: Application, source: str, target: str, revision: int) -> float:
    """One switch as the operator does it, from `revision`; the seconds for which writes were frozen."""
    begun = time.monotonic()
    world.say(source, revision + 1, "Frozen")
    world.until_said(application.pod, revision + 1, "Frozen", source)
    carry(world, source, target)
    world.say(target, revision + 2, "Frozen")
    world.until_said(application.pod, revision + 2, "Frozen", target)
    world.say(target, revision + 3)
    world.until_said(application.pod, revision + 3, "Serving", target)
    return time.monotonic() - begun
