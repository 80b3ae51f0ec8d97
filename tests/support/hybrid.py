"""A hybrid store of a Neo4j and a collection of a Qdrant, looked at by the official clients."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from qdrant_client import models

from memferry._native import Buckets
from memferry.model import Limits
from memferry.phases.migrate import Result, migrate, verify_only
from memferry.phases.plan import Options
from memferry.phases.reading import read_stream
from memferry.stores import open_source
from memferry.urls import Secrets, StoreUrl, hybrid_url, parse_url
from support.documents import Document, memory, vector, write_jsonl
from testbed import forked
from testbed.neo4j import Neo4jServer
from testbed.qdrant import QdrantServer

__all__ = ["Hybrid", "check", "findings", "move", "ordinary", "run", "total"]

RUNNER = """
import os, sys
from dataclasses import replace
from memferry.model import Limits
from memferry.phases import plan
from memferry.phases.migrate import migrate
from memferry.urls import Secrets, hybrid_url, parse_url
plan.ROWS_PER_RANGE, plan.BYTES_PER_RANGE = 30, 9000
options = plan.Options(limits=Limits(records=7), parallelism=2, on_existing=sys.argv[4])
graph, vectors = (replace(parse_url(u), secrets=Secrets(password=os.environ["PASSWORD"])) for u in sys.argv[2:4])
print(migrate(parse_url(sys.argv[1]), hybrid_url(graph, vectors), options).outcome)
"""
Key = tuple[str, str]


def _options(**chosen: Any) -> Options:
    return Options(**{"parallelism": 2, "limits": Limits(records=40), **chosen})


class Hybrid:
    """Two servers and what a test does with them."""

    def __init__(self, neo4j: Neo4jServer, qdrant: QdrantServer, prefix: str, folder: Path) -> None:
        self.neo4j, self.qdrant, self.folder = neo4j, qdrant, folder
        self.collection = f"{prefix}vectors"
        self.url = self.at("dot")

    def at(self, distance: str) -> StoreUrl:
        """The store, with the metric of a collection that has to be made."""
        graph = parse_url(f"neo4j://127.0.0.1:{self.neo4j.port}")
        vectors = parse_url(f"qdrant://{self.qdrant.host}:{self.qdrant.port}/{self.collection}?distance={distance}")
        return hybrid_url(replace(graph, secrets=Secrets(password=self.neo4j.password)), vectors)

    def file(self, records: Iterable[Document], name: str = "origin") -> StoreUrl:
        """The records as a JSONL file."""
        return parse_url(str(write_jsonl(self.folder / f"{name}.jsonl", records)))

    def embedded(self, name: str) -> StoreUrl:
        """A place for an embedded store."""
        return parse_url(str(self.folder / f"{name}.db"))

    def cypher(self, text: str, **parameters: Any) -> list[list[Any]]:
        """Runs a statement past memferry."""
        with self.neo4j.driver() as driver, driver.session(database="neo4j") as session:
            return session.run(text, parameters).values()

    def collections(self) -> list[str]:
        """Collections of this test."""
        prefix = self.collection.removesuffix("vectors")
        with self.qdrant.client() as client:
            return [c.name for c in client.get_collections().collections if c.name.startswith(prefix)]

    def points(self) -> dict[Key, models.Record]:
        """What is in the collection, by kind and id."""
        if self.collection not in self.collections():
            return {}
        with self.qdrant.client() as client:
            points, rest = client.scroll(self.collection, limit=10_000, with_payload=True, with_vectors=True)
        assert rest is None
        return {(str(p.payload["kind"]), str(p.payload.get("id", p.id))): p for p in points if p.payload}

    def noted(self) -> set[Key]:
        """Records that name vectors of the other half."""
        named = "WHERE n.extra CONTAINS '\"$vectors\"' RETURN"
        rows = self.cypher(
            f"MATCH (n) {named} [x IN labels(n) WHERE x STARTS WITH 'Memferry'][0] AS label, "
            "coalesce(n.full_id, n.id) AS id "
            f"UNION MATCH ()-[n]->() {named} 'MemferryRelation' AS label, coalesce(n.full_id, n.id) AS id"
        )
        return {(label.removeprefix("Memferry").lower(), key) for label, key in rows}

    def upsert(self, point: models.Record, **payload: Any) -> None:
        """Writes a point past memferry."""
        vector: Any = point.vector or {}
        structs = [models.PointStruct(id=point.id, vector=vector, payload={**(point.payload or {}), **payload})]
        with self.qdrant.client() as client:
            client.upsert(self.collection, structs, wait=True)

    def drop(self, point: models.Record) -> None:
        """Deletes a point past memferry."""
        with self.qdrant.client() as client:
            client.delete(self.collection, [point.id], wait=True)


def ordinary(count: int) -> list[Document]:
    """Records of all kinds, four a number, whose relations have their ends; half of them with vectors."""
    found: list[Document] = []
    for n in range(count):
        found.append({"kind": "entity", "id": f"e{n:04}", "name": f"entity {n}", "type": "Person", "confidence": n / 7})
        found.append(memory(f"m{n:04}", vectors=[vector([n / 8, 1.0, -0.5], model="m", normalized=False)]))
        found.append({"kind": "observation", "id": f"o{n:04}", "owner_id": f"e{n:04}", "content": f"about {n}"})
        ends: Document = {"from_id": f"e{n:04}", "to_id": f"e{(n * 7) % count:04}", "type": "KNOWS"}
        found.append({"kind": "relation", "id": f"r{n:04}", **ends, "vectors": [vector([1.0, n / 3], name="edge")]})
    return found


def move(source: StoreUrl, target: StoreUrl, **chosen: Any) -> Result:
    """Migrates; the books must balance."""
    result = migrate(source, target, _options(**chosen))
    assert result.books.balanced(), result.books.to_json()
    return result


def check(source: StoreUrl, target: StoreUrl) -> Result:
    """Verifies."""
    return verify_only(source, target, _options())


def findings(result: Result) -> set[tuple[str, str]]:
    """What was found, and of which id."""
    assert result.verification is not None
    return {(finding.what, finding.id) for finding in result.verification.findings}


def total(url: StoreUrl) -> str:
    """Digest over everything in a store."""
    source, buckets = open_source(url), Buckets(64)
    for stream in source.streams():
        for page in read_stream(source, stream.name, Limits(records=50)):
            assert not page.quarantined
            buckets.add(page.records)
    source.close()
    return buckets.total()


def run(source: StoreUrl, target: StoreUrl, failpoint: str = "", on_existing: str = "refuse") -> str:
    """Migrates in a process of its own, which may be killed; what it printed."""
    assert target.graph is not None
    assert target.vectors is not None
    environment = {**os.environ, "MEMFERRY_FAILPOINT": failpoint, "PASSWORD": target.graph.secrets.password or ""}
    halves = target.graph.text, target.vectors.text
    done = forked.run("-c", RUNNER, source.text, *halves, on_existing, environment=environment)
    assert done.returncode == (-9 if failpoint else 0), done.stderr
    return done.stdout.strip()
