"""Records of two kinds under one id, in a store that files all kinds together."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from memferry._native import QdrantStore
from memferry.errors import RefusedError
from memferry.phases.migrate import Result, migrate
from memferry.phases.plan import Options
from memferry.urls import parse_url
from testbed.qdrant import QdrantServer

ONE = str(uuid.UUID(int=5))


class Moves:
    """A source file, and a collection."""

    def __init__(self, folder: Path, server: QdrantServer, prefix: str) -> None:
        self.folder, self.name = folder, f"{prefix}places"
        self.url = f"qdrant://{server.host}:{server.port}/{self.name}"
        self.store = QdrantStore(f"http://{server.host}:{server.port}")

    def move(self, source: str, *records: dict[str, Any]) -> Result:
        path = self.folder / source
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return migrate(parse_url(str(path)), parse_url(self.url), Options())

    def kinds(self) -> list[str]:
        return [json.loads(body)["kind"] for _, body, _ in self.store.get(self.name, [ONE]).rows()]


@pytest.fixture
def moves(tmp_path: Path, qdrant_server: QdrantServer, qdrant_prefix: str) -> Moves:
    return Moves(tmp_path, qdrant_server, qdrant_prefix)


def test_two_kinds_under_one_id_are_found_in_the_plan(moves: Moves) -> None:
    entity, memory = {"kind": "entity", "id": ONE, "name": "e"}, {"kind": "memory", "id": ONE, "content": "m"}
    result = moves.move("both.jsonl", entity, memory, {"kind": "memory", "id": "other", "content": "m"})
    assert result.plan.repeated == (("entity", ONE), ("memory", ONE))
    assert (result.outcome, result.books.total("written"), result.books.total("quarantined")) == ("not_proven", 1, 2)
    assert result.verification is not None
    assert result.verification.equal
    assert moves.kinds() == []


def test_a_record_of_another_kind_is_not_written_over(moves: Moves) -> None:
    assert moves.move("memory.jsonl", {"kind": "memory", "id": ONE, "content": "m"}).outcome == "proven"
    with pytest.raises(RefusedError, match="1 records in the target have ids of the source"):
        moves.move("entity.jsonl", {"kind": "entity", "id": ONE, "name": "e"})
    assert moves.kinds() == ["memory"]
