"""The hybrid store of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from memferry.phases import plan as planning
from support.hybrid import Hybrid
from testbed.neo4j import Neo4jServer
from testbed.qdrant import QdrantServer


@pytest.fixture
def hybrid(
    empty_neo4j: Neo4jServer,
    qdrant_server: QdrantServer,
    qdrant_prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Hybrid:
    """An empty place for a hybrid store."""
    monkeypatch.setattr(planning, "ROWS_PER_RANGE", 60)
    monkeypatch.setattr(planning, "BYTES_PER_RANGE", 20_000)
    return Hybrid(empty_neo4j, qdrant_server, qdrant_prefix, tmp_path)
