"""Collections of other systems as targets: the ledger and the markers are in the state directory, nothing is theirs."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import signal
import struct
import uuid
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

from memferry.backends import has_ledger, open_target
from memferry.errors import RefusedError, StoreError
from memferry.ledger import Ledger
from memferry.model import Limits
from memferry.phases.migrate import Result, migrate, plan_only
from memferry.phases.plan import Options
from memferry.phases.rollback import RolledBack, rollback
from memferry.urls import parse_url
from support.stores import EmbeddedPlace
from testbed import forked
from testbed.qdrant import QdrantServer

PROFILES = ["mem0", "plain"]
RECORDS = 60
THEIRS = str(uuid.UUID(int=1 << 100))
RUNNER = """
import sys
from memferry.phases import plan
from memferry.phases.migrate import migrate
from memferry.model import Limits
from memferry.urls import parse_url
plan.ROWS_PER_RANGE, plan.BYTES_PER_RANGE = 30, 3000
options = plan.Options(limits=Limits(records=7), parallelism=3, on_existing="overwrite", delete=len(sys.argv) > 3)
result = migrate(parse_url(sys.argv[1]), parse_url(sys.argv[2]), options)
print(result.outcome, result.books.total("conflicts"), result.books.balanced())
"""


def identity(number: int) -> str:
    return str(uuid.UUID(int=(number * 0x9E3779B97F4A7C15F39CC0605CEDC834) % (1 << 128)))


class Place:
    """A source file, a collection, and what is in it without memferry."""

    def __init__(self, profile: str, folder: Path, server: QdrantServer, prefix: str) -> None:
        self.profile, self.server, self.collection = profile, server, f"{prefix}theirs"
        self.source = folder / "source.jsonl"
        self.url = f"{server.url}/{self.collection}?profile={profile}"
        self.write({identity(i): f"text {i}" for i in range(RECORDS)})

    def record(self, key: str, text: str) -> dict[str, Any]:
        own = {"content": text, "scope": {"user": "u"}} if self.profile == "mem0" else {}
        extra = {"n": len(text), **({} if own else {"text": text})}
        vectors = [{"kind": "dense", "dim": 2, "data": "AACAPwAAAAA="}]
        return {"kind": "memory", "id": key, "extra": extra, "vectors": vectors, **own}

    def write(self, texts: dict[str, str], path: Path | None = None) -> None:
        lines = [json.dumps(self.record(key, text)) for key, text in texts.items()]
        (path or self.source).write_text("\n".join(lines) + "\n", "utf-8")

    def make(self, *keys: str) -> None:
        """The collection as its system would have made it, with points of its own."""
        with self.server.client() as client:
            vectors = models.VectorParams(size=2, distance=models.Distance.COSINE)
            client.create_collection(self.collection, vectors_config=vectors)
            points = [
                models.PointStruct(id=key, vector=[0.6, 0.8], payload={"data": "theirs", "x": {"y": [1, None]}})
                for key in keys
            ]
            if points:
                client.upsert(self.collection, points, wait=True)

    def edit(self, key: str, text: str) -> None:
        with self.server.client() as client:
            payload = {"data" if self.profile == "mem0" else "text": text}
            client.set_payload(self.collection, payload, points=[key], wait=True)

    def read(self) -> dict[str, tuple[Any, Any]]:
        with self.server.client() as client:
            points, _ = client.scroll(self.collection, limit=1000, with_vectors=True)
        return {str(point.id): (point.payload, point.vector) for point in points}

    def text(self, key: str) -> str:
        payload, _ = self.read()[key]
        return str(payload["data" if self.profile == "mem0" else "text"])

    def collections(self) -> list[str]:
        prefix = self.collection.removesuffix("theirs")
        with self.server.client() as client:
            return [c.name for c in client.get_collections().collections if c.name.startswith(prefix)]

    def run(self, source: Path | None = None, **chosen: Any) -> Result:
        options = Options(**{"limits": Limits(records=7), "parallelism": 3, **chosen})
        result = migrate(parse_url(str(source or self.source)), parse_url(self.url), options)
        assert result.books.balanced(), result.books.to_json()
        return result

    def roll_back(self, migration: str) -> RolledBack:
        target = open_target(parse_url(self.url))
        try:
            return rollback(target, Ledger(target.documents, migration))
        finally:
            target.close()


@pytest.fixture(params=PROFILES)
def place(request: pytest.FixtureRequest, tmp_path: Path, qdrant_server: QdrantServer, qdrant_prefix: str) -> Place:
    return Place(request.param, tmp_path, qdrant_server, qdrant_prefix)


def columns(result: Result) -> tuple[int, ...]:
    return tuple(result.books.total(c) for c in ("written", "unchanged", "conflicts", "deleted"))


def test_a_sync_finds_changes_conflicts_and_deletions(place: Place) -> None:
    place.make(THEIRS)
    theirs = place.read()[THEIRS]
    first = place.run()
    assert (first.outcome, first.lossless, columns(first)) == ("proven", True, (RECORDS, 0, 0, 0))
    assert first.verification is not None
    assert first.verification.foreign == 1
    assert place.collections() == [place.collection]
    keys = {"data", "user_id", "n", "hash"} if place.profile == "mem0" else {"text", "n"}
    assert all(set(payload) == keys for key, (payload, _) in place.read().items() if key != THEIRS)

    texts = {identity(i): f"text {i}" for i in range(RECORDS)}
    texts[identity(3)] = "changed"
    del texts[identity(5)]
    texts[identity(1000)] = "new"
    place.write(texts)
    place.edit(identity(7), "edited in the target")
    second = place.run()
    assert (second.outcome, columns(second)) == ("not_proven", (2, RECORDS - 3, 1, 0))
    assert [(c["id"], c["reason"]) for c in second.conflicts] == [
        (identity(7), "changed in the target since it was written")
    ]
    assert second.verification is not None
    assert [(f.what, f.id) for f in second.verification.findings] == [("extra", identity(5))]
    assert place.text(identity(7)) == "edited in the target"
    assert place.text(identity(3)) == "changed"

    third = place.run(delete=True, on_conflict="source")
    assert (third.outcome, columns(third)) == ("proven", (1, RECORDS - 1, 0, 1))
    assert place.read()[THEIRS] == theirs
    assert set(place.read()) == {THEIRS, *texts}


def test_a_rollback_restores_and_deletes(place: Place) -> None:
    overwritten = identity(4)
    place.make(THEIRS, overwritten)
    before = place.read()
    with pytest.raises(RefusedError, match="written by someone else") as refused:
        place.run()
    assert refused.value.code == "existing"
    assert not has_ledger(parse_url(place.url))
    result = place.run(on_existing="overwrite")
    assert (result.outcome, columns(result)) == ("proven", (RECORDS, 0, 0, 0))
    place.edit(identity(9), "edited in the target")
    done = place.roll_back(result.migration)
    assert (done.deleted, done.restored, done.kept) == (RECORDS - 2, 1, [("memory", identity(9))])
    left = place.read()
    del left[identity(9)]
    assert left == before
    assert place.collections() == [place.collection]


def test_what_cannot_be_put_back_stays_saved(place: Place) -> None:
    overwritten = identity(4)
    place.make(overwritten)
    before = place.read()
    result = place.run(on_existing="overwrite")
    # Somebody makes the collection anew, for another model.
    with place.server.client() as client:
        client.delete_collection(place.collection)
        vectors = models.VectorParams(size=3, distance=models.Distance.COSINE)
        client.create_collection(place.collection, vectors_config=vectors)
    with pytest.raises(StoreError, match=f"could not be put back, first memory '{overwritten}'"):
        place.roll_back(result.migration)
    with place.server.client() as client:
        client.delete_collection(place.collection)
    place.make()
    assert place.roll_back(result.migration).restored == 1
    assert place.read() == before


def test_a_rollback_drops_the_collection_it_made(place: Place) -> None:
    result = place.run()
    assert place.collections() == [place.collection]
    assert place.roll_back(result.migration).deleted == RECORDS
    assert place.collections() == []
    assert place.run().outcome == "proven"


def test_the_markers_of_another_migration_hold(place: Place, tmp_path: Path) -> None:
    first = place.run()
    other = tmp_path / "other.jsonl"
    place.write({identity(2): "from the other", identity(2000): "more"}, other)
    second = place.run(other, on_existing="overwrite")
    assert (second.outcome, columns(second)) == ("proven", (2, 0, 0, 0))
    conflict = place.run(on_existing="keep")
    assert (conflict.migration, columns(conflict)) == (first.migration, (0, RECORDS - 1, 1, 0))
    assert conflict.conflicts[0]["reason"] == "written by someone else"
    done = place.roll_back(second.migration)
    assert (done.deleted, done.restored, done.kept) == (1, 1, [])
    # The record is the first migration's again: its changes are taken, not held for a conflict.
    place.write({identity(i): f"later {i}" for i in range(RECORDS)})
    again = place.run()
    assert (again.outcome, columns(again)) == ("proven", (RECORDS, 0, 0, 0))


def test_without_its_state_everything_is_compared_and_nothing_rolled_back(place: Place) -> None:
    result = place.run()
    shutil.rmtree(os.environ["MEMFERRY_STATE_DIR"])
    assert not has_ledger(parse_url(place.url))
    with pytest.raises(RefusedError) as refused:
        place.run()
    assert refused.value.code == "existing"
    place.edit(identity(7), "edited in the target")
    again = place.run(on_existing="keep")
    assert (again.outcome, columns(again)) == ("not_proven", (0, RECORDS - 1, 1, 0))
    assert again.migration == result.migration
    # What it did not write this time it does not know of, and leaves.
    done = place.roll_back(again.migration)
    assert (done.deleted, done.restored) == (0, 0)
    assert len(place.read()) == RECORDS


def test_the_command_line_says_where_the_state_was_looked_for(place: Place) -> None:
    place.run()
    shutil.rmtree(os.environ["MEMFERRY_STATE_DIR"])
    ended = forked.run("-m", "memferry", "rollback", place.url)
    assert ended.returncode == 2
    assert os.environ["MEMFERRY_STATE_DIR"] in ended.stderr
    assert len(place.read()) == RECORDS


def test_ids_that_the_collection_cannot_hold(qdrant_server: QdrantServer, qdrant_prefix: str, tmp_path: Path) -> None:
    place = Place("plain", tmp_path, qdrant_server, qdrant_prefix)
    place.write({f"name {i}": f"text {i}" for i in range(RECORDS)})
    first = place.run(accept=("ids",))
    assert (first.outcome, first.lossless) == ("proven", False)
    before = place.read()
    place.write({f"name {i}": f"text {i}" for i in range(1, RECORDS)})
    second = place.run(accept=("ids",), delete=True)
    assert (second.outcome, columns(second)) == ("proven", (0, RECORDS - 1, 0, 1))
    # Over records of others, which come back.
    other = tmp_path / "other.jsonl"
    place.write({"name 1": "over it"}, other)
    third = place.run(other, accept=("ids",), on_existing="overwrite")
    assert (third.outcome, columns(third)) == ("proven", (1, 0, 0, 0))
    assert place.roll_back(third.migration).restored == 1
    left = place.read()
    assert left == {key: before[key] for key in left}
    assert len(left) == RECORDS - 1


def test_rows_that_became_unreadable_are_not_called_deleted(
    qdrant_server: QdrantServer, qdrant_prefix: str, tmp_path: Path
) -> None:
    """In the collection a record with an id that is no UUID has another one."""
    place = Place("plain", tmp_path, qdrant_server, qdrant_prefix)
    place.write({f"name {i}": f"text {i}" for i in range(20)})
    source = EmbeddedPlace(tmp_path, "store")
    assert migrate(parse_url(str(place.source)), parse_url(source.url), Options()).outcome == "proven"
    assert place.run(source.path, accept=("ids",)).outcome == "proven"
    before = place.read()
    source.execute("UPDATE memory SET extra = '{' WHERE id = ?", "name 3")
    source.remove([("memory", "name 5")])
    done = place.run(source.path, accept=("ids",), delete=True)
    assert (done.books.total("quarantined"), done.books.total("deleted")) == (1, 1)
    gone = set(before) - set(place.read())
    assert {before[key][0]["text"] for key in gone} == {"text 5"}


def test_vectors_that_no_collection_takes_together_are_refused_by_the_plan(
    qdrant_server: QdrantServer, qdrant_prefix: str, tmp_path: Path
) -> None:
    source = tmp_path / "two.jsonl"
    vectors = [
        {"kind": "dense", "dim": n, "data": base64.b64encode(struct.pack(f"<{n}f", *[1] * n)).decode()} for n in (2, 3)
    ]
    records = [{"kind": "memory", "id": f"m{one['dim']}", "vectors": [one]} for one in vectors]
    source.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    target = f"qdrant://{qdrant_server.host}:{qdrant_server.port}/{qdrant_prefix}none?distance=dot"
    with pytest.raises(RefusedError) as caught:
        plan_only(parse_url(str(source)), parse_url(target), Options())
    assert "are of several kinds or dimensions" in str(caught.value)
    with qdrant_server.client() as client:
        client.create_collection(
            f"{qdrant_prefix}none", vectors_config={"other": models.VectorParams(size=2, distance=models.Distance.DOT)}
        )
    source.write_text(json.dumps(records[0]) + "\n", "utf-8")
    with pytest.raises(RefusedError) as caught:
        plan_only(parse_url(str(source)), parse_url(target), Options())
    assert "the collection has none of that name" in str(caught.value)


def test_a_kind_that_was_given_up_is_counted(qdrant_server: QdrantServer, qdrant_prefix: str, tmp_path: Path) -> None:
    place = Place("plain", tmp_path, qdrant_server, qdrant_prefix)
    with place.source.open("a") as file:
        file.write('{"kind": "entity", "id": "e"}\n')
    for written in (RECORDS, 0):
        result = place.run(accept=("entities", "ids"))
        assert (result.outcome, result.lossless) == ("proven", False)
        assert (result.books.total("written"), result.books.of("entity").filtered) == (written, 1)


def test_doubles_that_qdrant_rounds_are_declared(
    qdrant_server: QdrantServer, qdrant_prefix: str, tmp_path: Path
) -> None:
    place = Place("plain", tmp_path, qdrant_server, qdrant_prefix)
    records = [{"kind": "memory", "id": identity(i), "extra": {"x": {"y": [i * 1.1, i / 3]}}} for i in range(400)]
    place.source.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    with pytest.raises(RefusedError, match="doubles") as refused:
        place.run()
    assert refused.value.code == "gap"
    first = place.run(accept=("doubles",))
    assert (first.outcome, first.lossless, columns(first)) == ("proven", False, (400, 0, 0, 0))
    again = place.run(accept=("doubles",))
    assert (again.outcome, columns(again)) == ("proven", (0, 400, 0, 0))


def test_doubles_that_were_written_over_are_put_back_to_the_bit(
    qdrant_server: QdrantServer, qdrant_prefix: str, tmp_path: Path
) -> None:
    place = Place("plain", tmp_path, qdrant_server, qdrant_prefix)
    place.make()
    rng = random.Random(4)
    with place.server.client() as client:
        doubles = [
            [rng.random(), rng.random() * 1e6, rng.uniform(-1, 1) * 10 ** rng.randrange(-300, 300)] for _ in range(300)
        ]
        points = [
            models.PointStruct(id=identity(i), vector=[0.6, 0.8], payload={"x": {"y": three}})
            for i, three in enumerate(doubles)
        ]
        client.upsert(place.collection, points, wait=True)
    before = place.read()
    place.write({identity(i): "over it" for i in range(300)})
    result = place.run(on_existing="overwrite")
    assert place.text(identity(7)) == "over it"
    assert place.roll_back(result.migration).restored == 300
    assert place.read() == before


FAILPOINTS = [
    f"{name}:{count}"
    for name in ("planned", "prepared", "intended", "acknowledged", "written", "booked", "committed", "copied")
    for count in (1, 5)
]


def process(place: Place, failpoint: str = "", *arguments: str) -> str:
    environment = {**os.environ, "MEMFERRY_FAILPOINT": failpoint}
    ended = forked.run("-c", RUNNER, place.source, place.url, *arguments, environment=environment)
    assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr
    return ended.stdout


@pytest.mark.parametrize("failpoint", FAILPOINTS)
@pytest.mark.parametrize("place", ["mem0"], indirect=True)
def test_killed_anywhere_the_same_command_finishes(place: Place, failpoint: str, tmp_path: Path) -> None:
    place.make(THEIRS, identity(4))
    before = place.read()
    process(place, failpoint)
    assert process(place) == "proven 0 True\n"
    place.write({identity(i): f"later {i}" for i in range(2, RECORDS)})
    process(place, failpoint, "delete")
    assert process(place, "", "delete") == "proven 0 True\n"
    assert set(place.read()) == {THEIRS, *(identity(i) for i in range(2, RECORDS))}
    target = open_target(parse_url(place.url))
    (migration,) = target.documents.migrations()
    target.close()
    done = place.roll_back(migration)
    assert (done.restored, done.kept) == (1, [])
    assert place.read() == before


@pytest.mark.parametrize("failpoint", ["intended:3", "acknowledged:3", "committed:3"])
@pytest.mark.parametrize("place", ["plain"], indirect=True)
def test_an_unfinished_run_is_rolled_back(place: Place, failpoint: str) -> None:
    place.make(THEIRS, identity(4))
    before = place.read()
    assert process(place, failpoint) == ""
    target = open_target(parse_url(place.url))
    (migration,) = target.documents.migrations()
    target.close()
    place.roll_back(migration)
    assert place.read() == before


ROLLBACK = """
import sys
from memferry.backends import open_target
from memferry.ledger import Ledger
from memferry.phases.rollback import rollback
from memferry.urls import parse_url
target = open_target(parse_url(sys.argv[1]))
rollback(target, Ledger(target.documents, target.documents.migrations()[0]))
"""


@pytest.mark.parametrize("failpoint", ["deleted:1", "restored:1"])
@pytest.mark.parametrize("place", ["plain"], indirect=True)
def test_a_killed_rollback_goes_on(place: Place, failpoint: str) -> None:
    place.make(THEIRS, identity(4), identity(6))
    before = place.read()
    migration = place.run(on_existing="overwrite").migration
    place.edit(identity(6), "edited after it was written over")
    edited = place.read()[identity(6)]
    environment = {**os.environ, "MEMFERRY_FAILPOINT": failpoint}
    assert forked.run("-c", ROLLBACK, place.url, environment=environment).returncode == -signal.SIGKILL
    done = place.roll_back(migration)
    assert done.kept == [("memory", identity(6))]
    assert place.read() == {**before, identity(6): edited}


def test_scratch_of_a_plan_is_gone(place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    chosen = tmp_path / "state"
    monkeypatch.setenv("MEMFERRY_STATE_DIR", str(chosen))
    place.make(identity(0))
    with pytest.raises(RefusedError):
        place.run()
    assert not chosen.exists()
    assert place.run(on_existing="overwrite").outcome == "proven"
    (folder,) = chosen.iterdir()
    assert json.loads((folder / "target.json").read_text())["identity"].endswith(place.collection)
