"""One contract over every store that an application can open."""

from __future__ import annotations

import base64
import json
import math
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import memferry
from memferry import Record, RefusedError, Store, StoreError, TransientError, Vector
from memferry._native import EmbeddedStore
from memferry.model import KINDS
from support.documents import documents, lines
from support.stores import execute

WRITABLE = ["embedded", "qdrant", "neo4j", "hybrid"]
BY_WORDS = ["embedded", "neo4j", "hybrid"]


@pytest.fixture(params=WRITABLE)
def store(request: pytest.FixtureRequest, make_url: Callable[..., str]) -> Iterator[Store]:
    with memferry.open(make_url(request.param, distance="dot")) as opened:
        yield opened


@pytest.fixture(params=BY_WORDS)
def words(request: pytest.FixtureRequest, make_url: Callable[..., str]) -> Iterator[Store]:
    with memferry.open(make_url(request.param)) as opened:
        yield opened


def _unit(*values: float) -> Vector:
    length = math.sqrt(sum(value * value for value in values))
    return Vector.dense([value / length for value in values], model="mini")


def _world() -> list[Record]:
    return [
        Record("entity", "ann", name="Ann", type="person", scope={"user": "u1"}, vectors=[_unit(1, 1, 0)]),
        Record("entity", "acme", name="Acme", type="company", scope={"user": "u2"}),
        Record("memory", "m1", content="Ann drinks green tea", scope={"user": "u1"}, vectors=[_unit(1, 0, 0)]),
        Record("memory", "m2", content="Bob drinks coffee", scope={"user": "u2"}, vectors=[_unit(0.9, 0.1, 0)]),
        Record("memory", "m3", content="green hills", scope={"user": "u2"}, vectors=[_unit(0, 0, 1)]),
        Record("observation", "o1", content="likes tea", owner_id="ann", scope={"user": "u1"}),
        Record("relation", "r1", type="works_at", from_id="ann", to_id="acme"),
    ]


def _ids(hits: list[memferry.Hit]) -> list[str]:
    return [hit.record.id for hit in hits]


def test_records_come_back_as_they_were_put(store: Store) -> None:
    assert store.get("memory", "m1") is None
    assert list(store.list()) == []
    assert store.put(_world()) == 7
    assert store.get_many([("relation", "r1"), ("memory", "none"), ("entity", "ann")]) == [
        _world()[6],
        None,
        _world()[0],
    ]
    assert sorted(store.list(), key=lambda r: r.identity) == sorted(_world(), key=lambda r: r.identity)


def test_nasty_values_come_back_exactly(store: Store) -> None:
    dims: dict[str, int] = {}

    def fits(vector: Vector) -> bool:
        # A collection takes one kind and dimension a name.
        return vector.kind == "dense" and 0 < vector.dim == dims.setdefault(vector.name or "default", vector.dim)

    # A payload has no integer beyond 64 bits with a sign, so unmapped members are left to `test_records.py`.
    read = [Record.from_json(line) for line in lines(documents(120, 5)).splitlines()]
    records = [replace(r, vectors=tuple(filter(fits, r.vectors)), unmapped={}) for r in read if r.kind != "relation"]
    assert sum(len(record.vectors) for record in records) > 10
    assert store.put(records) == len(records)
    found = {record.identity: record for record in store.list()}
    assert len(found) == len(records)
    for record in records:
        assert found[record.identity] == record
    assert store.get_many([record.identity for record in records]) == records


def test_a_record_is_written_over_and_deleted(store: Store) -> None:
    store.put(_world())
    store.put(Record("memory", "m1", content="Ann drinks water"))
    assert store.get("memory", "m1") == Record("memory", "m1", content="Ann drinks water")
    with pytest.raises(RefusedError) as caught:
        store.put([Record("memory", "new"), Record("memory", "m2")], replace=False)
    assert caught.value.code == "existing"
    assert store.get("memory", "new") is None
    assert store.delete("memory", "m1")
    assert not store.delete("memory", "m1")
    assert store.delete_many([("memory", "m2"), ("memory", "none"), ("relation", "r1")]) == 2
    assert {record.id for record in store.list()} == {"ann", "acme", "m3", "o1"}


def test_listing_by_kind_scope_and_cursor(store: Store) -> None:
    store.put(_world())
    store.put([Record("memory", f"x{i:02}", scope={"user": "u3"}) for i in range(25)])
    assert {r.id for r in store.list(kind="entity")} == {"ann", "acme"}
    assert {r.id for r in store.list(scope={"user": "u1"})} == {"ann", "m1", "o1"}
    seen: list[str] = []
    cursor: str | None = None
    pages = 0
    while True:
        page = next(store.pages(kind="memory", scope={"user": "u3"}, size=4, cursor=cursor))
        seen += [record.id for record in page.records]
        pages += 1
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(seen) == [f"x{i:02}" for i in range(25)]
    assert pages >= 7
    for odd in ("no cursor", "e30=", "WyJub3doZXJlIiwgbnVsbF0="):
        with pytest.raises(RefusedError, match="cursor"):
            next(store.pages(cursor=odd))
    with pytest.raises(RefusedError, match="unknown kind"):
        next(store.pages(kind="thing"))


def test_the_nearest_vectors(store: Store) -> None:
    store.put(_world())
    assert store.wait_indexed(60)
    for exact in (False, True):
        hits = store.search(vector=[1.0, 0.0, 0.0], kinds="memory", k=2, exact=exact)
        assert _ids(hits) == ["m1", "m2"]
        assert hits[0].score == pytest.approx(1, abs=1e-5)
        assert hits[0].record == _world()[2]
        assert _ids(store.search(vector=[1.0, 0.0, 0.0], scope={"user": "u2"}, exact=exact))[0] == "m2"
    assert _ids(store.search(vector=[1.0, 0.0, 0.0], k=3)) == ["m1", "m2", "ann"]
    assert store.search(vector=[1.0, 0.0]) == []
    assert store.search(vector=[1.0, 0.0, 0.0], vector_name="other") == []
    with pytest.raises(RefusedError, match="words or a vector"):
        store.search()
    with pytest.raises(RefusedError, match="k is 0"):
        store.search(vector=[1.0, 0.0, 0.0], k=0)


def test_words_are_found_as_soon_as_they_are_put_and_no_longer_once_gone(words: Store) -> None:
    assert words.search("tea") == []
    words.put(_world())
    assert set(_ids(words.search("tea"))) == {"m1", "o1"}
    assert _ids(words.search("green tea")) == ["m1"]
    assert _ids(words.search("green", scope={"user": "u2"})) == ["m3"]
    assert _ids(words.search("Ann", kinds="entity")) == ["ann"]
    assert _ids(words.search("drinks", k=1))[0] in {"m1", "m2"}
    words.put(Record("memory", "m1", content="Ann prefers water now"))
    assert _ids(words.search("tea")) == ["o1"]
    assert _ids(words.search("water")) == ["m1"]
    words.delete("observation", "o1")
    assert words.search("tea") == []
    for odd in ('"', "OR", "a AND", "tea*", "nul\0l", "\\", "content:tea", "NEAR(", "//", "tea -coffee"):
        words.search(odd)
    with pytest.raises(RefusedError, match="no words"):
        words.search("  ")


def test_words_and_a_vector_together(words: Store) -> None:
    words.put(_world())
    hits = words.search("drinks", vector=[0.9, 0.1, 0.0], kinds="memory")
    assert _ids(hits)[0] == "m2"
    assert set(_ids(hits)) == {"m1", "m2", "m3"}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.usefixtures("empty_neo4j")
def test_records_of_an_application_carry_no_marker_and_verify_leaves_them_alone(
    make_url: Callable[..., str], tmp_path: Path
) -> None:
    for backend in WRITABLE[:3]:
        source = tmp_path / f"{backend}.jsonl"
        source.write_bytes(b'{"kind":"memory","id":"moved","content":"x"}\n')
        url = make_url(backend)
        with memferry.open(url) as store:
            store.put(Record("memory", "mine", content="of the application"))
        assert memferry.migrate(source, url).outcome == "proven"
        with memferry.open(url) as store:
            assert {record.id for record in store.list()} == {"mine", "moved"}
            store.put(Record("memory", "later"))
        result = memferry.verify(source, url)
        assert result.verification is not None
        assert (result.outcome, result.verification.foreign) == ("proven", 2)
        done = memferry.rollback(url)
        assert done.deleted == 1
        with memferry.open(url) as store:
            assert {record.id for record in store.list()} == {"mine", "later"}


def test_a_store_does_what_its_capabilities_say(store: Store) -> None:
    store.put(_world())
    can = store.capabilities()
    for kind in KINDS:
        for wanted, kinds in (({"text": "tea"}, can.text_kinds), ({"vector": [1.0, 0.0, 0.0]}, can.vector_kinds)):
            if kind in kinds:
                store.search(**wanted, kinds=kind)
            else:
                with pytest.raises(RefusedError) as caught:
                    store.search(**wanted, kinds=kind)
                assert caught.value.code == "unsupported"


@pytest.mark.parametrize("backend", BY_WORDS[:2])
def test_a_put_of_several_is_done_whole_or_not_at_all(make_url: Callable[..., str], backend: str) -> None:
    bad = {
        "embedded": Record("memory", "bad", vectors=[Vector.dense([1.0], name=str(i)) for i in range(257)]),
        "neo4j": Record("relation", "bad", from_id="nobody", to_id="ann"),
    }[backend]
    with memferry.open(make_url(backend)) as store:
        assert store.capabilities().atomic
        store.put(Record("entity", "ann", name="old"))
        with pytest.raises((RefusedError, StoreError)):
            store.put([Record("entity", "ann", name="new"), Record("memory", "good", content="good"), bad])
        assert list(store.list()) == [Record("entity", "ann", name="old")]
        assert store.search("good") == []
        assert _ids(store.search("old")) == ["ann"]


@pytest.mark.parametrize("backend", ["embedded", "qdrant", "neo4j"])
def test_read_only_is_read_only(make_url: Callable[..., str], backend: str) -> None:
    url = make_url(backend)
    with memferry.open(url) as store:
        store.put(_world())
    with memferry.open(url, read_only=True) as store:
        assert not store.capabilities().write
        assert store.get("memory", "m1") == _world()[2]
        assert _ids(store.search(vector=[1.0, 0.0, 0.0], k=1)) == ["m1"]
        writes: list[Callable[[], Any]] = [
            lambda: store.put(Record("memory", "x")),
            lambda: store.delete("memory", "m1"),
        ]
        for write in writes:
            with pytest.raises(RefusedError) as caught:
                write()
            assert caught.value.code == "unsupported"


# --- embedded


def test_a_locked_store_raises_a_typed_error(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with memferry.open(path) as store:
        store.put(Record("memory", "m1"))
        other = EmbeddedStore.open_target(path)
        other.begin()
        with pytest.raises(TransientError) as caught:
            store.put(Record("memory", "m2"))
        assert caught.value.code == "store-locked"
        other.abort()
        assert store.put(Record("memory", "m2")) == 1


def test_threads_share_a_store(tmp_path: Path) -> None:
    with memferry.open(tmp_path / "a.db") as store:

        def work(number: int) -> None:
            for i in range(20):
                store.put(Record("memory", f"{number}-{i}", content=f"word{number}"))
                assert store.search(f"word{number}", k=1)

        threads = [threading.Thread(target=work, args=[number]) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(list(store.list())) == 80
        assert len(store.search("word3", k=100)) == 20


def test_an_index_left_behind_by_a_killed_migration_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with memferry.open(path) as store:
        store.put(Record("memory", "m1", content="early"))
        behind = EmbeddedStore.open_target(path)
        behind.mark_text_stale()
        store.put([Record("memory", "m1", content="changed"), Record("memory", "m2", content="late")])
        store.delete("memory", "m2")
        assert store.search("early") == []
        assert _ids(store.search("changed")) == ["m1"]
        store.put(Record("memory", "m1", content="again"))
        assert (_ids(store.search("again")), store.search("changed")) == (["m1"], [])


def test_vectors_that_are_no_numbers_are_never_near(tmp_path: Path) -> None:
    with memferry.open(tmp_path / "a.db") as store:
        store.put(Record("memory", "nan", vectors=[Vector.dense([math.nan, 1.0])]))
        store.put(Record("memory", "two", vectors=[Vector.dense([1.0, 0.0]), Vector.dense([1.0, 0.1])]))
        store.put(Record("memory", "one", vectors=[Vector.dense([0.5, 0.5])]))
        assert _ids(store.search(vector=[1.0, 0.0])) == ["two", "one"]


def test_a_row_that_is_no_record_stops_a_listing_and_not_the_pages(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    with memferry.open(path) as store:
        store.put([Record("memory", "m1"), Record("memory", "m2")])
    damage = {
        "path": str(path),
        "statements": [["UPDATE memory SET tags = 'no list' WHERE id = 'm1'", []]],
        "kinds": [],
    }
    command = [sys.executable, "-m", "support.sqlite_tool"]
    done = subprocess.run(command, input=json.dumps(damage), text=True, check=True, capture_output=True)
    assert done.stdout == "1\n"
    with memferry.open(path) as store:
        with pytest.raises(StoreError, match="tags"):
            list(store.list())
        (page,) = store.pages(kind="memory")
        assert [row.id for row in page.unreadable] == ["m1"]
        assert [record.id for record in page.records] == ["m2"]
        with pytest.raises(StoreError) as caught:
            store.get("memory", "m1")
        assert caught.value.code == "store-corrupt"


# --- qdrant


def test_a_collection_is_made_for_the_vectors_to_come(make_url: Callable[..., str]) -> None:
    with memferry.open(make_url("qdrant"), vectors={"": 3}) as store:
        store.put(Record("memory", "m1", content="no vector yet"))
        store.put(Record("memory", "m2", vectors=[_unit(1, 2, 3)]))
        assert _ids(store.search(vector=[1.0, 2.0, 3.0])) == ["m2"]
        with pytest.raises(RefusedError, match="dimension 2"):
            store.put(Record("memory", "m3", vectors=[_unit(1, 2)]))
        with pytest.raises(RefusedError, match="NaN or infinity"):
            store.put(Record("memory", "m3", vectors=[Vector.dense([math.nan, 0.0, 1.0])]))
        assert not store.capabilities().exact_vectors


# --- jsonl


@pytest.mark.parametrize(("backend", "stream"), [("embedded", "memory"), ("jsonl", "lines")])
def test_what_is_no_cursor_is_refused(make_url: Callable[..., str], backend: str, stream: str) -> None:
    url = make_url(backend)
    if backend == "jsonl":
        Path(url).write_text(Record("memory", "m1").to_json() + "\n")
    with memferry.open(url) as store:
        if backend == "embedded":
            store.put(Record("memory", "m1"))
        odd: tuple[Any, ...] = (
            [stream, "x"],
            [stream, "9" * 30],
            [stream, 5],
            [[stream], None],
            [{}, None],
            [None, None],
            5,
        )
        for cursor in (*odd, *([[stream, "-7"]] if backend == "jsonl" else [])):
            text = base64.urlsafe_b64encode(json.dumps(cursor).encode()).decode()
            with pytest.raises(RefusedError, match="no cursor") as caught:
                list(store.pages(cursor=text))
            assert caught.value.code == "invalid"


def test_half_a_character_is_searched_nowhere(tmp_path: Path) -> None:
    with memferry.open(tmp_path / "a.db") as store:
        store.put(Record("memory", "m1", content="tea"))
        searches: list[Callable[[], Any]] = [
            lambda: store.search("\ud800"),
            lambda: store.search("tea", scope={"user": "\ud800"}),
            lambda: store.search(vector=[1.0], vector_name="\ud800"),
        ]
        for search in searches:
            with pytest.raises(RefusedError) as caught:
                search()
            assert caught.value.code == "invalid"


def test_a_file_is_read_and_everything_else_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("".join(record.to_json() + "\n" for record in _world()), "utf-8")
    with memferry.open(path) as store:
        assert list(store.list()) == _world()
        assert store.get("memory", "m1") == _world()[2]
        assert [r.id for page in store.pages(size=2) for r in page.records] == [r.id for r in _world()]
        path.write_text(Record("memory", "m1", content="other").to_json() + "\n", "utf-8")
        assert store.get("memory", "m1") == Record("memory", "m1", content="other")
        attempts: list[Callable[[], Any]] = [
            lambda: store.put(Record("memory", "x")),
            lambda: store.delete("memory", "m1"),
            lambda: store.search("tea"),
            lambda: store.search(vector=[1.0]),
        ]
        for attempt in attempts:
            with pytest.raises(RefusedError) as caught:
                attempt()
            assert caught.value.code == "unsupported"
    assert json.loads(path.read_text("utf-8"))["content"] == "other"
    assert [p.name for p in tmp_path.iterdir()] == ["a.jsonl"]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("missing.jsonl", "store-missing"),
        ("nowhere/a.db", "store-missing"),
        ("a.db?profile=mem0", "profile"),
        ("jsonl:m.json?profile=server-memory", "not-native"),
        ("qdrant://127.0.0.1:1/c?profile=mem0", "unavailable"),
        ("thing:x", "url"),
    ],
)
def test_what_cannot_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, code: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(memferry.MemferryError) as caught:
        memferry.open(url)
    assert caught.value.code == code


def test_a_store_that_several_open_for_the_first_time_is_made_once(tmp_path: Path) -> None:
    begin = threading.Barrier(8)

    def work(number: int) -> int:
        begin.wait()
        with memferry.open(tmp_path / "agents.db") as store:
            return store.put(Record("memory", str(number)))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(work, range(8))) == [1] * 8
    with memferry.open(tmp_path / "agents.db") as store:
        assert {record.id for record in store.list()} == {str(number) for number in range(8)}


def test_a_text_index_that_cannot_be_built_keeps_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "agents.db"
    with memferry.open(path) as store:
        store.put(memferry.Record("memory", "m1", content="Ann likes tea"))
    behind: tuple[str, list[Any]] = ("INSERT OR REPLACE INTO memferry_meta VALUES ('text_index', 'stale')", [])
    assert execute(path, [behind]) == 1
    with (
        memferry.open(path, read_only=True) as store,
        pytest.raises(StoreError, match="text index is behind") as refused,
    ):
        store.search("tea")
    assert refused.value.code == "refused"
    with memferry.open(path) as store:
        assert execute(path, [("DROP TABLE memory_fts_data", [])]) >= 0
        with pytest.raises(StoreError, match=r"agents\.db"):
            store.search("tea")
        # No transaction is left open.
        assert store.put(memferry.Record("memory", "m2", content="Bob too")) == 1


TWICE = "00000000-0000-0000-0000-000000000005"


@pytest.mark.parametrize("backend", ["qdrant", "hybrid"])
def test_another_kind_under_the_same_uuid_is_never_written_over(backend: str, make_url: Callable[..., str]) -> None:
    entity = Record("entity", TWICE, name="e", vectors=[_unit(0, 1, 0)])
    remembered = Record("memory", TWICE, content="m", vectors=[_unit(1, 0, 0)])
    with memferry.open(make_url(backend, distance="dot")) as store:
        with pytest.raises(RefusedError, match="one point an id") as refused:
            store.put([entity, remembered])
        assert refused.value.code == "refused"
        store.put(remembered)
        with pytest.raises(RefusedError, match=f"is memory '{TWICE}', and another kind"):
            store.put(entity)
        assert store.get("entity", TWICE) is None
        assert not store.delete("entity", TWICE)
        assert list(store.list()) == [remembered]


@pytest.mark.usefixtures("empty_neo4j")
def test_a_record_without_vectors_leaves_those_of_another_kind(make_url: Callable[..., str]) -> None:
    remembered = Record("memory", TWICE, content="m", vectors=[_unit(1, 0, 0)])
    entity = Record("entity", TWICE, name="e")
    with memferry.open(make_url("hybrid", distance="dot")) as store:
        store.put([remembered, entity])
        store.put(entity)
        assert store.get_many([("memory", TWICE), ("entity", TWICE)]) == [remembered, entity]
        assert store.delete("entity", TWICE)
        assert list(store.list()) == [remembered]
