"""The Neo4j backend against a real server, with the official driver as witness."""

from __future__ import annotations

import json
import logging
import math
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import neo4j
import pytest
from hypothesis import given, settings

from memferry import retry
from memferry._native import Batch
from memferry.backends import open_source
from memferry.backends.neo4j import Neo4jSource, Neo4jTarget, layout, source, target
from memferry.backends.neo4j.connection import Connection
from memferry.errors import MemferryError, StoreError, TransientError
from memferry.ledger import Ledger
from memferry.model import Limits, Range
from memferry.phases import plan as planning
from memferry.phases.migrate import Result, migrate
from memferry.phases.plan import Stop, make_plan, migration_id
from memferry.profiles import load_mapper
from memferry.urls import Secrets, StoreUrl, parse_url
from reference.strategies import documents as random_documents
from support.checker import differences, read_embedded
from support.documents import Document, documents, memory, vector, write_jsonl
from support.graph import Graph, move, options, roll
from testbed import forked
from testbed.neo4j import Neo4jServer
from testbed.proxy import FaultyProxy
from testbed.wait import until

NODE = load_mapper("native", "node")
DOCUMENT = load_mapper("native", "document")


@pytest.fixture
def graph(empty_neo4j: Neo4jServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.setattr(planning, "ROWS_PER_RANGE", 60)
    monkeypatch.setattr(planning, "BYTES_PER_RANGE", 20_000)
    return Graph(empty_neo4j, tmp_path)


@contextmanager
def opened_source(url: StoreUrl) -> Iterator[Neo4jSource]:
    store = Neo4jSource(url)
    try:
        yield store
    finally:
        store.close()


def refused(work: Callable[[], object]) -> MemferryError:
    with pytest.raises(MemferryError) as caught:
        work()
    return caught.value


def entity(identity: str, **members: Any) -> Document:
    return {"kind": "entity", "id": identity, "name": identity, **members}


def relation(identity: str, start: str, end: str, **members: Any) -> Document:
    return {"kind": "relation", "id": identity, "from_id": start, "to_id": end, **members}


def observation(identity: str, owner: str | None, **members: Any) -> Document:
    owned = {} if owner is None else {"owner_id": owner}
    return {"kind": "observation", "id": identity, "content": f"about {owner}", **owned, **members}


def people(count: int) -> list[Document]:
    """An ordinary graph whose relations all have their ends."""
    found: list[Document] = []
    for n in range(count):
        found.append(entity(f"e{n:04}", type="Person", confidence=n / 7))
        found.append(memory(f"m{n:04}", vectors=[vector([n / 8, 1.0, -0.5], model="m", normalized=False)]))
        found.append(observation(f"o{n:04}", f"e{n:04}"))
        found.append(relation(f"r{n:04}", f"e{n:04}", f"e{(n * 7) % count:04}", type="KNOWS"))
    return found


def counts(result: Result) -> dict[str, int]:
    assert result.verification is not None
    return result.verification.counts()


# -- round trips


def test_everything_comes_back(graph: Graph) -> None:
    origin, there = graph.file(documents(600, seed=1)), graph.embedded("there")
    move(origin, there)
    assert there.path is not None
    result = move(there, graph.url)
    assert (result.outcome, result.lossless) == ("proven", True)
    assert counts(result) == {"compared": 600, "missing": 0, "extra": 0, "different": 0, "foreign": 0}
    assert differences(read_embedded(there.path), graph.contents("back")) == []


@settings(max_examples=300)
@given(random_documents())
def test_any_document_becomes_properties_and_back(text: str) -> None:
    records, _, _ = DOCUMENT.decode(Batch.from_rows([("7", text.encode(), [])]))
    raw, _, quarantined, _ = NODE.encode(records, marker="m")
    assert quarantined == []
    for (key, body, vectors), (kind, _) in zip(raw.rows(), records.identities(), strict=True):
        for lists, spread in ((True, False), (False, False), (True, True), (False, True)):
            properties, numbers = layout.to_properties(key, body, vectors, lists=lists, spread=spread)
            assert lists or not numbers
            for value in properties.values():
                assert spread or type(value) in {str, int, float, bool} or all(type(item) is str for item in value)
            row = layout.from_properties(kind, {**properties, **dict(numbers)})
            back, bad, _ = NODE.decode(Batch.from_rows([row]))
            assert bad == []
            assert (back.identities(), back.digests()) == (records.identities(), records.digests())
            assert back.markers() == [("m", records.digests()[0])]


def test_what_no_index_and_no_list_of_numbers_takes(graph: Graph) -> None:
    long = "é" * 9000
    rows: list[Document] = [
        entity(long, name=long, type=long, scope={"user": long}),
        entity("sha256:" + "0" * 64),
        entity(""),
        entity("\0"),
        observation(long + "x", long),
        relation(long, long, long, type=long),
        relation("loop", "", "", vectors=[vector([0.5, math.nan])]),
        relation("first", "", "\0", type="T"),
        relation("second", "", "\0", type="T"),
        memory("4096", vectors=[vector([0.25] * 4096)]),
        memory("4097", vectors=[vector([0.25] * 4097)]),
        memory("twice", vectors=[vector([0.5, 1.0]), vector([0.5, 2.0]), vector([0.5, 1.0, 2.0])]),
        memory("odd", vectors=[vector([-0.0, 1e-45, 3.4028235e38]), vector([math.inf, 0.0, 0.0]), vector([])]),
        memory(
            "zero", vectors=[vector([0.0, 0.0], name="a`b\0c", model="", normalized=True), vector([1.0], name=long)]
        ),
    ]
    there = graph.embedded("there")
    move(graph.file(rows), there)
    assert move(there, graph.url).outcome == "proven"
    assert there.path is not None
    assert differences(read_embedded(there.path), graph.contents("back")) == []
    assert graph.cypher("MATCH (a {id: ''})-[r:MEMFERRY_RELATION]->(b) RETURN r.id, b.id ORDER BY r.id") == [
        ["first", "\0"],
        ["loop", ""],
        ["second", "\0"],
    ]
    assert graph.cypher("MATCH (n {id: '4096'}) RETURN size(n.vector_4096), n.vector_4097") == [[4096, None]]
    assert graph.cypher("MATCH (n {id: 'odd'}) RETURN n.vector_3") == [
        [list(struct.unpack("<3f", struct.pack("<3f", -0.0, 1e-45, 3.4028235e38)))]
    ]


def test_doubles_are_exact(graph: Graph) -> None:
    bits = [0x7FF8000000000001, 0xFFF8DEAD0000BEEF, 1, 0x8000000000000000, 0x7FF0000000000000, 0x3FF0000000000001]
    rows = [memory(f"{b:016x}", confidence=struct.unpack(">d", struct.pack(">Q", b))[0]) for b in bits]
    assert move(graph.file(rows), graph.url).outcome == "proven"
    found = graph.cypher("MATCH (n:MemferryMemory) RETURN n.id, n.confidence")
    assert {key: struct.pack(">d", value).hex() for key, value in found} == {f"{b:016x}": f"{b:016x}" for b in bits}


# -- the graph as an application sees it


def test_the_graph_is_what_the_page_says(graph: Graph) -> None:
    rows: list[Document] = [
        entity("a", type="Person", scope={"user": "ann"}, tags=["x", "y"], extra={"n": 1}, confidence=0.5, version=3),
        entity("b", type="Person"),
        relation("r", "a", "b", type="KNOWS", created_at="2024-06-15T10:30:00Z", vectors=[vector([1.0])]),
        observation("o", "a", unknown=None),
        memory("m", type="note", vectors=[vector([0.5, 0.25], name="title", model="x")]),
    ]
    result = move(graph.file(rows), graph.url)
    [(labels, properties)] = graph.cypher("MATCH (n:MemferryEntity {id: 'a'}) RETURN labels(n), properties(n)")
    marker = properties.pop("_memferry")
    assert set(labels) == {"MemferryEntity", "Person"}
    assert properties == {
        "id": "a",
        "name": "a",
        "type": "Person",
        "scope_user": "ann",
        "tags": ["x", "y"],
        "extra": '{"n":1}',
        "confidence": 0.5,
        "version": 3,
    }
    assert marker.split(" ")[0] == result.migration
    assert graph.cypher("MATCH (:Person {id: 'a'})-[r:MEMFERRY_RELATION]->(:Person {id: 'b'}) RETURN r.type") == [
        ["KNOWS"]
    ]
    assert graph.cypher("MATCH (o:MemferryObservation)-[:MEMFERRY_ABOUT]->(e) RETURN o.id, e.id, o.other") == [
        ["o", "a", '{"unknown":null}']
    ]
    [(held, said)] = graph.cypher("MATCH (m:note) RETURN m.vector_2_title, m.vectors")
    assert held == [0.5, 0.25]
    assert said == ('[{"name":"title","model":"x","dim":2,"normalized":null,"kind":0,"property":"vector_2_title"}]')


@pytest.mark.usefixtures("bare_neo4j")
def test_indexes_are_there_and_answer(graph: Graph) -> None:
    move(graph.file(people(40)), graph.url)
    assert graph.schema() == {
        "memferry_ledger_key",
        "memferry_text",
        *(f"memferry_{kind}_id" for kind in ("entity", "memory", "observation", "relation")),
        *(f"memferry_entity_{name}" for name in ("name", "type", "scope_user")),
        *(f"memferry_memory_{name}" for name in ("type", "scope_user", "vector_3")),
        "memferry_observation_owner_id",
        "memferry_relation_type",
    }
    near = (
        "CALL db.index.vector.queryNodes('memferry_memory_vector_3', 1, [0.125, 1.0, -0.5]) YIELD node RETURN node.id"
    )
    assert graph.cypher(near) == [["m0001"]]
    words = "CALL db.index.fulltext.queryNodes('memferry_text', 'e0007') YIELD node RETURN node.id ORDER BY node.id"
    assert graph.cypher(words) == [["e0007"], ["o0007"]]
    states = graph.cypher("SHOW INDEXES YIELD state RETURN DISTINCT state")
    assert states == [["ONLINE"]]


NASTY = [
    "`) DETACH DELETE n //",
    "\\u0060) DETACH DELETE n //",
    "a`b",
    "MemferryLedger",
    "memferryentity",
    "$x",
    "Ünï cødé",
    "a\0b",
]


@pytest.mark.usefixtures("bare_neo4j")
def test_names_are_only_ever_names(graph: Graph) -> None:
    rows = [entity(name, type=name, name=name, vectors=[vector([1.0, 0.5], name=name)]) for name in NASTY]
    rows += [relation(name, name, name, type=name, name=name) for name in NASTY]
    graph.cypher("CREATE (:Mine {id: 1})")
    assert move(graph.file(rows), graph.url).outcome == "proven"
    assert graph.cypher("MATCH (n:Mine) RETURN count(n)") == [[1]]
    found = {label for (label,) in graph.cypher("MATCH (n:MemferryEntity) UNWIND labels(n) AS label RETURN label")}
    assert found == {"MemferryEntity", *NASTY} - {"MemferryLedger", "memferryentity", "a\0b"}
    [(indexes,)] = graph.cypher("SHOW INDEXES YIELD name, type WHERE type = 'VECTOR' RETURN count(*)")
    assert indexes == len(NASTY)
    assert graph.contents("back").records.keys() == {(row["kind"], row["id"]) for row in rows}


def test_only_so_many_types_become_labels(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "_MAX_TYPE_LABELS", 5)
    assert move(graph.file([entity(f"e{n}", type=f"T{n}") for n in range(20)]), graph.url).outcome == "proven"
    [(labels,)] = graph.cypher("MATCH (n:MemferryEntity) UNWIND labels(n) AS x RETURN count(DISTINCT x)")
    assert labels == 6


# -- ends and owners


def test_relations_without_ends_are_quarantined(graph: Graph) -> None:
    rows: list[Document] = [
        entity("a"),
        relation("good", "a", "a"),
        relation("no end", "a", "gone"),
        relation("no start", "gone", "a"),
        {"kind": "relation", "id": "neither", "type": "T", "extra": {"n": 1e16}},
    ]
    origin = graph.file(rows)
    result = move(origin, graph.url)
    assert (result.outcome, result.exit_code) == ("not_proven", 1)
    books = result.books.of("relation")
    assert (books.read, books.written, books.quarantined) == (4, 1, 3)
    assert result.verification is not None
    assert result.verification.equal
    with graph.target() as store:
        kept = [row for _, row in Ledger(store.documents, result.migration).quarantined()]
    assert {(row.kind, row.id, row.reason) for row in kept} == {
        ("relation", identity, "missing-end") for identity in ("no end", "no start", "neither")
    }
    whole, bad, _ = DOCUMENT.decode(Batch.from_rows([(row.key, row.raw, []) for row in kept]))
    assert (len(whole), bad) == (3, [])
    write_jsonl(graph.folder / "origin.jsonl", [*rows[:3], rows[3], entity("gone")])
    again = move(origin, graph.url)
    assert (again.outcome, again.books.of("relation").written) == ("proven", 2)


def test_observations_find_their_entity_sooner_or_later(graph: Graph) -> None:
    rows = [
        observation("o", "late"),
        observation("p", "never"),
        observation("q", None),
        observation("r", "e"),
        entity("e"),
    ]
    origin = graph.file(rows)
    about = "MATCH (o:MemferryObservation)-[:MEMFERRY_ABOUT]->(e) RETURN o.id, e.id ORDER BY o.id"
    assert move(origin, graph.url).outcome == "proven"
    assert graph.cypher(about) == [["r", "e"]]
    rows = [*rows[:2], observation("q", "e"), observation("r", "late"), entity("e"), entity("late")]
    write_jsonl(graph.folder / "origin.jsonl", rows)
    assert move(origin, graph.url).outcome == "proven"
    assert graph.cypher(about) == [["o", "late"], ["q", "e"], ["r", "late"]]
    assert {key[1] for key in graph.contents("back").records if key[0] == "observation"} == {"o", "p", "q", "r"}


# -- running again


def test_a_second_run_writes_nothing(graph: Graph) -> None:
    origin = graph.file(people(50))
    first = move(origin, graph.url)
    second = move(origin, graph.url)
    assert (second.outcome, second.migration) == ("proven", first.migration)
    assert (second.books.total("written"), second.books.total("unchanged")) == (0, 200)


def test_a_sync_moves_relations_types_and_vectors(graph: Graph) -> None:
    rows = [entity(name, type="Old") for name in "abc"]
    rows += [relation("r", "a", "b"), memory("m", vectors=[vector([1.0, 2.0])]), memory("gone")]
    origin = graph.file(rows)
    move(origin, graph.url)
    graph.cypher("MATCH (n:MemferryEntity {id: 'a'}) SET n:Theirs")
    rows = [entity("a", type="New"), entity("b"), entity("c", type="Old"), relation("r", "b", "c")]
    rows += [memory("m", vectors=[vector([1.0, 2.0, 3.0])])]
    write_jsonl(graph.folder / "origin.jsonl", rows)
    result = move(origin, graph.url, delete=True, max_deletes_percent=50)
    assert (result.outcome, result.books.total("deleted"), result.books.total("written")) == ("proven", 1, 4)
    assert graph.cypher("MATCH (a)-[r:MEMFERRY_RELATION]->(b) RETURN a.id, r.id, b.id") == [["b", "r", "c"]]
    labels = graph.cypher("MATCH (n:MemferryEntity) RETURN n.id, labels(n)")
    assert {name: set(found) for name, found in labels} == {
        "a": {"MemferryEntity", "Theirs", "New"},
        "b": {"MemferryEntity"},
        "c": {"MemferryEntity", "Old"},
    }
    assert graph.cypher("MATCH (m:MemferryMemory) RETURN m.id, m.vector_2, m.vector_3") == [
        ["m", None, [1.0, 2.0, 3.0]]
    ]


def test_what_someone_changed_is_a_conflict_and_is_read(graph: Graph) -> None:
    origin = graph.file([entity("a"), entity("b", extra={"n": 1}), entity("c"), memory("m", vectors=[vector([1.0])])])
    move(origin, graph.url)
    graph.cypher("MATCH (n:MemferryEntity {id: 'a'}) SET n.color = 'red', n.when = date({year: 10000})")
    graph.cypher("MATCH (n:MemferryEntity {id: 'b'}) SET n.extra = 'no json'")
    graph.cypher("MATCH (n:MemferryMemory) REMOVE n.vector_1")
    write_jsonl(graph.folder / "origin.jsonl", [entity("a", type="x"), entity("b", type="x"), entity("c"), memory("m")])
    error = refused(lambda: move(origin, graph.url))
    assert error.code == "store-corrupt"
    graph.cypher("MATCH (n:MemferryEntity {id: 'b'}) SET n.extra = '{}'")
    result = move(origin, graph.url)
    assert {(c["kind"], c["id"]) for c in result.conflicts} == {("entity", "a"), ("entity", "b")}
    found = graph.contents("back").records["entity", "a"]["extra"]
    assert found == '{"$top":{"color":"red","when":{"$date":"+10000-01-01"}}}'


def test_an_entity_with_other_relationships_is_not_deleted(graph: Graph) -> None:
    origin = graph.file([entity("a"), entity("b"), observation("o", "a"), observation("p", "b")])
    move(origin, graph.url)
    graph.cypher("MATCH (n:MemferryEntity {id: 'a'}) CREATE (:Theirs)-[:LIKES]->(n)")
    write_jsonl(graph.folder / "origin.jsonl", [observation("o", "a"), observation("p", "b")])
    move(origin, graph.url, delete=True, max_deletes_percent=100)
    assert graph.cypher("MATCH (n:MemferryEntity) RETURN n.id") == [["a"]]
    assert graph.cypher("MATCH (:Theirs)-[r:LIKES]->() RETURN count(r)") == [[1]]
    assert graph.cypher("MATCH (o:MemferryObservation) RETURN count(o)") == [[2]]


def test_overwritten_records_come_back_with_rollback(graph: Graph) -> None:
    first = graph.file([entity("a", tags=["x"]), entity("b"), relation("r", "a", "b"), memory("only theirs")], "first")
    second = graph.file([entity("a"), entity("c"), relation("r", "c", "c"), relation("s", "a", "c")], "second")
    move(first, graph.url)
    before = graph.contents("before")
    result = move(second, graph.url, on_existing="overwrite")
    assert result.outcome == "proven"
    assert counts(result)["foreign"] == 2
    done = roll(graph.url, result.migration)
    assert (done.restored, done.kept) == (2, [])
    assert differences(before, graph.contents("after")) == []
    assert graph.cypher("MATCH (a)-[r:MEMFERRY_RELATION]->(b) RETURN a.id, r.id, b.id") == [["a", "r", "b"]]
    assert graph.cypher("MATCH (n:MemferryEntity) RETURN n.id ORDER BY n.id") == [["a"], ["b"]]


@pytest.mark.usefixtures("bare_neo4j")
def test_rollback_leaves_only_the_ledger(graph: Graph) -> None:
    graph.cypher("CREATE (:Mine {id: 1})")
    graph.cypher("CREATE INDEX mine FOR (n:Mine) ON (n.id)")
    result = move(graph.file(people(60)), graph.url)
    done = roll(graph.url, result.migration)
    assert (done.deleted, done.kept) == (240, [])
    assert graph.schema() == {"mine", "memferry_ledger_key"}
    labels = graph.cypher("MATCH (n) UNWIND labels(n) AS x RETURN DISTINCT x ORDER BY x")
    assert labels == [["MemferryLedger"], ["Mine"]]
    assert graph.cypher("MATCH (d:MemferryLedger) RETURN d.name") == [["run"]]


@pytest.mark.usefixtures("bare_neo4j")
def test_rollback_of_one_leaves_the_other_its_indexes(graph: Graph) -> None:
    first = move(graph.file(people(10), "first"), graph.url)
    second = move(graph.file([entity("z"), relation("zz", "z", "z")], "second"), graph.url)
    roll(graph.url, first.migration)
    assert {"memferry_entity_id", "memferry_relation_id"} <= graph.schema()
    assert "memferry_memory_id" not in graph.schema()
    assert graph.contents("rest").records.keys() == {("entity", "z"), ("relation", "zz")}
    roll(graph.url, second.migration)
    assert graph.cypher("MATCH (n:MemferryEntity) RETURN count(n)") == [[0]]


# -- plans, ranges, pages


@pytest.mark.usefixtures("bare_neo4j")
def test_a_plan_leaves_no_trace(graph: Graph) -> None:
    origin = open_source(graph.file(people(5)))
    with graph.target() as store:
        made = make_plan(origin, store, options())
        assert (made.records, made.target_records) == (20, 0)
        assert made.migration == migration_id(origin, store)
    assert graph.schema() == set()
    assert graph.cypher("MATCH (n) RETURN count(n)") == [[0]]


def test_ranges_cover_everything_once(graph: Graph) -> None:
    names = [*(f"e{n:03}" for n in range(200)), "", "\0", "\ud7ff", "\uffff", "\U0001f600", "é", "e\u0301", "~"]
    move(graph.file([entity(name) for name in names]), graph.url)
    with opened_source(graph.url) as store:
        stream = store.streams()[0]
        assert stream.rows == len(names)
        cuts = store.split(stream, 9)
        assert len(cuts) == 9
        found: list[str] = []
        sizes = []
        for number, (start, end) in enumerate(cuts):
            part, cursor, size = Range(number, stream.name, start, end), None, 0
            while True:
                page = store.reader().read(part, cursor, Limits(records=7))
                assert page.read <= 7
                found += [identity for _, identity in page.records.identities()]
                size += page.read
                cursor = page.next
                if cursor is None:
                    break
            sizes.append(size)
        assert found == sorted(names, key=str.encode)
        assert max(sizes) - min(sizes) <= 9


def test_pages_are_bounded_in_bytes(graph: Graph) -> None:
    move(graph.file([memory(f"m{n:02}", vectors=[vector([0.5] * 250)]) for n in range(30)]), graph.url)
    with opened_source(graph.url) as store:
        part = Range(0, "memory", None, None)
        page = store.reader().read(part, None, Limits(records=100, size_bytes=10_000))
        assert 8 <= page.read <= 10
        following = store.reader().read(part, page.next, Limits(records=100))
        assert page.read + following.read == 30
        assert following.next is None


@pytest.mark.parametrize("rows", [0, 300])
def test_pages_come_from_the_index(graph: Graph, rows: int) -> None:
    with graph.target() as store:
        store.prepare("m", ())
    if rows:
        move(graph.file(people(rows)), graph.url)

    def operators(plan: dict[str, Any]) -> set[str]:
        below = [operators(child) for child in plan.get("children", [])]
        return {plan["operatorType"].partition("@")[0]}.union(*below)

    with graph.server.driver() as driver, driver.session(database="neo4j") as session:
        for kind in ("entity", "memory", "observation", "relation"):
            for after in (True, False):
                for until in (True, False):
                    text = source.page_statement(kind, after=after, until=until)
                    explained = session.run(f"EXPLAIN {text}", start="a", until="b", limit=5).consume()
                    assert explained.plan is not None
                    found = operators(explained.plan)
                    assert any("UniqueIndexSeekByRange" in name for name in found), found
                    assert not any(name.endswith("Scan") or name in {"Sort", "Top"} for name in found), found


def test_a_source_cannot_be_written(graph: Graph) -> None:
    move(graph.file([entity("a")]), graph.url)
    with opened_source(graph.url) as store:
        error = refused(lambda: store._connection.read("CREATE (n:X) RETURN n"))
        assert isinstance(error, StoreError)
    assert graph.cypher("MATCH (n:X) RETURN count(n)") == [[0]]


# -- refusals


def test_a_wrong_password_is_refused(graph: Graph) -> None:
    for work in (Neo4jTarget, Neo4jSource):
        error = refused(lambda work=work: work(graph.at(password="wrong")))  # type: ignore[misc]
        assert (error.code, error.exit_code) == ("unauthorized", 2)
        assert "wrong" not in str(error)
    url = replace(graph.url, secrets=Secrets())
    assert refused(lambda: Neo4jTarget(url)).code == "unauthorized"


def test_a_user_whom_others_locked_out_is_tried_again(graph: Graph) -> None:
    wrong = replace(graph.url, secrets=Secrets(password="wrong"))
    for _ in range(4):
        with pytest.raises(MemferryError):
            Connection(wrong)
    with pytest.raises(TransientError) as caught:
        Connection(graph.url)
    assert caught.value.code == "throttled"

    def opens() -> bool:
        try:
            Connection(graph.url).close()
        except TransientError:
            return False
        return True

    until(opens, what="the end of the lock")


def test_a_server_that_is_not_there_is_transient() -> None:
    error = refused(lambda: Neo4jTarget(parse_url("neo4j://127.0.0.1:1")))
    assert isinstance(error, TransientError)
    assert error.code == "unavailable"


def test_a_database_that_is_not_there_is_refused(graph: Graph) -> None:
    error = refused(lambda: Neo4jTarget(replace(graph.url, name="other")))
    assert (error.code, error.exit_code) == ("store-missing", 2)


def test_the_driver_is_an_extra() -> None:
    code = (
        "import sys; sys.modules['neo4j'] = None\n"
        "from memferry.backends.neo4j import Neo4jTarget\n"
        "from memferry.urls import parse_url\n"
        "try: Neo4jTarget(parse_url('neo4j://localhost'))\n"
        "except Exception as e: print(type(e).__name__, e.code, e.hint)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "RefusedError extra-missing pip install memferry[neo4j]"


def test_what_is_no_store_of_ours_is_refused(graph: Graph) -> None:
    graph.cypher("CREATE (:Person {id: 'a'})")
    error = refused(lambda: Neo4jSource(graph.url))
    assert (error.code, error.exit_code) == ("store-missing", 2)
    assert "plain" in (error.hint or "")
    move(graph.file([entity("a")]), graph.url)
    graph.cypher("CREATE (:MemferryEntity {id: 5})")
    assert refused(lambda: Neo4jSource(graph.url)).code == "store-format"
    graph.cypher("MATCH (n:MemferryEntity {id: 5}) DELETE n")
    graph.cypher("DROP CONSTRAINT memferry_entity_id")
    assert "MemferryEntity" in str(refused(lambda: Neo4jSource(graph.url)))
    graph.cypher("MATCH (s:MemferryStore) SET s.format = 2")
    assert refused(lambda: Neo4jSource(graph.url)).code == "format-newer"
    assert refused(lambda: Neo4jTarget(graph.url)).code == "format-newer"
    assert refused(lambda: Neo4jTarget(graph.at("?profile=plain"))).code == "profile"
    assert refused(lambda: Neo4jSource(graph.at("?profile=mem0"))).code == "profile"


# -- the ledger


def test_a_relationship_that_no_reader_sees_is_no_proof(graph: Graph) -> None:
    records: list[Document] = [{"kind": "entity", "id": one} for one in ("a", "b")]
    records += [{"kind": "relation", "id": f"r{i}", "from_id": "a", "to_id": "b"} for i in range(3)]
    assert move(graph.file(records), graph.url).outcome == "proven"
    graph.cypher("MATCH ()-[r:MEMFERRY_RELATION {id: 'r1'}]->() REMOVE r.id")
    result = move(graph.url, graph.embedded("copy"))
    assert result.verification is not None
    assert (result.outcome, result.verification.unread, result.verification.compared) == ("not_proven", 1, 4)


def test_documents(graph: Graph) -> None:
    long = "x" * 9000
    with graph.target() as store:
        held = store.documents
        assert held.get("m", "a") is None
        assert held.scan("m", "", "", 10) == []
        for key in ("b/2", "b/1", "b/\uffff", "b/\U0001f600", "a", f"b/{long}1", f"b/{long}2"):
            held.put("m", key, f"value of {key[:5]}")
        held.put("n", "b/0", "of another")
        keys = [key for key, _ in held.scan("m", "b/", "", 10)]
        assert keys[:2] + keys[-2:] == ["b/1", "b/2", "b/\uffff", "b/\U0001f600"]
        assert set(keys[2:4]) == {f"b/{long}1", f"b/{long}2"}
        paged: list[str] = []
        while rows := held.scan("m", "b/", paged[-1] if paged else "", 2):
            paged += [key for key, _ in rows]
        assert paged == keys
        held.put("m", "a", "new")
        assert held.get("m", "a") == "new"
        assert held.migrations() == ["m", "n"]
        held.delete("m", "b/")
        assert held.scan("m", "", "", 10) == [("a", "new")]
        assert held.get("n", "b/0") == "of another"


def test_a_transaction_holds_all_or_nothing(graph: Graph) -> None:
    with graph.target() as store:
        with pytest.raises(ZeroDivisionError), store.transaction():
            store.documents.put("m", "a", "1")
            assert store.documents.get("m", "a") == "1"
            raise ZeroDivisionError
        assert store.documents.get("m", "a") is None
        with store.transaction():
            store.documents.put("m", "a", "2")
        assert store.documents.get("m", "a") == "2"


def test_a_lock_that_was_looked_at_cannot_be_taken_before_the_commit(graph: Graph) -> None:
    with graph.target() as mine, graph.target() as other:
        mine.documents.put("m", "lock", "mine")
        other.documents.put("m", "other", "its connection and schema are ready")
        order: list[str] = []

        def take() -> None:
            with other.transaction():
                other.documents.put("m", "lock", "other")
                order.append("taken")

        thread = threading.Thread(target=take)
        with mine.transaction():
            assert mine.documents.get("m", "lock") == "mine"
            thread.start()
            time.sleep(1.0)
            order.append("committed")
        thread.join(90)
        assert order == ["committed", "taken"]
        assert mine.documents.get("m", "lock") == "other"


# -- faults


def test_an_interrupted_run_goes_on(graph: Graph) -> None:
    origin = graph.file(people(80))
    stop = Stop()
    pages = 0

    def progress(phase: str, *_: object) -> None:
        nonlocal pages
        pages += phase == "copy"
        if pages == 4:
            stop.set()

    with pytest.raises(MemferryError) as caught:
        migrate(origin, graph.url, options(), progress=progress, stop=stop)
    assert caught.value.code == "interrupted"
    result = move(origin, graph.url)
    assert (result.outcome, result.resumed) == ("proven", True)
    assert (result.books.total("read"), result.books.total("written")) == (320, 320)


def test_records_are_not_printed_for_the_log_of_the_driver(graph: Graph, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="neo4j"):
        move(graph.file([memory("m", content="told in confidence")]), graph.url)
    sent = [record.getMessage() for record in caplog.records if "C: RUN" in record.msg]
    assert any("1 items" in line for line in sent)
    assert not any("told in confidence" in line for line in sent)


@pytest.mark.parametrize("failpoint", ["written:3", "committed:4", "before-finish:1"])
def test_a_killed_run_goes_on(graph: Graph, failpoint: str) -> None:
    origin = graph.file(people(60))
    env = {
        **os.environ,
        "MEMFERRY_FAILPOINT": failpoint,
        "MEMFERRY_TARGET_PASSWORD": graph.server.password,
    }
    code = (
        "import os\nfrom dataclasses import replace\nfrom memferry.phases import plan\nplan.ROWS_PER_RANGE = 60\n"
        "plan.BYTES_PER_RANGE = 20_000\nfrom memferry.phases.migrate import migrate\n"
        "from memferry.model import Limits\n"
        "from memferry.urls import Secrets, parse_url\nimport sys\n"
        "target = replace(parse_url(sys.argv[2]), secrets=Secrets(password=os.environ['MEMFERRY_TARGET_PASSWORD']))\n"
        "migrate(parse_url(sys.argv[1]), target, plan.Options(limits=Limits(records=50)))\n"
    )
    done = forked.run("-c", code, origin.text, graph.url.text, environment=env)
    assert done.returncode == -9, done.stderr
    result = move(origin, graph.url)
    assert (result.outcome, result.resumed) == ("proven", True)
    assert (result.books.total("read"), result.books.total("written")) == (240, 240)
    assert graph.cypher("MATCH (n:MemferryEntity) RETURN count(n)") == [[60]]


def test_a_commit_without_an_answer_is_done_again(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    commit, left = neo4j.Transaction.commit, 12

    def lose_the_answer(self: neo4j.Transaction) -> None:
        nonlocal left
        commit(self)
        left -= 1
        if left > 0 and left % 3 == 0:
            raise neo4j.exceptions.IncompleteCommit("lost")

    monkeypatch.setattr(neo4j.Transaction, "commit", lose_the_answer)
    result = move(graph.file(people(80)), graph.url)
    assert left < 0
    assert result.outcome == "proven"
    assert result.books.total("read") == 320


@pytest.mark.ends_neo4j
def test_a_server_that_dies_and_comes_back_is_found_again(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planning, "BYTES_PER_RANGE", 1 << 20)
    monkeypatch.setattr(retry, "ATTEMPTS", 40)  # A server on a busy machine takes its time.
    origin = graph.file(people(400))
    starts: list[threading.Thread] = []

    def progress(phase: str, done: int, _: int | None) -> None:
        if phase == "copy" and done >= 500 and not starts:
            graph.server.kill9()
            starts.append(threading.Thread(target=graph.server.start))
            starts[0].start()

    try:
        result = migrate(origin, graph.url, options(), progress=progress)
    finally:
        for start in starts:
            start.join()
    assert starts
    assert result.outcome == "proven"
    assert result.books.total("read") == 1600


def test_connections_that_are_cut_are_made_again(graph: Graph, proxy: Callable[[int], FaultyProxy]) -> None:
    line = proxy(graph.server.port)
    url = graph.at(port=line.port)
    cuts = 0

    def progress(phase: str, *_: object) -> None:
        nonlocal cuts
        if phase in {"copy", "verify"} and cuts < 6:
            cuts += 1
            line.cut()

    result = migrate(graph.file(people(100)), url, options(), progress=progress)
    assert cuts == 6
    assert result.outcome == "proven"


# -- graphs of others


def test_a_graph_of_others_is_read_whole(graph: Graph) -> None:
    graph.cypher(
        "CREATE (a:Person:Actor {name: 'Ann', born: date('1970-02-03'), "
        "  seen: datetime('2024-03-31T01:59:59.123456789+01:00[Europe/Berlin]'), "
        "  at: localdatetime('2024-01-02T03:04:05'), time: time('10:20:30.5+02:00'), local: localtime('10:20'), "
        "  span: duration('P1M2DT3.000000004S'), "
        "  place: point({latitude: 1.5, longitude: 2.5}), cube: point({x: 1, y: 2, z: 3}), score: 0.1, "
        "  big: 9223372036854775807, yes: true, list: [1, 2], dates: [date('2024-01-01')], "
        "  `$odd``key`: 'x', empty: []}), "
        "(b:Movie {name: 'Film', content: 'a story', blob: $blob, nan: $nan}), (c {name: 5}), "
        "(a)-[:ACTED_IN {role: 'x', name: 'part'}]->(b), (a)-[:ACTED_IN]->(b), (b)-[:`SEE ALSO`]->(b) "
        "WITH b CALL db.create.setNodeVectorProperty(b, 'embedding', [0.1, 0.2])",
        blob=b"\0\xff",
        nan=math.nan,
    )
    found = graph.contents("plain", "?profile=plain").records
    entities = {fields["name"]: (key[1], fields) for key, fields in found.items() if key[0] == "entity"}
    assert len(found) == 6
    ann, film, other = entities["Ann"], entities["Film"], entities[None]
    assert film[1]["type"] == "Movie"
    assert film[1]["content"] == "a story"
    assert film[1]["extra"] == '{"blob":{"$bytes":"AP8="},"nan":{"$f64":"7ff8000000000000"}}'
    assert len(film[1]["vectors"]) == 1
    assert other[1]["extra"] == '{"$labels":[],"name":5}'
    for text in (
        '"$labels":["Actor","Person"]',
        '"born":{"$date":"1970-02-03"}',
        '"seen":{"$datetime":"2024-03-31T01:59:59.123456789+01:00[Europe/Berlin]"}',
        '"at":{"$localdatetime":"2024-01-02T03:04:05.000000000"}',
        '"time":{"$time":"10:20:30.500000000+02:00"}',
        '"local":{"$localtime":"10:20:00.000000000"}',
        '"span":{"$duration":"P1M2DT3.000000004S"}',
        '"place":{"$point":{"coordinates":[2.5,1.5],"srid":4326}}',
        '"cube":{"$point":{"coordinates":[1.0,2.0,3.0],"srid":9157}}',
        '"score":0.1',
        '"big":9223372036854775807',
        '"list":[1,2]',
        '"dates":[{"$date":"2024-01-01"}]',
        '"$$odd`key":"x"',
        '"empty":[]',
    ):
        assert text in ann[1]["extra"]
    relations = [
        (fields["type"], fields["from_id"], fields["to_id"], fields["name"], fields["extra"])
        for key, fields in found.items()
        if key[0] == "relation"
    ]
    expected = [
        ("ACTED_IN", ann[0], film[0], None, None),
        ("ACTED_IN", ann[0], film[0], "part", '{"role":"x"}'),
        ("SEE ALSO", film[0], film[0], None, None),
    ]
    assert sorted(map(repr, relations)) == sorted(map(repr, expected))


def test_temporal_values_that_the_driver_has_no_type_for(graph: Graph) -> None:
    graph.cypher(
        "CREATE (a:Far {name: 'far', then: datetime({year: 12000, timezone: '+02:00'}), ago: date({year: -44}), "
        "  n: 1.0, all: [date({year: 20000})], span: duration('P1Y'), `at`: localtime('10:20')})"
        "-[:R {d: date({year: -1})}]->(a)"
    )
    found = graph.contents("plain", "?profile=plain").records
    assert {key[0]: fields["extra"] for key, fields in found.items()} == {
        "entity": '{"ago":{"$date":"-0044-01-01"},"all":[{"$date":"+20000-01-01"}],'
        '"at":{"$localtime":"10:20:00.000000000"},"n":1.0,"span":{"$duration":"P1Y"},'
        '"then":{"$datetime":"+12000-01-01T00:00:00+02:00"}}',
        "relation": '{"d":{"$date":"-0001-01-01"}}',
    }


def test_the_plain_profile_gives_back_what_it_read() -> None:
    plain = load_mapper("plain", "node")
    for body in (
        '{"$kind":"entity","$type":"A","content":5,"embedding":[0.5,1.0],"name":"n","x":{"$date":"2024-01-01"}}',
        '{"$kind":"entity","$labels":["A","B"],"embedding":[0.1],"name":5}',
        '{"$from":"1","$kind":"relation","$to":"2","$type":"T","$$from":"theirs","created_at":"2024-01-01"}',
    ):
        records, bad, _ = plain.decode(Batch.from_rows([("k", body.encode(), [])]))
        assert bad == []
        [(key, back, vectors)] = plain.encode(records)[0].rows()
        assert (key, json.loads(back), vectors) == ("k", json.loads(body), [])


def test_a_graph_of_others_in_ranges_and_pages(graph: Graph) -> None:
    graph.cypher("UNWIND range(1, 500) AS n CREATE (:Thing {n: n})")
    graph.cypher("MATCH (n:Thing) WHERE n.n % 3 = 0 OR 100 < n.n < 300 DELETE n")
    graph.cypher("MATCH (n:Thing) WITH collect(n) AS all UNWIND all AS n WITH n, all[0] AS hub CREATE (n)-[:TO]->(hub)")
    [(left,)] = graph.cypher("MATCH (n:Thing) RETURN count(n)")
    found = graph.contents("plain", "?profile=plain").records
    assert sum(1 for key in found if key[0] == "entity") == left
    assert sum(1 for key in found if key[0] == "relation") == left


def test_our_ledger_is_nobodys_memory(graph: Graph) -> None:
    move(graph.file([entity("a", extra={"n": 1}), memory("m")]), graph.url)
    found = graph.contents("plain", "?profile=plain").records
    assert {fields["name"] for fields in found.values()} == {"a", None}
    assert not any('memferry"' in (fields["extra"] or "") for fields in found.values())


def test_a_graph_of_others_moves_into_our_own(graph: Graph) -> None:
    graph.cypher("CREATE (a:Person {name: 'Ann'})-[:KNOWS {since: date('2020-01-01')}]->(:Person {name: 'Bob'})")
    there = graph.embedded("there")
    assert move(graph.at("?profile=plain"), there).outcome == "proven"
    graph.cypher("MATCH (n) DETACH DELETE n")
    assert move(there, graph.url).outcome == "proven"
    assert graph.cypher("MATCH (a:Person)-[r:MEMFERRY_RELATION]->(b:Person) RETURN a.name, r.type, b.name") == [
        ["Ann", "KNOWS", "Bob"]
    ]
