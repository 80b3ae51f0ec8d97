"""A hybrid store as source and target: everything comes back, synced, rolled back, looked at from outside."""

from __future__ import annotations

import base64
import json
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from memferry.backends.qdrant import QdrantTarget
from memferry.errors import MemferryError, TransientError
from memferry.model import Limits, Range
from memferry.phases.migrate import plan_only
from memferry.phases.plan import Options
from memferry.stores import open_source
from memferry.urls import Secrets, hybrid_url, parse_url
from support.checker import differences, last_json, read_embedded
from support.documents import Document, documents, memory, vector
from support.graph import roll
from support.hybrid import Hybrid, check, findings, move, ordinary, total
from testbed.forked import Done
from testbed.forked import run as run_process
from testbed.neo4j import Neo4jServer


def refused(work: Callable[[], object]) -> MemferryError:
    with pytest.raises(MemferryError) as caught:
        work()
    return caught.value


def _sparse(indices: list[int], values: list[float], **members: Any) -> Document:
    packed = base64.b64encode(struct.pack(f"<{len(values)}f", *values)).decode()
    places = base64.b64encode(struct.pack(f"<{len(indices)}I", *indices)).decode()
    return {"kind": "sparse", "dim": 0, "indices": places, "data": packed, **members}


def _multi(rows: list[list[float]], **members: Any) -> Document:
    flat = [number for row in rows for number in row]
    packed = base64.b64encode(struct.pack(f"<{len(flat)}f", *flat)).decode()
    return {"kind": "multi", "dim": len(rows[0]), "data": packed, **members}


def small() -> list[Document]:
    """A few records with every kind of vector."""
    return [
        {"kind": "entity", "id": "a", "name": "Ann", "vectors": [vector([1.0, -0.0], name="title", model="m")]},
        {"kind": "entity", "id": "b", "name": "Bob"},
        {
            "kind": "relation",
            "id": "r",
            "from_id": "a",
            "to_id": "b",
            "vectors": [_sparse([7, 9], [0.5, 0.25], name="words")],
        },
        {"kind": "observation", "id": "o", "owner_id": "a", "content": "seen"},
        memory(
            "m",
            scope={"user": "ann", "tenant": "t"},
            extra={"n": 1, "$$x": None},
            vectors=[
                vector([1e-45, 3.0, -0.0], normalized=False),
                _multi([[1.0, 2.0], [3.0, 4.0]], name="tokens"),
                _sparse([3], [0.1], name="words"),
            ],
        ),
    ]


def test_everything_comes_back(hybrid: Hybrid) -> None:
    origin, there, back = hybrid.file(documents(240, seed=2)), hybrid.embedded("there"), hybrid.embedded("back")
    assert move(origin, there).outcome == "proven"
    result = move(there, hybrid.url)
    assert (result.outcome, result.lossless) == ("proven", True)
    assert result.verification is not None
    assert result.verification.counts() == {"compared": 240, "missing": 0, "extra": 0, "different": 0, "foreign": 0}
    assert move(hybrid.url, back).outcome == "proven"
    assert there.path is not None
    assert back.path is not None
    assert differences(read_embedded(there.path), read_embedded(back.path)) == []
    assert hybrid.points().keys() == hybrid.noted()
    again = move(there, hybrid.url)
    assert (again.outcome, again.books.total("unchanged")) == ("proven", 240)


def test_from_one_hybrid_store_to_another(hybrid: Hybrid, second_neo4j_server: Neo4jServer) -> None:
    second_neo4j_server.wipe()
    other = Hybrid(second_neo4j_server, hybrid.qdrant, hybrid.collection + "2", hybrid.folder)
    origin = hybrid.file(ordinary(40))
    for source, target in ((origin, hybrid.url), (hybrid.url, other.url), (other.url, hybrid.embedded("back"))):
        assert move(source, target).outcome == "proven"
    assert total(origin) == total(other.url) == total(hybrid.embedded("back"))


def test_each_half_is_what_the_page_says(hybrid: Hybrid) -> None:
    result = move(hybrid.file(small()), hybrid.url)
    assert result.outcome == "proven"
    [(properties,)] = hybrid.cypher("MATCH (n:MemferryMemory) RETURN properties(n)")
    assert json.loads(properties["extra"]) == {"$$x": None, "$vectors": ["", "tokens", "words"], "n": 1}
    assert not [name for name in properties if name.startswith("vector")]
    points = hybrid.points()
    assert points.keys() == {("entity", "a"), ("relation", "r"), ("memory", "m")} == hybrid.noted()
    point = points["memory", "m"]
    assert point.payload is not None
    marker = point.payload["_memferry"]
    assert {k: v for k, v in point.payload.items() if k not in {"_memferry", "vector_notes"}} == {
        "kind": "memory",
        "id": "m",
        "scope": {"user": "ann", "tenant": "t"},
    }
    assert marker["migration"] == result.migration
    assert isinstance(point.vector, dict)
    assert point.vector.keys() == {"default", "tokens", "words"}
    # One ledger, in the graph.
    assert hybrid.collections() == [hybrid.collection]
    assert hybrid.cypher("MATCH (d:MemferryLedger) RETURN count(d) > 0") == [[True]]


def test_a_cosine_collection_needs_consent_and_keeps_what_the_plan_said(hybrid: Hybrid) -> None:
    origin, target = hybrid.file(ordinary(15)), hybrid.at("cosine")
    error = refused(lambda: move(origin, target))
    assert (error.code, "vector-lengths" in str(error)) == ("gap", True)
    assert hybrid.collections() == []
    result = move(origin, target, accept=("vector-lengths",))
    assert (result.outcome, result.lossless) == ("proven", False)
    assert move(target, hybrid.embedded("back")).outcome == "proven"
    assert total(target) == total(hybrid.embedded("back"))


def test_a_plan_leaves_no_trace(hybrid: Hybrid) -> None:
    plan = plan_only(hybrid.file(small()), hybrid.url, Options())
    assert (plan.records, plan.gaps, plan.target_records) == (5, (), 0)
    assert hybrid.collections() == []
    assert hybrid.cypher("MATCH (n) RETURN count(n)") == [[0]]


def test_sync_carries_changes_of_either_half_and_deletions(hybrid: Hybrid) -> None:
    records = {f"m{n}": memory(f"m{n}", vectors=[vector([n / 8, 1.0])]) for n in range(40)}
    records |= {f"x{n}": memory(f"x{n}") for n in range(10)}
    migration = move(hybrid.file([*records.values()]), hybrid.url).migration
    records["m0"]["content"] = "another text"
    records["m1"]["vectors"] = [vector([5.0, 5.0])]
    records["m2"] = memory("m2")
    records["x0"]["vectors"] = [vector([7.0, 7.0])]
    del records["m3"], records["x3"]
    origin = hybrid.file([*records.values()])
    result = move(origin, hybrid.url)
    assert tuple(result.books.total(c) for c in ("written", "unchanged", "conflicts")) == (4, 44, 0)
    assert findings(result) == {("extra", "m3"), ("extra", "x3")}
    result = move(origin, hybrid.url, delete=True)
    assert (result.outcome, result.books.total("deleted")) == ("proven", 2)
    expected = {("memory", key) for key, record in records.items() if "vectors" in record}
    assert hybrid.points().keys() == expected == hybrid.noted()
    assert total(origin) == total(hybrid.url)
    done = roll(hybrid.url, migration)
    assert (done.deleted, done.restored, done.kept) == (48, 0, [])
    assert hybrid.collections() == []
    assert hybrid.cypher("MATCH (n) WHERE NOT n:MemferryLedger RETURN count(n)") == [[0]]
    assert move(origin, hybrid.url).outcome == "proven"


def test_what_others_wrote_is_refused_kept_or_saved(hybrid: Hybrid) -> None:
    theirs = [memory("m0", content="theirs", vectors=[vector([9.0, 9.0])]), memory("m1", vectors=[vector([8.0, 8.0])])]
    move(hybrid.file(theirs, "theirs"), hybrid.url)
    before = total(hybrid.url)
    ours = [memory("m0", content="ours", vectors=[vector([1.0, 2.0])]), memory("m1"), memory("m2")]
    ours += [memory(f"m{n}", vectors=[vector([n / 8, 1.0])]) for n in range(3, 9)]
    origin = hybrid.file(ours)
    assert refused(lambda: move(origin, hybrid.url)).code == "existing"
    assert total(hybrid.url) == before
    result = move(origin, hybrid.url, on_existing="overwrite")
    assert result.outcome == "proven"
    assert hybrid.points().keys() == {("memory", "m0"), *(("memory", f"m{n}") for n in range(3, 9))}
    assert not hybrid.cypher("MATCH (d:MemferryLedger) WHERE d.name STARTS WITH 'later/' RETURN d.name")
    done = roll(hybrid.url, result.migration)
    assert (done.deleted, done.restored, done.kept) == (7, 2, [])
    assert total(hybrid.url) == before


def test_a_change_in_either_half_is_a_conflict(hybrid: Hybrid) -> None:
    records = [memory(f"m{n}", vectors=[vector([n / 8, 1.0])]) for n in range(6)]
    origin = hybrid.file(records)
    migration = move(origin, hybrid.url).migration
    hybrid.cypher("MATCH (n:MemferryMemory {id: 'm0'}) SET n.content = 'mine'")
    point = hybrid.points()["memory", "m1"]
    point.vector = {"default": [4.0, 4.0]}
    hybrid.upsert(point)
    hybrid.drop(hybrid.points()["memory", "m2"])
    result = move(hybrid.file([{**r, "tags": ["new"]} for r in records]), hybrid.url)
    assert {c["id"] for c in result.conflicts} == {"m0", "m1", "m2"}
    assert result.books.total("written") == 3
    done = roll(hybrid.url, migration)
    assert {identity for _, identity in done.kept} == {"m0", "m1", "m2"}
    assert hybrid.cypher("MATCH (n:MemferryMemory) RETURN n.id ORDER BY n.id") == [["m0"], ["m1"], ["m2"]]
    assert hybrid.points().keys() == {("memory", "m0"), ("memory", "m1")}


def test_a_source_with_a_missing_half_quarantines_the_other(hybrid: Hybrid) -> None:
    move(hybrid.file([memory(f"m{n}", vectors=[vector([n / 8, 1.0])]) for n in range(6)]), hybrid.url)
    hybrid.drop(hybrid.points()["memory", "m1"])
    hybrid.cypher("MATCH (n:MemferryMemory {id: 'm2'}) DELETE n")
    result = move(hybrid.url, hybrid.embedded("back"))
    assert (result.outcome, result.books.total("written"), result.books.total("quarantined")) == ("not_proven", 4, 2)
    back = hybrid.embedded("back")
    shown = json.loads(cli("quarantine", "list", back.text, "--json").stdout)
    assert {(row["id"], row["reason"]) for row in shown} == {("m1", "vectors-missing"), ("m2", "no-record")}


def test_relations_without_ends_take_their_vectors_with_them(hybrid: Hybrid) -> None:
    records: list[Document] = [{"kind": "entity", "id": "a", "name": "a"}]
    for n, to in enumerate(("a", "nowhere", "a")):
        ends: Document = {"from_id": "a", "to_id": to}
        records.append({"kind": "relation", "id": f"r{n}", **ends, "vectors": [vector([1.0, n])]})
    result = move(hybrid.file(records), hybrid.url)
    assert (result.books.total("written"), result.books.total("quarantined")) == (3, 1)
    assert findings(result) == set()
    assert hybrid.points().keys() == {("relation", "r0"), ("relation", "r2")}
    row = json.loads(cli("quarantine", "list", *cli_halves(hybrid), "--json", hybrid=hybrid).stdout)[0]
    whole = json.loads(cli("quarantine", "show", *cli_halves(hybrid), row["number"], hybrid=hybrid).stdout)
    assert (row["id"], row["reason"], len(whole["vectors"])) == ("r1", "missing-end", 1)


def test_pages_are_bounded_together_with_their_vectors(hybrid: Hybrid) -> None:
    records = [memory(f"m{n:04}", vectors=[vector([n / 8] * 1024)]) for n in range(700)]
    move(hybrid.file(records), hybrid.url)
    source = open_source(hybrid.url)
    limits, cursor, sizes, read = Limits(size_bytes=200_000), None, [], 0
    reader = source.reader()
    while True:
        page = reader.read(Range(0, "memory", None, None), cursor, limits)
        sizes.append(sum(1 for _ in page.records.identities()) * 4096)
        read += page.read
        cursor = page.next
        if cursor is None:
            break
    source.close()
    assert read == 700
    assert max(sizes[1:]) <= limits.size_bytes


# -- the command line


def cli(*arguments: str, hybrid: Hybrid | None = None) -> Done:
    password = hybrid.neo4j.password if hybrid else ""
    environment = {**os.environ, "MEMFERRY_SOURCE_PASSWORD": password, "MEMFERRY_TARGET_PASSWORD": password}
    return run_process("-m", "memferry", *arguments, environment=environment)


def cli_halves(hybrid: Hybrid) -> list[str]:
    assert hybrid.url.graph is not None
    assert hybrid.url.vectors is not None
    return ["hybrid:", "--graph", hybrid.url.graph.text, "--vectors", hybrid.url.vectors.text]


def test_every_verb_takes_a_hybrid_store(hybrid: Hybrid) -> None:
    origin, store = hybrid.file(small()).text, cli_halves(hybrid)
    for verb in ("plan", "migrate", "verify"):
        done = cli(verb, origin, *store, "--json", hybrid=hybrid)
        assert done.returncode == 0, done.stderr
        assert last_json(done.stdout)["migration"]
    back = hybrid.embedded("back").text
    assert last_json(cli("migrate", *store, back, "--json", hybrid=hybrid).stdout)["outcome"] == "proven"
    assert last_json(cli("status", *store, "--json", hybrid=hybrid).stdout)[0]["state"] == "done"
    assert last_json(cli("report", *store, "--json", hybrid=hybrid).stdout)["outcome"] == "proven"
    shown = last_json(cli("inspect", *store, "--json", hybrid=hybrid).stdout)
    assert {s["stream"]: s["rows"] for s in shown["streams"]} == {
        "entity": 2,
        "memory": 1,
        "observation": 1,
        "relation": 1,
        "vectors/points": None,
    }
    assert last_json(cli("rollback", *store, "--json", hybrid=hybrid).stdout)["deleted"] == 5
    assert hybrid.collections() == []


def test_what_is_asked_for_wrongly_is_refused() -> None:
    graph, vectors = "neo4j://localhost", "qdrant://localhost/agents"
    for arguments, told in (
        (("plan", "a.jsonl", "hybrid:"), "needs --graph"),
        (("plan", "a.jsonl", "hybrid:", "--graph", graph), "needs --vectors"),
        (("plan", "a.jsonl", "hybrid:", "--graph", vectors, "--vectors", vectors), "takes a neo4j store"),
        (("plan", "a.jsonl", "b.db", "--graph", graph), "there is no `hybrid:` store"),
        (("inspect", "hybrid:here", "--graph", graph, "--vectors", vectors), "named by --graph and --vectors"),
        (("inspect", "hybrid:", "--graph", f"{graph}?profile=plain", "--vectors", vectors), "profile `plain`"),
    ):
        done = cli(*arguments, "--json")
        assert done.returncode == 2, done.stderr
        assert told in last_json(done.stdout)["error"]["message"]
    assert refused(lambda: open_source(parse_url("hybrid:"))).code == "url"


def test_a_half_is_not_moved_into_the_other_side_of_itself(hybrid: Hybrid) -> None:
    assert hybrid.url.vectors is not None
    assert refused(lambda: move(hybrid.url, hybrid.url)).code == "invalid"
    assert refused(lambda: move(hybrid.url.vectors, hybrid.url)).code == "invalid"  # type: ignore[arg-type]
    other = hybrid_url(replace(parse_url("neo4j://localhost"), secrets=Secrets()), hybrid.url.vectors)
    assert refused(lambda: move(other, hybrid.url)).code == "invalid"


# -- the proof


def _turn(hybrid: Hybrid) -> None:
    point = hybrid.points()["memory", "m1"]
    assert isinstance(point.vector, dict)
    [first, *rest] = point.vector["default"]
    [bits] = struct.unpack("<I", struct.pack("<f", first))
    point.vector["default"] = [struct.unpack("<f", struct.pack("<I", bits ^ 1))[0], *rest]
    hybrid.upsert(point)


def _copy(hybrid: Hybrid) -> None:
    point = hybrid.points()["memory", "m1"]
    hybrid.upsert(point.model_copy(update={"id": 77}), id="m77")


def _swap(hybrid: Hybrid) -> None:
    points = hybrid.points()
    first, second = points["memory", "m1"], points["memory", "m2"]
    first.vector, second.vector = second.vector, first.vector
    hybrid.upsert(first)
    hybrid.upsert(second)


def _move_scope(hybrid: Hybrid) -> None:
    point = hybrid.points()["memory", "m1"]
    assert point.payload is not None
    point.payload["scope"] = {"user": "somebody else"}
    hybrid.upsert(point)


def _drop(hybrid: Hybrid) -> None:
    hybrid.drop(hybrid.points()["memory", "m1"])


def _statement(text: str) -> Callable[[Hybrid], None]:
    def damage(hybrid: Hybrid) -> None:
        hybrid.cypher(text)

    return damage


DAMAGES: dict[str, tuple[Callable[[Hybrid], None], set[tuple[str, str]], str | None]] = {
    "the scope by which a point is found": (_move_scope, {("different", "m1")}, "scope_user"),
    "drop a point": (_drop, {("different", "m1")}, 'vectors[""]'),
    "a bit of a vector": (_turn, {("different", "m1")}, 'vectors[""].data[0]'),
    "a point nobody has": (_copy, {("extra", "m77")}, None),
    "swap two points": (_swap, {("different", "m1"), ("different", "m2")}, 'vectors[""].data[0]'),
    "drop a node": (_statement("MATCH (n:MemferryMemory {id: 'm1'}) DELETE n"), {("different", "m1")}, "content"),
    "drop a node without vectors": (
        _statement("MATCH (n:MemferryMemory {id: 'x1'}) DELETE n"),
        {("missing", "x1")},
        None,
    ),
    "change a text": (
        _statement("MATCH (n:MemferryMemory {id: 'm1'}) SET n.content = 'x'"),
        {("different", "m1")},
        "content",
    ),
    "forget the vectors": (
        _statement("MATCH (n:MemferryMemory {id: 'm1'}) REMOVE n.extra, n._memferry"),
        {("different", "m1"), ("extra", "m1")},
        None,
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_every_damage_of_either_half_is_found(name: str, hybrid: Hybrid) -> None:
    records = [memory(f"m{n}", vectors=[vector([n / 8, 1.0], model="m")]) for n in range(8)]
    origin = hybrid.file([*records, *(memory(f"x{n}") for n in range(4))])
    assert move(origin, hybrid.url).outcome == "proven"
    damage, expected, named = DAMAGES[name]
    damage(hybrid)
    result = check(origin, hybrid.url)
    assert result.outcome == "not_proven"
    assert findings(result) <= expected
    assert findings(result)
    if named is not None:
        assert findings(result) == expected
        assert result.verification is not None
        fields = {field for finding in result.verification.findings for field, _, _ in finding.fields}
        assert named in fields


def test_a_vector_store_that_fails_after_the_commit_is_asked_again(
    hybrid: Hybrid, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [memory(f"m{n}", vectors=[vector([n / 8, 1.0])]) for n in range(10)]
    move(hybrid.file(records), hybrid.url)
    asked: list[int] = []
    delete = QdrantTarget.delete

    def fail_first(self: QdrantTarget, identities: list[tuple[str, str]]) -> int:
        asked.append(len(identities))
        if len(asked) < 3:
            raise TransientError("unavailable", "not now")
        return delete(self, identities)

    monkeypatch.setattr(QdrantTarget, "delete", fail_first)
    origin = hybrid.file([memory(f"m{n}") for n in range(10)])
    result = move(origin, hybrid.url)
    assert (result.outcome, result.conflicts, asked) == ("proven", [], [10, 10, 10])
    assert hybrid.points() == {}
