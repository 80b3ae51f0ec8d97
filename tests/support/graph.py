"""A Neo4j server of the tests, seen past memferry by the official driver."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from memferry.backends.neo4j import Neo4jTarget
from memferry.ledger import Ledger
from memferry.model import Limits
from memferry.phases.migrate import Result, migrate
from memferry.phases.plan import Options, Stop
from memferry.phases.rollback import RolledBack, rollback
from memferry.stores import open_target
from memferry.urls import Secrets, StoreUrl, parse_url
from support.checker import Contents, read_embedded
from support.documents import Document, write_jsonl
from testbed.neo4j import Neo4jServer

__all__ = ["Graph", "entity", "move", "options", "records", "relation", "roll"]


class Graph:
    """A server's database, its URL, and files beside it."""

    def __init__(self, server: Neo4jServer, folder: Path) -> None:
        self.server = server
        self.folder = folder
        self.url = self.at()

    def at(
        self, query: str = "", *, port: int | None = None, ca_file: Path | None = None, password: str | None = None
    ) -> StoreUrl:
        """Its URL with options, on another port where a proxy listens."""
        url = parse_url(f"neo4j://127.0.0.1:{port or self.server.port}{query}")
        return replace(url, secrets=Secrets(password=password or self.server.password, ca_file=ca_file))

    def cypher(self, text: str, **parameters: Any) -> list[list[Any]]:
        """Runs a statement past memferry."""
        with self.server.driver() as driver, driver.session(database="neo4j") as session:
            return session.run(text, parameters).values()

    @contextmanager
    def target(self) -> Iterator[Neo4jTarget]:
        """The graph, to be written to."""
        store = Neo4jTarget(self.url)
        try:
            yield store
        finally:
            store.close()

    def file(self, records: list[Document], name: str = "origin") -> StoreUrl:
        """The records as a JSONL file."""
        return parse_url(str(write_jsonl(self.folder / f"{name}.jsonl", records)))

    def embedded(self, name: str) -> StoreUrl:
        """A place for an embedded store."""
        return parse_url(str(self.folder / f"{name}.db"))

    def schema(self) -> set[str]:
        """Names of all constraints and indexes but the built-in ones."""
        return {name for (name,) in self.cypher("SHOW INDEXES YIELD name, type WHERE type <> 'LOOKUP' RETURN name")}

    def contents(self, name: str, query: str = "") -> Contents:
        """What memferry reads from the graph, seen in an embedded store."""
        at = self.embedded(name)
        assert move(self.at(query), at).outcome == "proven"
        assert at.path is not None
        return read_embedded(at.path)


def options(**chosen: Any) -> Options:
    """Small pages, several at a time."""
    return Options(**{"parallelism": 4, "limits": Limits(records=50), **chosen})


def move(source: StoreUrl, target: StoreUrl, *, stop: Stop | None = None, **chosen: Any) -> Result:
    """Migrates in small pages; the books must balance."""
    result = migrate(source, target, options(**chosen), stop=stop)
    assert result.books.balanced(), result.books.to_json()
    return result


def roll(url: StoreUrl, migration: str) -> RolledBack:
    """Rolls a migration back."""
    store = open_target(url)
    try:
        return rollback(store, Ledger(store.documents, migration))
    finally:
        store.close()


_LABELS = ["MemferryEntity", "MemferryMemory", "MemferryObservation"]


def records(server: Neo4jServer) -> dict[tuple[str, str], Any]:
    """The content of every record in a server, by kind and id, as the driver sees it; none may be there twice."""
    nodes = "MATCH (n) UNWIND labels(n) AS label WITH n, label WHERE label IN $labels"
    texts = [
        f"{nodes} RETURN label, coalesce(n.full_id, n.id), n.content",
        "MATCH ()-[n:MEMFERRY_RELATION]->() RETURN 'MemferryRelation', coalesce(n.full_id, n.id), n.content",
    ]
    with server.driver() as driver, driver.session(database="neo4j") as session:
        rows = [row for text in texts for row in session.run(text, labels=_LABELS).values()]
    found = {(label.removeprefix("Memferry").lower(), identity): content for label, identity, content in rows}
    assert len(found) == len(rows)
    return found


def entity(identity: str, **members: Any) -> Document:
    """A small entity."""
    return {"kind": "entity", "id": identity, **members}


def relation(identity: str, start: str, end: str, **members: Any) -> Document:
    """A small relation."""
    return {"kind": "relation", "id": identity, "from_id": start, "to_id": end, **members}
