"""Stores of every backend, empty, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memferry.urls import hybrid_url, parse_url, secrets_from_environment
from testbed.neo4j import Neo4jServer
from testbed.qdrant import QdrantServer


@pytest.fixture
def make_url(tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The URL of an empty store; credentials are in the environment."""

    def make(backend: str, name: str = "store", *, distance: str = "cosine") -> Any:
        if backend == "qdrant":
            server: QdrantServer = request.getfixturevalue("qdrant_server")
            prefix: str = request.getfixturevalue("qdrant_prefix")
            return f"qdrant://{server.host}:{server.port}/{prefix}{name}?distance={distance}"
        if backend == "neo4j":
            graph: Neo4jServer = request.getfixturevalue("empty_neo4j")
            monkeypatch.setenv("MEMFERRY_TARGET_PASSWORD", graph.password)
            monkeypatch.setenv("MEMFERRY_SOURCE_PASSWORD", graph.password)
            return f"neo4j://{graph.user}@127.0.0.1:{graph.port}/neo4j"
        if backend == "hybrid":
            graph_url, vectors_url = make("neo4j", name), make("qdrant", name, distance=distance)
            secrets = secrets_from_environment("TARGET")
            graph_half, vector_half = (replace(parse_url(url), secrets=secrets) for url in (graph_url, vectors_url))
            return hybrid_url(graph_half, vector_half)
        return str(tmp_path / f"{name}.{'jsonl' if backend == 'jsonl' else 'db'}")

    return make
