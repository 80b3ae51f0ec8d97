"""Rows of a target that are no records: somebody else's, and not written over for want of a name."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

import pytest

from memferry._native import QdrantStore
from memferry.errors import MemferryError, RefusedError, StoreError
from memferry.phases.migrate import migrate
from memferry.phases.plan import Options
from memferry.urls import parse_url
from support.stores import execute
from testbed.qdrant import QdrantServer


def write(path: Path, *ids: str) -> str:
    path.write_text("".join(json.dumps({"kind": "memory", "id": one, "content": one}) + "\n" for one in ids))
    return str(path)


def move(source: str, target: str) -> str:
    return migrate(parse_url(source), parse_url(target), Options()).outcome


def test_a_row_that_cannot_be_read_is_not_written_over(tmp_path: Path) -> None:
    target = tmp_path / "target.db"
    assert move(write(tmp_path / "first.jsonl", "one", "two"), str(target)) == "proven"
    assert execute(target, [("UPDATE memory SET tags = 'no list' WHERE id = 'two'", [])]) == 1
    with pytest.raises(RefusedError, match="1 records in the target have ids of the source") as refused:
        move(write(tmp_path / "second.jsonl", "two", "three"), str(target))
    assert refused.value.code == "existing"
    # One that we wrote and that was damaged since is met by the copy.
    with pytest.raises(StoreError, match=r"memory 'two'.*not written over") as caught:
        move(str(tmp_path / "first.jsonl"), str(target))
    assert caught.value.code == "store-corrupt"
    assert execute(target, [("UPDATE memory SET content = content WHERE tags = 'no list'", [])]) == 1


def test_a_collection_of_somebody_else_is_not_written_over_in_our_layout(
    tmp_path: Path, qdrant_server: QdrantServer, qdrant_prefix: str
) -> None:
    name, identity = f"{qdrant_prefix}theirs", str(uuid.UUID(int=7))
    store = QdrantStore(f"http://{qdrant_server.host}:{qdrant_server.port}")
    store.create(name, "[]")
    store.put_documents(name, [(identity, json.dumps({"text": "of somebody else"}))])
    url = f"qdrant://{qdrant_server.host}:{qdrant_server.port}/{name}"
    copy = str(tmp_path / "copy.db")
    assert move(f"{url}?profile=plain", copy) == "proven"
    with pytest.raises(MemferryError, match=identity):
        move(copy, url)
    [(_, body, _)] = store.get(name, [identity]).rows()
    assert json.loads(body) == {"text": "of somebody else"}


def test_lines_that_are_no_records_are_foreign(tmp_path: Path) -> None:
    target = tmp_path / "target.jsonl"
    target.write_text("no record\n")
    result = migrate(parse_url(write(tmp_path / "source.jsonl", "one")), parse_url(str(target)), Options())
    assert result.outcome == "proven"
    assert result.verification is not None
    assert result.verification.foreign == 1
    assert target.read_text().count("no record\n") == 1
