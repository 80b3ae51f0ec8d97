"""A database that others use too: applications, other migrations, and whoever changes a property of ours."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import neo4j
import pytest

import memferry
from memferry import Record, StoreError
from memferry.backends.neo4j.connection import Connection
from memferry.ledger import Ledger
from memferry.phases import stages
from memferry.phases.plan import Plan
from memferry.phases.stages import Run
from memferry.urls import parse_url
from support.documents import Document, memory, vector
from support.graph import Graph, entity, move, relation, roll
from testbed.neo4j import Neo4jServer

LEDGER = "memferry_ledger_key"
CONSTRAINTS = {f"memferry_{kind}_id" for kind in ("entity", "memory", "observation", "relation")}


@pytest.fixture
def graph(empty_neo4j: Neo4jServer, tmp_path: Path) -> Graph:
    return Graph(empty_neo4j, tmp_path)


@pytest.fixture
def bare(bare_neo4j: Neo4jServer, tmp_path: Path) -> Graph:
    """Without constraints and indexes that an earlier test made."""
    return Graph(bare_neo4j, tmp_path)


def ids(store: memferry.Store) -> set[str]:
    return {record.id for record in store.list()}


# -- what a rollback leaves to others


def test_a_rollback_leaves_an_application_its_store(bare: Graph) -> None:
    moved = move(bare.file([memory("m1", content="tea"), memory("m2")]), bare.url)
    with memferry.open(bare.url) as store:
        store.put(Record("memory", "early", content="gone before the rollback"))
        store.delete("memory", "early")
        assert roll(bare.url, moved.migration).deleted == 2
        assert bare.schema() >= CONSTRAINTS
        store.put(Record("memory", "late", content="more tea"))
        assert ids(store) == {"late"}
        assert [hit.record.id for hit in store.search("tea")] == ["late"]
        with memferry.open(bare.url) as other:
            assert ids(other) == {"late"}
        assert move(bare.url, parse_url(str(bare.folder / "there.db"))).outcome == "proven"
        assert store.delete("memory", "late")


def test_an_application_that_has_only_read_makes_a_store_of_its_own(bare: Graph) -> None:
    moved = move(bare.file([memory("m1", content="tea")]), bare.url)
    with memferry.open(bare.url) as store:
        assert [hit.record.id for hit in store.search("tea")] == ["m1"]
        roll(bare.url, moved.migration)
        assert bare.schema() == {LEDGER}
        assert (ids(store), store.search("tea")) == (set(), [])
        store.put(Record("memory", "late", content="more tea"))
        assert bare.schema() >= CONSTRAINTS
        assert ids(store) == {"late"}
        assert [hit.record.id for hit in store.search("tea")] == ["late"]


def test_a_rollback_leaves_a_migration_that_has_begun_its_store(bare: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    first = move(bare.file([memory("m1")], "first"), bare.url)
    prepare = stages.prepare

    def then_roll_the_first_back(run: Run, plan: Plan) -> None:
        prepare(run, plan)
        assert roll(bare.url, first.migration).deleted == 1
        assert bare.schema() >= CONSTRAINTS

    monkeypatch.setattr(stages, "prepare", then_roll_the_first_back)
    second = move(bare.file([memory("m2")], "second"), bare.url)
    assert second.outcome == "proven"
    assert bare.cypher("MATCH (s:MemferryStore) RETURN s.format") == [[1]]
    # What the first one made and could not drop goes with the last one.
    assert roll(bare.url, second.migration).deleted == 1
    assert bare.schema() == {LEDGER}
    assert bare.cypher("MATCH (s:MemferryStore) RETURN s.format") == []


def test_nobody_begins_between_a_look_and_a_drop(bare: Graph, monkeypatch: pytest.MonkeyPatch) -> None:
    first = move(bare.file([memory("m1")]), bare.url)
    write = Connection.write
    with bare.target() as other:

        def begin() -> None:
            with other.transaction():
                Ledger(other.documents, "other").save_run(number=1, state="copying")
            other.prepare("other", ())

        thread = threading.Thread(target=begin)

        def drop(self: Connection, text: str, **parameters: Any) -> list[list[Any]]:
            if text.startswith("DROP") and not thread.ident:
                thread.start()
                thread.join(3.0)  # Long enough for who does not wait.
            return write(self, text, **parameters)

        monkeypatch.setattr(Connection, "write", drop)
        roll(bare.url, first.migration)
        assert thread.ident
        thread.join()
    assert bare.schema() >= CONSTRAINTS
    assert bare.cypher("MATCH (s:MemferryStore) RETURN s.format") == [[1]]


def test_a_run_ends_with_its_constraints_whoever_dropped_them(bare: Graph) -> None:
    origin = bare.file([memory("m1")])
    move(origin, bare.url)
    bare.cypher("DROP CONSTRAINT memferry_memory_id")
    with bare.target() as store:
        store.finish("m", [])
        assert "memferry_memory_id" not in bare.schema()
        store.finish("m", list(stages.whole(store.source() or pytest.fail("no source"))))
    assert bare.schema() >= CONSTRAINTS


def test_records_are_there_though_their_store_node_is_not(graph: Graph) -> None:
    move(graph.file([memory("m1"), memory("m2")]), graph.url)
    graph.cypher("MATCH (s:MemferryStore) DELETE s")
    with memferry.open(graph.url) as store:
        assert ids(store) == {"m1", "m2"}
        assert store.delete("memory", "m1")
    assert graph.contents("there").records.keys() == {("memory", "m2")}


# -- what others added to a record


def test_properties_that_others_added_come_back_with_rollback(graph: Graph) -> None:
    rows: list[Document] = [
        entity("a", type="Person", vectors=[vector([0.5, 0.25])], nested={"n": 1}, unknown=None),
        memory("m", type="Fact", tags=["x"]),
        relation("r", "a", "a"),
    ]
    move(graph.file(rows, "first"), graph.url)
    graph.cypher(
        "MATCH (n:MemferryEntity) SET n.reviewed = true, n.due = date('2024-05-01'), n.score = 1.5, n.vector_9 = [1.5],"
        " n.`$odd``key` = 'x', n.place = point({x: 1, y: 2}), n.blob = $blob, n.many = [1, 2], n.title = $long,"
        " n.at = datetime('2024-01-01T00:00:00Z'), n.zoned = datetime('2024-01-01T00:00:00[UTC]')",
        blob=b"\0\xff",
        long="x" * 9000,
    )
    graph.cypher("MATCH (n:MemferryMemory) SET n.tags = [1, 2], n.created_at = datetime('2024-01-01T00:00:00+02:00')")
    graph.cypher("MATCH ()-[n:MEMFERRY_RELATION]->() SET n.weight = 0.5, n.since = localtime('10:20'), n.version = 'x'")
    everything = (
        "MATCH (n) WHERE n.id IN ['a', 'm'] RETURN labels(n), properties(n) ORDER BY n.id "
        "UNION ALL MATCH ()-[n:MEMFERRY_RELATION]->() RETURN [type(n)] AS `labels(n)`, properties(n)"
    )
    before = graph.cypher(everything)
    assert before[0][1]["other"] == '{"nested":{"n":1},"unknown":null}'
    other = graph.file([entity("a", name="b"), memory("m", content="b"), relation("r", "a", "a", type="b")], "second")
    result = move(other, graph.url, on_existing="overwrite")
    assert result.outcome == "proven"
    assert all("reviewed" not in properties for _, properties in graph.cypher(everything))
    assert roll(graph.url, result.migration).restored == 3
    assert graph.cypher(everything) == before


def test_times_that_the_driver_does_not_tell_apart_are_read_page_by_page(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = 120
    move(graph.file([memory(f"m{n}") for n in range(rows)]), graph.url)
    graph.cypher(
        "MATCH (n:MemferryMemory) SET n.z = datetime('2024-01-01T00Z'), n.utc = datetime('2024-01-01T00[UTC]')"
    )
    asked, run = [], neo4j.Session.run

    def counted(session: neo4j.Session, text: Any, *arguments: Any, **parameters: Any) -> neo4j.Result:
        asked.append(text)
        return run(session, text, *arguments, **parameters)

    monkeypatch.setattr(neo4j.Session, "run", counted)
    there = graph.folder / "there.jsonl"
    assert move(graph.url, parse_url(str(there))).outcome == "proven"
    text = there.read_text()
    assert text.count('"z":{"$datetime":"2024-01-01T00:00:00.000000000+00:00"}') == rows
    assert text.count('"utc":{"$datetime":"2024-01-01T00:00:00.000000000+00:00[UTC]"}') == rows
    assert len(asked) < rows


def test_fields_that_no_property_is_read_as_stay_where_they_are(graph: Graph) -> None:
    # As properties they would be other fields, no names, or too long for an index.
    rows: list[Document] = [
        {"kind": "memory", "id": "m", "other": "o", "full_id": "f", "scope_user": 5, "": 1, "a\0": 1},
        {"kind": "entity", "id": "e", "$name": ["n" * 9000], "$type": {"$bytes": "AAAA"}, "vector_1": 1, "x" * 2000: 1},
    ]
    rows[1]["vectors"] = [vector([0.5])]
    move(graph.file(rows, "first"), graph.url)
    before = graph.contents("before")
    result = move(graph.file([memory("m"), entity("e")], "second"), graph.url, on_existing="overwrite")
    assert roll(graph.url, result.migration).restored == 2
    assert graph.contents("after").records == before.records


# -- what others made of a property of ours

VECTOR = '{"name":"","model":null,"dim":2,"normalized":null,"kind":0,"data":"AAAAAAAAAAA="}'
IN_LIST = '{"name":"","model":null,"dim":2,"normalized":null,"kind":0,"property":"vector_2"}'
TORN: dict[str, dict[str, Any]] = {
    "a list of texts": {"vector_2": ["a", "b"]},
    "bytes": {"vector_2": b"abcd"},
    "no list of vectors": {"vectors": "5"},
    "an object": {"vectors": "{}"},
    "no text": {"vectors": 5},
    "a list named twice": {"vectors": f"[{IN_LIST},{IN_LIST}]"},
    "deep": {"vectors": "[" * 100_000},
    "a name": {"vectors": f"[{VECTOR}]".replace('""', "1", 1)},
    "half a character": {"vectors": f"[{VECTOR}]".replace('""', '"\\ud800"', 1)},
    "a dimension": {"vectors": f"[{VECTOR}]".replace('"dim":2', '"dim":-2')},
    "a large dimension": {"vectors": f"[{VECTOR}]".replace('"dim":2', '"dim":4294967296')},
    "another dimension": {"vectors": f"[{VECTOR}]".replace('"dim":2', '"dim":3')},
    "a kind": {"vectors": f"[{VECTOR}]".replace('"kind":0', '"kind":9')},
    "no indices": {"vectors": f"[{VECTOR}]".replace('"dim":2', '"dim":0').replace('"kind":0', '"kind":1')},
    "a flag": {"vectors": f"[{VECTOR}]".replace('"normalized":null', '"normalized":1')},
    "a model": {"vectors": f"[{VECTOR}]".replace('"model":null', '"model":[]')},
}


def test_vectors_that_someone_wrote_over_stop_nobody(graph: Graph) -> None:
    rows = [memory(case, content="tea", vectors=[vector([0.5, 0.25])]) for case in TORN]
    moved = move(graph.file([*rows, memory("whole")]), graph.url)
    graph.cypher("UNWIND $rows AS row MATCH (n:MemferryMemory {id: row[0]}) SET n += row[1]", rows=[*TORN.items()])

    def read() -> list[Record]:
        with memferry.open(graph.url) as store:
            assert ids(store) == {*TORN, "whole"}
            return [record for record in store.get_many([("memory", case) for case in TORN]) if record]

    before = read()
    assert {(record.content, record.vectors) for record in before} == {("tea", ())}
    # Under its own name no native document could hold it.
    assert all("vectors'" in record.unmapped for record in before)
    there = move(graph.url, parse_url(str(graph.folder / "there.db")))
    assert (there.outcome, there.books.total("written")) == ("not_proven", 1)
    assert there.books.total("quarantined") == len(TORN)
    origin = graph.file([memory(case, content="coffee") for case in (*TORN, "whole")])
    assert {conflict["id"] for conflict in move(origin, graph.url).conflicts} == {*TORN}
    over = move(graph.file([memory(case) for case in TORN], "second"), graph.url, on_existing="overwrite")
    assert over.outcome == "proven"
    assert roll(graph.url, over.migration).restored == len(TORN)
    assert read() == before
    done = roll(graph.url, moved.migration)
    assert (done.deleted, {identity for _, identity in done.kept}) == (1, {*TORN})


def test_fields_that_someone_wrote_over_are_a_field(graph: Graph) -> None:
    texts = ['[["a", 1]]', '{"a": "\\ud800"}', "{" * 100_000, '[["a", 1], 5]']
    moved = move(graph.file([memory(str(n), nested={"n": 1}) for n in range(len(texts))]), graph.url)
    graph.cypher(
        "UNWIND $rows AS row MATCH (n:MemferryMemory {id: row[0]}) SET n.other = row[1]",
        rows=[[str(n), text] for n, text in enumerate(texts)],
    )
    with memferry.open(graph.url) as store:
        assert [record.unmapped for record in store.list()] == [{"other": text} for text in texts]
    assert len(roll(graph.url, moved.migration).kept) == len(texts)


def test_an_id_that_someone_wrote_over_is_refused(graph: Graph) -> None:
    move(graph.file([memory("m1")]), graph.url)
    graph.cypher("MATCH (n:MemferryMemory) SET n.full_id = date('2024-05-01')")
    with memferry.open(graph.url) as store, pytest.raises(StoreError) as caught:
        store.get("memory", "m1")
    assert caught.value.code == "store-corrupt"


def test_an_owner_or_an_end_that_is_no_text_ties_nothing(graph: Graph) -> None:
    rows: list[Document] = [
        entity("e"),
        {"kind": "observation", "id": "o", "$owner_id": 5},
        {"kind": "relation", "id": "r", "$from_id": 5, "to_id": "e"},
    ]
    result = move(graph.file(rows), graph.url, max_quarantined=1)
    assert (result.books.total("written"), result.books.total("quarantined")) == (2, 1)
    assert graph.contents("there").records.keys() == {("entity", "e"), ("observation", "o")}
