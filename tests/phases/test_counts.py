"""What was read is held against what the source says it has; deletions look at what was mapped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memferry._native import gap_names
from memferry.backends.embedded import EmbeddedSource
from memferry.errors import RefusedError
from memferry.model import Stream
from memferry.phases.migrate import Result, migrate
from memferry.phases.plan import Options
from memferry.phases.transform import Decisions, parse_mapping
from memferry.urls import parse_url

VERBS = b"""
[[move]]
from = "extra.verb"
to = "type"
"""


def write(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def move(source: Path | str, target: Path | str, **chosen: Any) -> Result:
    return migrate(parse_url(str(source)), parse_url(str(target)), Options(**chosen))


def test_a_row_that_nobody_read_is_no_proof_and_no_deletion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [{"kind": "memory", "id": f"m{i}", "content": "x"} for i in range(30)]
    source, target = tmp_path / "source.db", tmp_path / "target.db"
    move(write(tmp_path / "origin.jsonl", *records), source)
    streams = EmbeddedSource.streams

    def counted(self: EmbeddedSource) -> list[Stream]:
        return [replace(one, rows=(one.rows or 0) + (one.name == "memory")) for one in streams(self)]

    assert move(source, target).outcome == "proven"
    monkeypatch.setattr(EmbeddedSource, "streams", counted)
    result = move(source, target)
    assert result.outcome == "not_proven"
    assert result.verification is not None
    assert (result.verification.unread, result.verification.findings) == (1, [])
    assert result.to_json()["verify"]["unread"] == 1
    with pytest.raises(RefusedError, match="30 rows of the source were read, 1 more or fewer") as refused:
        move(source, target, delete=True)
    assert refused.value.code == "max-deletes"


def test_what_a_mapping_or_a_merge_files_otherwise_is_not_gone(tmp_path: Path) -> None:
    """A file of the MCP memory server knows a relation by its ends and its type."""
    people = [
        {"kind": "entity", "id": one, "type": "person", "extra": {"observations": []}}
        for one in ("ann", "bob", *(f"e{i}" for i in range(30)))
    ]
    loves = {"kind": "relation", "id": "r1", "from_id": "ann", "to_id": "bob", "extra": {"verb": "loves"}}
    source = write(tmp_path / "source.jsonl", *people, loves)
    target = tmp_path / "memory.jsonl"
    chosen: dict[str, Any] = {
        "transform": Decisions(mapping=parse_mapping(VERBS, "test")),
        "accept": tuple(gap_names()),
        "delete": True,
    }
    result = move(source, f"{target}?profile=server-memory", **chosen)
    assert (result.outcome, result.books.total("deleted")) == ("proven", 0)
    assert '"loves"' in target.read_text()
    again = move(write(tmp_path / "source.jsonl", *people), f"{target}?profile=server-memory", **chosen)
    assert (again.outcome, again.books.total("deleted")) == ("proven", 1)
    assert '"loves"' not in target.read_text()
