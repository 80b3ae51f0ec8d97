"""Vectors that a collection does not give back as they are: refused, or declared and given up knowingly."""

from __future__ import annotations

import math
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import models

import memferry
from memferry import Embedding, Record, Vector
from memferry.backends import open_source, open_target
from memferry.errors import RefusedError
from memferry.model import Limits, Range, VectorSpec
from memferry.phases.migrate import Result, plan_only
from memferry.phases.plan import Options
from memferry.urls import StoreUrl, parse_url
from support.documents import Document, Value, vector, write_jsonl
from support.endpoint import ScriptedEndpoint
from support.graph import move, roll
from testbed.qdrant import QdrantServer

OTHERS = ["mem0", "plain"]
RECORDS = 5


def identity(number: int) -> str:
    return str(uuid.UUID(int=(1 << 120) + number))


@dataclass
class Place:
    """A source file and a collection."""

    server: QdrantServer
    collection: str
    folder: Path

    def url(self, query: str = "") -> StoreUrl:
        return parse_url(f"{self.server.url}/{self.collection}{query}")

    def file(self, *vectors: list[Value], profile: str = "native") -> StoreUrl:
        """One memory for each list of vectors, with nothing else that the profile has no place for."""
        own: Document = {} if profile == "plain" else {"content": "x", "scope": {"user": "u"}}
        records = [{"kind": "memory", "id": identity(n), "vectors": one, **own} for n, one in enumerate(vectors)]
        return parse_url(str(write_jsonl(self.folder / "source.jsonl", records)))

    def make(self, config: models.VectorParams | dict[str, models.VectorParams], **more: Any) -> None:
        """The collection as its system would have made it."""
        with self.server.client() as client:
            client.create_collection(self.collection, vectors_config=config, **more)

    def points(self) -> dict[str, Any]:
        """Vectors by id."""
        with self.server.client() as client:
            if not client.collection_exists(self.collection):
                return {}
            points, _ = client.scroll(self.collection, limit=100, with_vectors=True)
        return {str(point.id): point.vector for point in points}


@pytest.fixture
def place(tmp_path: Path, qdrant_server: QdrantServer, qdrant_prefix: str) -> Place:
    return Place(qdrant_server, f"{qdrant_prefix}vectors", tmp_path)


def run(source: StoreUrl, target: StoreUrl, *accept: str, **chosen: Any) -> Result:
    return move(source, target, accept=accept, **chosen)


def gaps(source: StoreUrl, target: StoreUrl) -> dict[str, int]:
    """Gaps of a plan that is refused for them."""
    with pytest.raises(RefusedError) as refused:
        plan_only(source, target, Options())
    assert refused.value.code == "gap"
    return {name: int(records) for name, records in re.findall(r"(\S+) \((\d+) records", str(refused.value))}


# --- what is said of a vector, in a layout that has no place for it


def noted(place: Place, profile: str, **notes: Value) -> StoreUrl:
    return place.file(*([vector([3.0, 4.0], **notes)] for _ in range(RECORDS)), profile=profile)


@pytest.mark.parametrize("profile", OTHERS)
@pytest.mark.parametrize(
    ("notes", "lost"),
    [
        ({"model": "mini"}, ["vector-models"]),
        ({"normalized": False}, ["vector-normalized"]),
        ({"model": "mini", "normalized": True}, ["vector-models", "vector-normalized"]),
    ],
)
def test_models_and_lengths_are_given_up_knowingly(
    place: Place, profile: str, notes: dict[str, Any], lost: list[str]
) -> None:
    source, target = noted(place, profile, **notes), place.url(f"?profile={profile}&distance=dot")
    assert gaps(source, target) == dict.fromkeys(lost, RECORDS)
    first = run(source, target, *lost)
    assert (first.outcome, first.lossless, first.books.total("written")) == ("proven", False, RECORDS)
    again = run(source, target, *lost)
    assert (again.outcome, again.books.total("unchanged"), again.conflicts) == ("proven", RECORDS, [])
    assert roll(target, first.migration).deleted == RECORDS
    assert place.points() == {}


@pytest.mark.parametrize("profile", OTHERS)
def test_vectors_of_which_nothing_is_said_lose_nothing(place: Place, profile: str) -> None:
    source, target = noted(place, profile), place.url(f"?profile={profile}&distance=dot")
    there = run(source, target)
    assert (there.outcome, there.lossless) == ("proven", True)
    store = parse_url(str(place.folder / "between.db"))
    back = run(target, store)
    assert (back.outcome, back.lossless) == ("proven", True)
    onward = run(store, parse_url(f"{place.server.url}/{place.collection}2?profile={profile}&distance=dot"))
    assert (onward.outcome, onward.lossless) == ("proven", True)


def test_what_was_embedded_anew_goes_into_a_collection_of_others(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMFERRY_STATE_DIR", str(tmp_path / "state"))
    source, target = tmp_path / "a.db", place.url("?profile=mem0&distance=dot").text
    with memferry.open(source) as store:
        old = [Vector.dense([3.0, 4.0])]
        store.put(
            [Record("memory", identity(n), content=f"{n}", scope={"user": "u"}, vectors=old) for n in range(RECORDS)]
        )
    with ScriptedEndpoint() as endpoint:
        embedding = Embedding(url=endpoint.url, model="new")
        with pytest.raises(RefusedError, match="vector-models"):
            memferry.migrate(source, target, embedding=embedding, accept=("re-embedded",))
        for column in ("written", "unchanged"):
            done = memferry.migrate(source, target, embedding=embedding, accept=("re-embedded", "vector-models"))
            assert (done.outcome, done.books.total(column)) == ("proven", RECORDS)
    assert {len(one) for one in place.points().values()} == {endpoint.dimensions}


# --- collections that keep other numbers

LOSSY = [models.Datatype.FLOAT16, models.Datatype.UINT8]


@pytest.mark.parametrize("datatype", LOSSY)
@pytest.mark.parametrize("profile", ["native", *OTHERS])
def test_a_collection_that_rounds_is_refused(place: Place, profile: str, datatype: models.Datatype) -> None:
    params = models.VectorParams(size=2, distance=models.Distance.DOT, datatype=datatype)
    place.make({"default": params} if profile == "native" else params)
    source, target = noted(place, profile), place.url(f"?profile={profile}")
    for refused_by in (run, lambda one, other: plan_only(one, other, Options())):
        with pytest.raises(RefusedError) as refused:
            refused_by(source, target)
        assert refused.value.code == "refused"
        assert f"kept as {datatype.value}, allowed: float32" in str(refused.value)
        assert refused.value.hint
    assert place.points() == {}


@pytest.mark.parametrize("datatype", LOSSY)
def test_an_application_is_not_given_other_numbers(place: Place, datatype: models.Datatype) -> None:
    params = models.VectorParams(size=2, distance=models.Distance.DOT, datatype=datatype)
    place.make({"default": params, "exact": models.VectorParams(size=2, distance=models.Distance.DOT)})
    with memferry.open(place.url()) as store:
        with pytest.raises(RefusedError, match=f"kept as {datatype.value}"):
            store.put(Record("memory", "a", vectors=[Vector.dense([0.1, 70000.0])]))
        store.put(Record("memory", "b", vectors=[Vector.dense([0.1, 70000.0], name="exact")]))
        kept = store.get("memory", "b")
    assert kept is not None
    assert kept.vectors == (Vector.dense([0.1, 70000.0], name="exact"),)


def test_sparse_vectors_are_kept_as_they_are_whatever_their_index_is_of(place: Place) -> None:
    index = models.SparseIndexParams(datatype=models.Datatype.FLOAT16)
    place.make({}, sparse_vectors_config={"words": models.SparseVectorParams(index=index)})
    with memferry.open(place.url()) as store:
        words = Vector.sparse({3: 0.1, 7: 70000.0}, name="words")
        store.put(Record("memory", "a", vectors=[words]))
        kept = store.get("memory", "a")
    assert kept is not None
    assert kept.vectors == (words,)


# --- what has no length one


@pytest.mark.parametrize("profile", ["native", *OTHERS])
@pytest.mark.parametrize("odd", [math.nan, math.inf, -math.inf])
def test_what_has_no_cosine_is_given_up_knowingly(place: Place, profile: str, odd: float) -> None:
    values = ([0.6, 0.8], [odd, 1.0], [0.8, 0.6])
    source = place.file(*([vector(one)] for one in values), profile=profile)
    target = place.url(f"?profile={profile}")
    assert gaps(source, target) == {"vectors-not-finite": 1}
    first = run(source, target, "vectors-not-finite")
    assert (first.outcome, first.lossless, first.books.total("written")) == ("proven", False, 3)
    again = run(source, target, "vectors-not-finite")
    assert (again.outcome, again.books.total("unchanged"), again.conflicts) == ("proven", 3, [])
    assert [bool(place.points()[key]) for key in (identity(0), identity(1), identity(2))] == [True, False, True]
    assert roll(target, first.migration).deleted == 3


@pytest.mark.parametrize("profile", ["native", *OTHERS])
def test_what_has_no_cosine_and_was_not_given_up_is_quarantined(place: Place, profile: str) -> None:
    """As a record that changed after the plan."""
    source = open_source(place.file([vector([math.nan, 1.0])], [vector([0.6, 0.8])], profile=profile))
    target = open_target(place.url(f"?profile={profile}"))
    try:
        target.prepare("m", (VectorSpec("", "dense", 2, 2),))
        (stream,) = source.streams()
        part = Range(0, stream.name, None, None)
        records = source.reader().read(part, None, Limits()).records
        (bad,) = target.write(part, records, "m", fresh=True)
        assert (bad.kind, bad.id, bad.reason) == ("memory", identity(0), "gap")
        assert "vectors-not-finite" in bad.message
        assert list(place.points()) == [identity(1)]
    finally:
        target.close()
        source.close()


# --- two of one name


def test_two_vectors_that_would_have_one_name_are_declared(place: Place) -> None:
    both = [vector([1.0, 2.0]), vector([3.0, 4.0], name="default")]
    source, target = place.file(both, [vector([5.0, 6.0], name="default")]), place.url("?distance=dot")
    assert gaps(source, target) == {"several-vectors": 1}
    first = run(source, target, "several-vectors")
    assert (first.outcome, first.lossless, first.books.total("written")) == ("proven", False, 2)
    assert place.points() == {identity(0): {"default": [1.0, 2.0]}, identity(1): {"default": [5.0, 6.0]}}
    assert run(source, target, "several-vectors").books.total("unchanged") == 2
    assert roll(target, first.migration).deleted == 2


def test_an_application_is_told_which_name_two_would_have(place: Place) -> None:
    with memferry.open(place.url("?distance=dot")) as store:
        both = [Vector.dense([1.0, 2.0]), Vector.dense([3.0, 4.0], name="default")]
        with pytest.raises(RefusedError, match='two vectors would be called "default"'):
            store.put(Record("memory", "a", vectors=both))
