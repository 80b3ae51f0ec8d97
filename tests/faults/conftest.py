"""Stores for the fault suite."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from faults.ends import RECORDS, Ends, connected_documents
from faults.running import run
from support.documents import write_jsonl
from testbed.neo4j import Neo4jServer
from testbed.qdrant import QdrantServer

MakeEnds = Callable[[str], Ends]


@pytest.fixture
def own_qdrant(tmp_path: Path) -> Iterator[QdrantServer]:
    """A Qdrant test server that a test may kill and break; never a real one."""
    with QdrantServer(tmp_path / "storage", api_key="of the test") as server:
        yield server


@pytest.fixture
def make_ends(request: pytest.FixtureRequest, tmp_path: Path) -> MakeEnds:
    """Makes the ends of a migration by the name of the target: a JSONL source, and a target of that backend."""
    numbers = itertools.count()
    parameters = getattr(request.node, "callspec", None)
    if parameters is not None and "neo4j" in parameters.params.values():
        request.getfixturevalue("empty_neo4j")  # Its start is no part of the test's time.

    def make(target: str) -> Ends:
        records = connected_documents(RECORDS, seed=5)
        source = str(write_jsonl(tmp_path / "source.jsonl", records))
        plain = {"embedded": "target.db", "jsonl": "target.jsonl", "jsonl.gz": "target.jsonl.gz"}
        if target in plain:
            return Ends(source, str(tmp_path / plain[target]), tmp_path, records)
        if target == "qdrant":
            server: QdrantServer = request.getfixturevalue("own_qdrant")
            url = f"{server.url}/faults{next(numbers)}?distance=dot"
            return Ends(source, url, tmp_path, records, {"TARGET_API_KEY": str(server.api_key)})
        graph: Neo4jServer = request.getfixturevalue("empty_neo4j")
        url = f"neo4j://127.0.0.1:{graph.port}"
        return Ends(source, url, tmp_path, records, {"TARGET_PASSWORD": graph.password})

    return make


@pytest.fixture
def stored_in_qdrant(own_qdrant: QdrantServer, tmp_path: Path) -> Ends:
    """A filled Qdrant collection as the source, an embedded store as the target."""
    records = connected_documents(RECORDS, seed=6)
    origin = write_jsonl(tmp_path / "origin.jsonl", records)
    url = f"{own_qdrant.url}/stored?distance=dot"
    assert run("migrate", origin, url, "--json", TARGET_API_KEY=str(own_qdrant.api_key)).code == 0
    return Ends(url, str(tmp_path / "target.db"), tmp_path, records, {"SOURCE_API_KEY": str(own_qdrant.api_key)})
