"""Writing graphs of others: what lies there afterwards, what cannot, and that nothing of ours does."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memferry._native import Batch
from memferry.backends import open_target
from memferry.backends.neo4j.values import UnheldError, canonical, escaped, native
from memferry.errors import MemferryError, RefusedError, StoreError
from memferry.ledger import Ledger
from memferry.model import Limits
from memferry.phases import plan as planning
from memferry.phases.migrate import plan_only
from memferry.phases.plan import Options
from memferry.phases.reading import read_stream
from memferry.urls import parse_url
from support.checker import differences, read_embedded
from support.documents import Document, memory, vector, write_jsonl
from support.graph import Graph, entity, move, relation, roll
from testbed import forked
from testbed.neo4j import Neo4jServer

PLAIN = "?profile=plain&key=uuid"


@pytest.fixture
def graph(empty_neo4j: Neo4jServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Graph:
    monkeypatch.setattr(planning, "ROWS_PER_RANGE", 60)
    monkeypatch.setattr(planning, "BYTES_PER_RANGE", 20_000)
    monkeypatch.setenv("MEMFERRY_STATE_DIR", str(tmp_path / "state"))
    return Graph(empty_neo4j, tmp_path)


def people(count: int) -> list[Document]:
    found = [entity(f"e{n:03}", name=f"n{n}", type=("Person", "Place")[n % 2], extra={"n": n}) for n in range(count)]
    return found + [
        relation(f"r{n:03}", f"e{n:03}", f"e{n * 7 % 10:03}", type="KNOWS", extra={"w": n / 7}) for n in range(count)
    ]


def refused(*arguments: Any, **chosen: Any) -> MemferryError:
    with pytest.raises(MemferryError) as caught:
        move(*arguments, **chosen)
    return caught.value


@pytest.mark.usefixtures("bare_neo4j")
def test_a_record_becomes_what_an_application_would_have_written(graph: Graph) -> None:
    rows = [
        entity("a", name="Ann", type="Person", content="likes tea", created_at="2024-06-15T10:30:00Z", extra={"n": 1}),
        entity("b", name="Bob", type="Person", vectors=[vector([0.5, 0.25])], extra={"tags": ["x", "y"], "r": 0.1}),
        relation("r", "a", "b", type="KNOWS", extra={"since": 2020}),
        relation("s", "a", "b", type="KNOWS"),
        relation("loop", "b", "b", type="IS"),
    ]
    result = move(graph.file(rows), graph.at(PLAIN))
    assert (result.outcome, result.lossless) == ("proven", True)
    assert graph.cypher("MATCH (n) RETURN labels(n), properties(n) ORDER BY n.uuid") == [
        [
            ["Person"],
            {"uuid": "a", "name": "Ann", "content": "likes tea", "created_at": "2024-06-15T10:30:00Z", "n": 1},
        ],
        [["Person"], {"uuid": "b", "name": "Bob", "embedding": [0.5, 0.25], "tags": ["x", "y"], "r": 0.1}],
    ]
    assert graph.cypher("MATCH (a)-[r]->(b) RETURN a.uuid, type(r), properties(r), b.uuid ORDER BY r.uuid") == [
        ["b", "IS", {"uuid": "loop"}, "b"],
        ["a", "KNOWS", {"uuid": "r", "since": 2020}, "b"],
        ["a", "KNOWS", {"uuid": "s"}, "b"],
    ]
    assert graph.cypher("SHOW INDEXES YIELD type WHERE type <> 'LOOKUP' RETURN count(*)") == [[0]]


def test_a_graph_of_others_comes_back_as_it_was(graph: Graph) -> None:
    graph.cypher(
        "CREATE (a:Person:Actor {uuid: 'a', name: 'Ann', born: date('1970-02-03'), "
        "  seen: datetime('2024-03-31T03:59:59.123456789+02:00[Europe/Berlin]'), "
        "  twice: datetime('2024-10-27T02:30:00+01:00[Europe/Berlin]'), fixed: datetime('2024-01-01T00:00+05:45'), "
        "  at: localdatetime('2024-01-02T03:04:05'), time: time('10:20:30.5+02:00'), local: localtime('10:20'), "
        "  span: duration('P1M2DT3.000000004S'), place: point({latitude: 1.5, longitude: 2.5}), "
        "  cube: point({x: 1, y: 2, z: 3}), score: 0.1, big: 9223372036854775807, yes: true, list: [1, 2], "
        "  dates: [date('2024-01-01')], places: [point({x: 1, y: 2})], `$odd``key`: 'x', empty: []}), "
        "(b:Movie {uuid: 'b', blob: $blob, nan: $nan, bits: [$nan, 1.5]}), (c {uuid: 'c', name: 5}), "
        "(a)-[:ACTED_IN {uuid: 'r', role: 'x', on: date('2020-01-01')}]->(b), (b)-[:`SEE ALSO` {uuid: 's'}]->(b)",
        blob=b"\0\xff",
        nan=math.nan,
    )
    nodes = "MATCH (n) RETURN labels(n), [k IN keys(n) | [k, valueType(n[k]), toStringOrNull(n[k])]] ORDER BY n.uuid"
    ends = "MATCH (a)-[r]->(b) RETURN a.uuid, type(r), properties(r), b.uuid ORDER BY r.uuid"

    def seen() -> list[Any]:
        found = [[sorted(labels), sorted(map(repr, keys))] for labels, keys in graph.cypher(nodes)]
        return [found, graph.cypher(ends), graph.cypher("MATCH (n {uuid: 'b'}) RETURN n.blob, n.bits[1]")]

    before, there = seen(), parse_url(str(graph.folder / "there.db"))
    assert move(graph.at(PLAIN), there).outcome == "proven"
    graph.cypher("MATCH (n) DETACH DELETE n")
    result = move(there, graph.at(PLAIN))
    assert (result.outcome, result.lossless) == ("proven", True)
    assert seen() == before


UTCS = "MATCH (n) UNWIND n.all + [n.z, n.utc] AS x RETURN n.uuid, toString(x), x = datetime('2024-01-01T00:00:00Z')"


def test_the_offset_z_and_the_zone_utc_stay_what_they_are(graph: Graph) -> None:
    graph.cypher(
        "CREATE (a:T {uuid: 'a', z: datetime('2024-01-01T00:00:00Z'), utc: datetime('2024-01-01T00:00:00[UTC]')}) "
        "SET a.all = [a.utc, a.z] CREATE (a)-[r:R {uuid: 'r'}]->(a) SET r += a {.z, .utc, .all}"
    )
    relations = UTCS.replace("(n)", "()-[n]->()")
    before, there = (graph.cypher(UTCS), graph.cypher(relations)), parse_url(str(graph.folder / "there.db"))
    assert [same for _, _, same in before[0]] == [False, True, True, False]
    assert move(graph.at(PLAIN), there).outcome == "proven"
    graph.cypher("MATCH (n) DETACH DELETE n")
    result = move(there, graph.at(PLAIN))
    assert (result.outcome, result.lossless) == ("proven", True)
    assert (graph.cypher(UTCS), graph.cypher(relations)) == before
    roll(graph.at(PLAIN), result.migration)
    assert graph.cypher("MATCH (n) RETURN n") == []


def test_times_that_were_written_over_come_back_with_their_zones(graph: Graph) -> None:
    graph.cypher(
        "CREATE (a:T {uuid: 'a', z: datetime('2024-01-01T00:00:00Z'), utc: datetime('2024-01-01T00:00:00[UTC]'), "
        "all: [datetime('2024-01-01T00:00:00[America/St_Johns]'), datetime('1850-01-01T00:00:00[Europe/Berlin]')]})"
    )
    before = graph.cypher(UTCS)
    result = move(graph.file([entity("a", type="New")]), graph.at(PLAIN), on_existing="overwrite")
    assert graph.cypher("MATCH (n) RETURN labels(n), properties(n)") == [[["New"], {"uuid": "a"}]]
    assert roll(graph.at(PLAIN), result.migration).restored == 1
    assert graph.cypher(UTCS) == before


def test_what_no_property_holds_is_a_gap(graph: Graph) -> None:
    rows = [
        entity("a", type="T", extra={"nested": {"x": 1}, "kept": 1}),
        entity("b", type="T", extra={"null": None, "mixed": [1, "x"], "lists": [[1]], "big": 2**63}),
        entity("c", type="", extra={"date": {"$$date": "2024-01-01"}}),
        relation("r", "a", "b", type="a\0b"),
        relation("s", "a", "b"),
        entity("fine", type="T"),
        memory("m"),
    ]
    origin = graph.file(rows)
    error = refused(origin, graph.at(PLAIN))
    assert (error.code, error.exit_code) == ("gap", 2)
    assert graph.cypher("MATCH (n) RETURN count(n)") == [[0]]
    accept = ("extra-fields", "memories", "types")
    made = plan_only(origin, graph.at(PLAIN), Options(accept=accept))
    assert {(gap.name, gap.records) for gap in made.gaps} == {("extra-fields", 3), ("memories", 1), ("types", 3)}
    assert not (graph.folder / "state").exists()
    result = move(origin, graph.at(PLAIN), accept=accept)
    assert (result.outcome, result.lossless) == ("proven", False)
    assert graph.cypher("MATCH (n {uuid: 'a'}) RETURN properties(n)") == [[{"uuid": "a", "kept": 1}]]
    assert graph.cypher("MATCH (n {uuid: 'c'}) RETURN labels(n)") == [[[]]]
    assert graph.cypher("MATCH ()-[r]->() RETURN r.uuid, type(r) ORDER BY r.uuid") == [
        ["r", "RELATED_TO"],
        ["s", "RELATED_TO"],
    ]


def test_relations_without_ends_are_quarantined(graph: Graph) -> None:
    rows = [entity("a", type="T"), relation("r", "a", "gone", type="R"), relation("s", "a", "a", type="R")]
    result = move(graph.file(rows), graph.at(PLAIN))
    books = result.books.of("relation")
    assert (result.outcome, books.written, books.quarantined) == ("not_proven", 1, 1)
    assert graph.cypher("MATCH ()-[r]->() RETURN r.uuid") == [["s"]]


def test_running_again_changing_deleting_and_rolling_back(graph: Graph) -> None:
    graph.cypher("CREATE (:Theirs {uuid: 'x', n: 1})-[:OWNS {uuid: 'y'}]->(:Theirs {n: 2})")
    origin = graph.file(people(40))
    first = move(origin, graph.at(PLAIN))
    assert (first.outcome, first.books.total("written")) == ("proven", 80)
    second = move(origin, graph.at(PLAIN))
    assert (second.books.total("written"), second.books.total("unchanged")) == (0, 80)
    graph.cypher("MATCH (n {uuid: 'e003'}) SET n.n = 'theirs'")
    rows = [row for row in people(40) if row["id"] not in {"r039", "e039"}]
    for row in rows:
        if row["id"] in {"e003", "e004", "r004"}:
            row["extra"] = {"new": True}
        if row["id"] == "r005":
            row["to_id"] = "e000"
    write_jsonl(graph.folder / "origin.jsonl", rows)
    third = move(origin, graph.at(PLAIN), delete=True)
    assert [(c["kind"], c["id"]) for c in third.conflicts] == [("entity", "e003")]
    assert (third.books.total("written"), third.books.total("deleted")) == (3, 2)
    assert graph.cypher("MATCH (n {uuid: 'e004'}) RETURN labels(n), properties(n)") == [
        [["Person"], {"uuid": "e004", "name": "n4", "new": True}]
    ]
    assert graph.cypher("MATCH (a)-[r {uuid: 'r005'}]->(b) RETURN a.uuid, b.uuid") == [["e005", "e000"]]
    done = roll(graph.at(PLAIN), first.migration)
    assert done.kept == [("entity", "e003")]
    assert graph.cypher("MATCH (n) RETURN n.uuid, n.n ORDER BY n.n") == [["e003", "theirs"], ["x", 1], [None, 2]]
    assert graph.cypher("MATCH ()-[r]->() RETURN r.uuid") == [["y"]]


def test_what_was_written_over_comes_back(graph: Graph) -> None:
    graph.cypher("CREATE (a:Old:Older {uuid: 'a', n: date('2020-01-01')})-[:R {uuid: 'r', n: 1}]->(b:Old {uuid: 'b'})")
    rows = [
        entity("a", type="New"),
        entity("b", type="Old"),
        entity("c", type="New"),
        relation("r", "c", "a", type="R"),
    ]
    origin = graph.file(rows)
    assert refused(origin, graph.at(PLAIN)).code == "existing"
    result = move(origin, graph.at(PLAIN), on_existing="overwrite")
    assert result.outcome == "proven"
    assert graph.cypher("MATCH (a)-[r:R]->(b) RETURN a.uuid, b.uuid, labels(b)") == [["c", "a", ["New"]]]
    done = roll(graph.at(PLAIN), result.migration)
    assert (done.deleted, done.kept) == (1, [])
    assert graph.cypher("MATCH (a)-[r]->(b) RETURN labels(a), toString(a.n), type(r), properties(r), b.uuid") == [
        [["Old", "Older"], "2020-01-01", "R", {"uuid": "r", "n": 1}, "b"]
    ]
    assert graph.cypher("MATCH (n) RETURN count(n)") == [[2]]


def test_what_was_written_over_and_then_deleted_comes_back(graph: Graph) -> None:
    graph.cypher("CREATE (:Old {uuid: 'a'})-[:R {uuid: 'r', n: 1}]->(:Old {uuid: 'b'})")
    rows = [entity("a", type="New"), entity("b", type="New"), relation("r", "b", "a", type="R")]
    result = move(graph.file(rows), graph.at(PLAIN), on_existing="overwrite")
    graph.cypher("MATCH (n) DETACH DELETE n")
    assert roll(graph.at(PLAIN), result.migration).restored == 3
    ends = "MATCH (a:Old)-[r]->(b:Old) RETURN a.uuid, properties(r), b.uuid"
    assert graph.cypher(ends) == [["a", {"uuid": "r", "n": 1}, "b"]]


def test_what_could_not_be_put_back_is_not_written_over(graph: Graph) -> None:
    graph.cypher(
        "CREATE (:Old {uuid: 'far', n: 1, far: date({year: 12024}), near: date('2024-01-01')}), "
        "(:NoKey {n: 1})-[:R {uuid: 'r', n: 1}]->(:Old {uuid: 'a'}), "
        "(:Old {uuid: 'two', n: 1})-[:R {uuid: 's', n: 1}]->(:Old {uuid: 'two', n: 2})"
    )
    seen = "MATCH (n) WHERE $old OR NOT n:New OPTIONAL MATCH (n)-[r]->(b) RETURN labels(n), n.n, toString(n.far), r.n, "
    seen += "b.uuid, b.n ORDER BY n.uuid, n.n"
    before = graph.cypher(seen, old=True)
    rows = [entity("far", type="New"), entity("b", type="New"), *(relation(i, "b", "b", type="R") for i in "rs")]
    result = move(graph.file(rows), graph.at(PLAIN), on_existing="overwrite")
    assert (result.outcome, result.books.total("written"), result.books.total("quarantined")) == ("not_proven", 1, 3)
    target = open_target(graph.at(PLAIN))
    reasons = [(row.id, row.reason) for _, row in Ledger(target.documents, result.migration).quarantined()]
    target.close()
    assert sorted(reasons) == [("far", "conflict"), ("r", "conflict"), ("s", "conflict")]
    assert graph.cypher(seen, old=False) == before
    done = roll(graph.at(PLAIN), result.migration)
    assert (done.deleted, done.kept) == (1, [])
    assert graph.cypher(seen, old=True) == before


def test_what_cannot_be_put_back_as_it_was_is_refused(graph: Graph) -> None:
    graph.cypher("CREATE (:Old {uuid: 'a', far: date({year: 12024})}), (:Old {uuid: 'b'})")
    target = open_target(graph.at(PLAIN))
    store = target.source()
    assert store is not None
    pages = [page for stream in store.streams() for page in read_stream(store, stream.name, Limits())]
    records = Batch.concat([page.records for page in pages])
    assert target.delete(records.identities()) == 1
    assert graph.cypher("MATCH (n) RETURN n.uuid") == [["a"]]
    target.restore(records)
    graph.cypher("MATCH (n {uuid: 'a'}) REMOVE n.far")
    with pytest.raises(StoreError, match="entity 'a' cannot be put back") as caught:
        target.restore(records)
    assert caught.value.code == "refused"
    assert graph.cypher("MATCH (n) RETURN labels(n), properties(n) ORDER BY n.uuid") == [
        [["Old"], {"uuid": "a"}],
        [["Old"], {"uuid": "b"}],
    ]
    target.close()


def test_one_unreadable_time_leaves_the_others_as_they_are(graph: Graph) -> None:
    graph.cypher(
        "CREATE (:T {uuid: 'a', far: date({year: 12024}), at: localtime('10:20'), z: datetime('2024-01-01T00Z')})"
    )
    there = parse_url(str(graph.folder / "there.db"))
    assert move(graph.at(PLAIN), there).outcome == "proven"
    graph.cypher("MATCH (n) DELETE n")
    assert refused(there, graph.at(PLAIN)).code == "gap"
    move(there, graph.at(PLAIN), accept=("extra-fields",))
    assert graph.cypher(
        "MATCH (n) RETURN n.far, n.at = localtime('10:20'), n.z = datetime('2024-01-01T00Z'), size(keys(n))"
    ) == [[None, True, True, 3]]


def test_a_relation_whose_new_end_is_missing_stays_as_it_was(graph: Graph) -> None:
    rows = [entity("a", type="T"), entity("b", type="T"), relation("r", "a", "b", type="R", extra={"n": 1})]
    origin = graph.file(rows)
    first = move(origin, graph.at(PLAIN))
    write_jsonl(graph.folder / "origin.jsonl", [*rows[:2], relation("r", "a", "gone", type="R", extra={"n": 2})])
    again = move(origin, graph.at(PLAIN))
    assert (again.outcome, again.books.of("relation").quarantined) == ("not_proven", 1)
    assert graph.cypher("MATCH (a)-[r]->(b) RETURN a.uuid, properties(r), b.uuid") == [
        ["a", {"uuid": "r", "n": 1}, "b"]
    ]
    assert roll(graph.at(PLAIN), first.migration).deleted == 3
    assert graph.cypher("MATCH (n) RETURN n") == []


def test_what_could_not_be_deleted_is_deleted_later(graph: Graph) -> None:
    rows = [entity(one, type="T") for one in "abcd"]
    origin = graph.file(rows)
    first = move(origin, graph.at(PLAIN))
    graph.cypher("MATCH (n:T) WHERE n.uuid IN ['b', 'c'] CREATE (:Theirs)-[:SEES]->(n)")
    target = open_target(graph.at(PLAIN))
    assert target.delete([("entity", "b"), ("entity", "d"), ("entity", "nowhere")]) == 1
    target.close()
    write_jsonl(graph.folder / "origin.jsonl", [rows[0]])
    move(origin, graph.at(PLAIN), delete=True, max_deletes_percent=100)
    assert graph.cypher("MATCH (n:T) RETURN n.uuid ORDER BY n.uuid") == [["a"], ["b"], ["c"]]
    graph.cypher("MATCH (t:Theirs)-[:SEES]->(n {uuid: 'b'}) DETACH DELETE t")
    move(origin, graph.at(PLAIN), delete=True, max_deletes_percent=100)
    assert graph.cypher("MATCH (n:T) RETURN n.uuid ORDER BY n.uuid") == [["a"], ["c"]]
    graph.cypher("MATCH (t:Theirs) DETACH DELETE t")
    assert roll(graph.at(PLAIN), first.migration).deleted == 2
    assert graph.cypher("MATCH (n) RETURN n") == []


HOSTILE = ["`) DETACH DELETE n //", "\\u0060) DETACH DELETE n //", "a``b", "$row", "row[1]", "x: Y", "Ünï cødé", " "]


def test_names_are_only_ever_names(graph: Graph) -> None:
    graph.cypher("CREATE (:Witness {uuid: 'here'})")
    rows = [entity(f"e{n}", type=name, extra={escaped(name): n}) for n, name in enumerate(HOSTILE)]
    rows += [relation(f"r{n}", "e0", f"e{n}", type=name, extra={escaped(name): n}) for n, name in enumerate(HOSTILE)]
    url = graph.at("?profile=plain&key=%60%29%20DETACH%20DELETE%20n%20%2F%2F%27")
    assert url.key == "`) DETACH DELETE n //'"
    assert move(graph.file(rows), url).outcome == "proven"
    assert graph.cypher("MATCH (n:Witness) RETURN n.uuid") == [["here"]]
    nodes = "MATCH (n) WHERE n[$key] IS NOT NULL RETURN labels(n), properties(n) ORDER BY n[$key]"
    assert graph.cypher(nodes, key=url.key) == [[[x], {url.key: f"e{n}", x: n}] for n, x in enumerate(HOSTILE)]
    assert graph.cypher("MATCH ()-[r]->() RETURN type(r) ORDER BY r[$key]", key=url.key) == [[n] for n in HOSTILE]


@pytest.mark.parametrize("failpoint", ["intended:2", "acknowledged:3", "committed:4"])
def test_a_killed_run_goes_on(graph: Graph, failpoint: str) -> None:
    origin = graph.file(people(60))
    env = {
        **os.environ,
        "MEMFERRY_FAILPOINT": failpoint,
        "MEMFERRY_TARGET_PASSWORD": graph.server.password,
    }
    code = (
        "import sys\nfrom memferry.model import Limits\nLimits.__init__.__defaults__ = (20, 8 << 20)\n"
        "from memferry.cli.main import run\nsys.argv[0] = 'memferry'\nrun()\n"
    )
    done = forked.run("-c", code, "migrate", origin.text, graph.at(PLAIN).text, "--json", environment=env)
    assert done.returncode == -9, done.stderr
    result = move(origin, graph.at(PLAIN))
    assert (result.outcome, result.resumed, result.books.total("read")) == ("proven", True, 120)
    assert graph.cypher("MATCH (n) RETURN count(n), count(DISTINCT n.uuid)") == [[60, 60]]
    assert graph.cypher("MATCH ()-[r]->() RETURN count(r), count(DISTINCT r.uuid)") == [[60, 60]]


def test_ids_in_a_property(graph: Graph) -> None:
    graph.cypher("CREATE (a:P {name: 'Ann', age: 5})-[:KNOWS {name: 'k'}]->(:P {name: 'Bob'}), (:P {name: 5}), (:P)")
    there = parse_url(str(graph.folder / "there.db"))
    result = move(graph.at("?profile=plain&key=name"), there)
    assert (result.outcome, result.books.total("quarantined")) == ("not_proven", 2)
    assert there.path is not None
    found = read_embedded(there.path).records
    assert found.keys() == {("entity", "Ann"), ("entity", "Bob"), ("relation", "k")}
    assert (found["relation", "k"]["from_id"], found["relation", "k"]["to_id"]) == ("Ann", "Bob")
    graph.cypher("MATCH (n:P) WHERE n.name IS NULL OR n.name = 5 DELETE n")
    graph.cypher("MATCH (n:P {name: 'Bob'}) SET n.age = 6")
    again = move(graph.at("?profile=plain&key=name"), there)
    assert (again.outcome, again.books.total("written"), again.books.total("unchanged")) == ("proven", 1, 2)


def test_without_a_key_nothing_is_written(graph: Graph) -> None:
    with pytest.raises(RefusedError) as caught:
        move(graph.file([entity("a")]), graph.at("?profile=plain"))
    assert (caught.value.code, "key=" in (caught.value.hint or "")) == ("profile", True)


def test_moved_out_and_in_again(graph: Graph) -> None:
    origin = graph.file(people(30))
    there, back = (parse_url(str(graph.folder / f"{name}.db")) for name in ("there", "back"))
    move(origin, there)
    move(there, graph.at(PLAIN))
    assert move(graph.at(PLAIN), back).outcome == "proven"
    assert there.path is not None
    assert back.path is not None
    assert differences(read_embedded(there.path), read_embedded(back.path)) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=6,
)
TAGGED = st.builds(
    lambda tag, text: {tag: text},
    st.sampled_from(["$date", "$time", "$localtime", "$datetime", "$localdatetime", "$duration", "$bytes", "$f64"]),
    st.text(max_size=8) | st.dates().map(str) | st.datetimes().map(lambda d: d.isoformat() + "Z") | st.none(),
)


@settings(max_examples=500)
@given(VALUES | TAGGED | st.lists(TAGGED, max_size=2))
def test_a_property_is_the_value_or_there_is_none(value: Any) -> None:
    try:
        found = native(value)
    except UnheldError:
        return
    assert canonical(found) == value


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01T00:00:00.000000000+00:00",
        "2024-01-01T00:00:00.000000000+00:00[UTC]",
        "2024-01-01T00:00:00.000000000-03:30[America/St_Johns]",
        "2024-10-27T02:30:00.000000000+01:00[Europe/Berlin]",
        "2024-10-27T02:30:00.000000000+02:00[Europe/Berlin]",
    ],
)
def test_a_time_is_the_one_that_is_meant(text: str) -> None:
    assert canonical(native({"$datetime": text})) == {"$datetime": text}


@pytest.mark.parametrize(
    "text",
    [
        "2024-01-01T00:00:00Z",  # Would be read as +00:00.
        "2024-01-01T00:00:00.000000000+01:00[UTC]",
        "2024-01-01T00:00:00.000000000+01:00:30",
        "0001-01-01T00:00:00.000000000+05:00",
        "2024-01-01T00:00:00.000000000+00:00[Nowhere/At_All]",
    ],
)
def test_a_time_that_would_be_another_is_none(text: str) -> None:
    with pytest.raises(UnheldError):
        native({"$datetime": text})
