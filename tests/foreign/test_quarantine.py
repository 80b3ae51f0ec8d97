"""Records that a store of another system cannot hold: told under its own ids, tried again one by one."""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from memferry.errors import RefusedError
from memferry.phases.quarantine import retry
from memferry.urls import parse_url
from support.documents import Document, Value, memory, write_jsonl
from support.graph import Graph, move
from testbed.neo4j import Neo4jServer
from testbed.qdrant import QdrantServer


@pytest.fixture
def graph(empty_neo4j: Neo4jServer, tmp_path: Path) -> Graph:
    return Graph(empty_neo4j, tmp_path)


def test_a_retry_leaves_what_the_target_still_cannot_hold(graph: Graph) -> None:
    target = graph.at("?profile=plain&key=uuid")
    ends = {"r1": "a", "r2": "b", "r3": "c"}
    relations: list[Document] = [
        {"kind": "relation", "id": one, "type": "R", "from_id": "a", "to_id": end} for one, end in ends.items()
    ]
    relations[0]["extra"] = {"uuid": "the name of the key"}
    result = move(graph.file([{"kind": "entity", "id": "a", "type": "T"}, *relations]), target)
    assert result.books.of("relation").quarantined == 3
    graph.cypher("CREATE (:T {uuid: 'b'})")
    retried = retry(target, result.migration)
    assert (retried.moved, sorted(str(row.id) for _, row, _ in retried.left)) == (1, ["r1", "r3"])
    assert graph.cypher("MATCH ()-[r]->(b) RETURN r.uuid, b.uuid") == [["r2", "b"]]


def test_one_database_under_two_names_is_not_moved_into_itself(graph: Graph) -> None:
    graph.cypher("UNWIND range(1, 5) AS n CREATE (:T {uuid: toString(n)})")
    target = graph.at("?profile=plain&key=uuid")
    source = parse_url(f"neo4j://localhost:{graph.server.port}?profile=plain")
    with pytest.raises(RefusedError, match="source and target are one database"):
        move(replace(source, secrets=target.secrets), target)
    assert graph.cypher("MATCH (n:T) RETURN count(n)") == [[5]]


def test_a_quarantined_record_is_not_missed_under_its_other_id(
    tmp_path: Path, qdrant_server: QdrantServer, qdrant_prefix: str
) -> None:
    deep: dict[str, Value] = {}
    for _ in range(60):
        deep = {"deeper": deep}
    records = [memory(identity, content="x", scope={"user": "u"}) for identity in ("no uuid", str(uuid.UUID(int=2)))]
    records += [memory(str(uuid.UUID(int=3)), content="y", scope={"user": "u"})]
    for record in records[:2]:
        record["extra"] = deep
    source = parse_url(str(write_jsonl(tmp_path / "origin.jsonl", records)))
    target = parse_url(f"{qdrant_server.url}/{qdrant_prefix}theirs?profile=mem0")
    result = move(source, target, accept=("ids",), max_quarantined=2)
    assert (result.books.of("memory").quarantined, result.outcome) == (2, "proven")
