"""Map, filter and dedup end to end: what arrives, what is booked, what the proof says, kills in between."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memferry import migrate
from memferry.model import Books
from memferry.phases.plan import Plan
from memferry.phases.transform import Decisions, Duplicates, load_mapping
from support.checker import Contents
from support.documents import Document
from support.killing import run_cli
from support.moving import interrupt, move, plan, refused, small_ranges, verify
from support.stores import EmbeddedPlace, JsonlPlace, Place
from testbed.qdrant import QdrantServer

MAP = """
[[move]]
from = "extra.project"
to = "scope_namespace"
[[drop]]
field = "extra.debug"
[scope.user]
ann = "ann@example.org"
"""
WHERE = 'kind != "memory" || "keep" in tags || content == "winner"'


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch)


@pytest.fixture(params=["embedded", "jsonl"])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return new(request.param, tmp_path, "target")


@pytest.fixture
def source(tmp_path: Path) -> EmbeddedPlace:
    origin, made = JsonlPlace(tmp_path, "origin", ".jsonl"), EmbeddedPlace(tmp_path, "source")
    origin.make(documents())
    move(origin, made, parallelism=1)  # so that the order of the store is that of the documents
    return made


def new(kind: str, folder: Path, stem: str) -> Place:
    return EmbeddedPlace(folder, stem) if kind == "embedded" else JsonlPlace(folder, stem, f".{kind}")


def documents() -> list[Document]:
    """100 entities in 50 equal pairs, 200 memories, and what refers to them."""
    scope: Any = {"user": "ann"}
    made: list[Any] = [
        {"kind": "entity", "id": f"e{i:03}", "name": f"Entity {i % 50}", "scope": scope} for i in range(100)
    ]
    made += [
        {
            "kind": "memory",
            "id": f"m{i:03}",
            "content": f"text {i}",
            "scope": {"user": "bob" if i % 3 else "ann"},
            "created_at": "2024-06-15T10:30:00Z",
            "tags": ["keep"] if i % 2 else [],
            "extra": {"project": f"p{i % 4}", "debug": i, "n": i},
        }
        for i in range(200)
    ]
    for i in (7, 107):  # One says the same as another, but is not equal in everything.
        made[100 + i]["content"] = "spelled caf\u00e9" if i == 7 else " spelled cafe\u0301\n"
    made.append({"kind": "memory", "id": "m200", "content": "winner", "created_at": "2024-01-01T00:00:00Z"})
    made.append({"kind": "memory", "id": "m201", "content": "winner", "created_at": "2025-01-01T00:00:00Z"})
    made.append({"kind": "memory", "id": "m202", "content": "newer", "supersedes": "m201", "tags": ["keep"]})
    made += [{"kind": "observation", "id": f"o{i:03}", "owner_id": f"e{i:03}", "content": "seen"} for i in range(100)]
    ends = [(f"e{i:03}", f"e{(i * 7 + 50) % 100:03}") for i in range(100)] + [("m200", "m201"), ("e050", "gone")]
    made += [
        {"kind": "relation", "id": f"r{i:03}", "type": "knows", "from_id": a, "to_id": b}
        for i, (a, b) in enumerate(ends)
    ]
    return made


def transformed() -> list[Document]:
    """What is to arrive, said plainly."""
    won = {f"e{i:03}": f"e{i - 50:03}" for i in range(50, 100)} | {"m201": "m200"}
    arrive = []
    for document in documents():
        record: Any = json.loads(json.dumps(document))
        if record["kind"] == "memory" and record["content"] != "winner" and "keep" not in record.get("tags", []):
            continue
        if record["id"] in won:
            continue
        if record.get("scope") == {"user": "ann"}:
            record["scope"] = {"user": "ann@example.org"}
        if "extra" in record:
            record["scope"]["namespace"] = record["extra"].pop("project")
            del record["extra"]["debug"]
        for name in ("from_id", "to_id", "owner_id", "supersedes"):
            if name in record:
                record[name] = won.get(record[name], record[name])
        arrive.append(record)
    return arrive


def contents(records: list[Document], folder: Path) -> Contents:
    made = JsonlPlace(folder, "expected", ".jsonl")
    made.make(records)
    return made.read()


def asked(folder: Path, **changes: Any) -> Decisions:
    path = folder / "map.toml"
    path.write_text(MAP, "utf-8")
    return replace(Decisions(where=WHERE, mapping=load_mapping(path), dedup="exact"), **changes)


def booked(books: Books, column: str) -> dict[str, int]:
    return {kind: counts[column] for kind, counts in books.to_json().items() if counts[column]}


def test_what_was_chosen_arrives_as_it_was_asked_for(source: Place, target: Place, tmp_path: Path) -> None:
    chosen: dict[str, Any] = {"transform": asked(tmp_path), "accept": ("extra-fields",)}
    result = move(source, target, **chosen)
    assert (result.outcome, result.lossless, result.exit_code) == ("partial", False, 0)
    expected = contents(transformed(), tmp_path)
    found = target.read()
    assert found.records == expected.records
    assert not found.problems
    assert booked(result.books, "filtered") == {"memory": 100}
    assert booked(result.books, "deduplicated") == {"entity": 50, "memory": 1}
    assert result.books.total("written") == len(expected.records)
    assert result.to_json()["gaps"] == [{"name": "extra-fields", "records": 100}]
    assert verify(source, target).outcome == "partial"

    again = move(source, target, **chosen, delete=True)
    assert (again.outcome, again.books.total("written"), again.books.total("deleted")) == ("partial", 0, 0)
    assert booked(again.books, "unchanged") == {"entity": 50, "memory": 102, "observation": 100, "relation": 102}
    assert target.read().records == expected.records


def test_tampering_is_found_in_what_was_changed_on_the_way(source: Place, tmp_path: Path) -> None:
    target = EmbeddedPlace(tmp_path, "target")
    move(source, target, transform=asked(tmp_path), accept=("extra-fields",))
    target.execute("UPDATE relation SET from_id = 'e050' WHERE id = 'r050'")  # what the source has, before the merge
    target.execute("UPDATE memory SET scope_user = 'ann' WHERE id = 'm003'")
    target.remove([("memory", "m005")])
    result = verify(source, target)
    assert result.outcome == "not_proven"
    assert result.verification is not None
    found = {(f.what, f.id, *(name for name, _, _ in f.fields)) for f in result.verification.findings}
    assert found == {("different", "r050", "from_id"), ("different", "m003", "scope_user"), ("missing", "m005")}


@pytest.mark.parametrize("failpoint", ["planned", "written:2", "booked:3", "copied"])
@pytest.mark.parametrize("kind", ["embedded", "jsonl"])
def test_killed_the_same_command_finishes(source: Place, kind: str, failpoint: str, tmp_path: Path) -> None:
    target = new(kind, tmp_path, "target")
    asked(tmp_path)
    command = ["migrate", source.url, target.url, "--where", WHERE, "--map", str(tmp_path / "map.toml")]
    command += ["--dedup", "exact", "--accept", "extra-fields", "--json", "-q"]
    assert run_cli(*command, failpoint=failpoint).killed
    other = run_cli(*[part for part in command if part not in {"--where", WHERE}])
    assert (other.code, other.final()["error"]["code"]) == (2, "plan-changed")
    done = run_cli(*command)
    assert (done.code, done.final()["outcome"], done.final()["resumed"]) == (0, "partial", True)
    assert target.read().records == contents(transformed(), tmp_path).records
    kinds = done.final()["kinds"]
    assert (kinds["memory"]["filtered"], kinds["entity"]["deduplicated"]) == (100, 50)


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"where": "true"}, "where"), ({"mapping": None}, "mapping"), ({"dedup": "off"}, "dedup")],
)
def test_a_run_is_bound_to_its_decisions(
    source: Place, target: Place, changes: dict[str, Any], name: str, tmp_path: Path
) -> None:
    chosen = asked(tmp_path)
    interrupt(source, target, transform=chosen, accept=("extra-fields",))
    other = replace(chosen, **changes)
    error = refused(lambda: move(source, target, transform=other, accept=("extra-fields",)))
    assert (error.code, error.exit_code) == ("plan-changed", 2)
    assert name in str(error)
    assert move(source, target, transform=chosen, accept=("extra-fields",)).outcome == "partial"


def test_the_plan_holds_its_decisions(source: Place, target: Place, tmp_path: Path) -> None:
    made = plan(source, target, transform=asked(tmp_path), accept=("extra-fields",))
    assert Plan.from_json(made.to_json()) == made
    assert len(made.transform.merged) == 51
    assert ("memory", "m201", "m200") in made.transform.merged
    assert made.hash() != plan(source, target, transform=Decisions(dedup="exact")).hash()
    assert made.passing == 100 + 102 + 1 + 100 + 102


def test_a_report_counts_and_changes_nothing(source: Place, target: Place) -> None:
    made = plan(source, target)
    assert made.transform == Decisions()
    assert made.duplicates.groups == 50 + 2
    assert made.duplicates.records == 100 + 4
    assert made.duplicates.examples == (
        ("entity", "e000", "e050"),
        ("entity", "e001", "e051"),
        ("entity", "e002", "e052"),
    )
    assert plan(source, target, transform=Decisions(dedup="off")).duplicates == Duplicates()
    result = move(source, target)
    assert (result.outcome, result.books.total("deduplicated")) == ("proven", 0)
    assert target.read().records == source.read().records


def test_merging_alone_is_proven(source: Place, target: Place) -> None:
    result = move(source, target, transform=Decisions(dedup="exact"))
    assert (result.outcome, result.books.total("deduplicated")) == ("proven", 51)


def test_what_is_unclear_is_not_merged(tmp_path: Path) -> None:
    source, target = JsonlPlace(tmp_path, "source", ".jsonl"), EmbeddedPlace(tmp_path, "target")
    same: list[Any] = [{"kind": "memory", "id": i, "content": "x"} for i in ("a", "twice", "twice", "e", "b")]
    source.make([*same, {"kind": "entity", "id": "e"}, {"kind": "relation", "id": "r", "from_id": "e", "to_id": "b"}])
    made = plan(source, target, transform=Decisions(dedup="exact"))
    assert made.transform.merged == (("memory", "b", "a"),)
    result = move(source, target, transform=Decisions(dedup="exact"), max_quarantined=2)
    assert (result.outcome, result.books.total("quarantined")) == ("proven", 2)
    found = target.read().records
    assert set(found) == {("memory", "a"), ("memory", "e"), ("entity", "e"), ("relation", "r")}
    assert (found["relation", "r"]["from_id"], found["relation", "r"]["to_id"]) == ("e", "a")


@pytest.mark.parametrize("word", ["sample", "limit"])
def test_a_few_records_are_the_same_ones_every_time(source: Place, target: Place, word: str, tmp_path: Path) -> None:
    few: dict[str, Any] = {word: 37}
    chosen = replace(Decisions(where='kind != "entity"'), **few)
    result = move(source, target, transform=chosen)
    assert (result.outcome, result.books.total("written")) == ("partial", 37)
    assert result.books.total("filtered") == 505 - 37
    first = target.read().records
    again = move(source, target, transform=chosen)
    assert (again.outcome, again.books.total("unchanged")) == ("partial", 37)
    other = EmbeddedPlace(tmp_path, "other")
    move(source, other, transform=chosen, parallelism=1)
    assert other.read().records == first
    if word == "limit":
        assert set(first) == {("memory", f"m{i:03}") for i in range(37)}
    else:
        assert len({kind for kind, _ in first}) == 3
    assert verify(source, target).outcome == "partial"


def test_filtered_records_of_an_earlier_run_are_present_and_not_judged(source: Place, target: Place) -> None:
    assert move(source, target).outcome == "proven"
    held = target.read().records
    result = move(source, target, transform=Decisions(where='kind == "entity"'), delete=True, max_deletes_percent=0.0)
    assert (result.outcome, result.books.total("deleted"), result.books.total("filtered")) == ("partial", 0, 405)
    assert result.verification is not None
    assert result.verification.counts() == {
        "compared": 100, "missing": 0, "extra": 0, "different": 0, "foreign": 405,
    }  # fmt: skip
    assert target.read().records == held


def test_a_merged_record_of_an_earlier_run_is_extra(source: Place, target: Place) -> None:
    assert move(source, target).outcome == "proven"
    result = move(source, target, transform=Decisions(dedup="exact"))
    assert result.outcome == "not_proven"
    assert result.verification is not None
    assert (result.verification.extra, result.verification.missing, result.verification.different) == (51, 0, 0)


def test_a_record_without_an_answer_is_quarantined(source: Place, target: Place) -> None:
    result = move(source, target, transform=Decisions(where='content.startsWith("text 1")'), max_quarantined=500)
    assert result.outcome == "partial"
    assert booked(result.books, "quarantined") == {"entity": 100, "relation": 102}
    assert booked(result.books, "written") == {"memory": 110}
    assert move(source, target, transform=Decisions(where='content.startsWith("text 1")')).outcome == "not_proven"


def test_a_gap_of_a_filtered_record_is_none(source: Place, target: Place, tmp_path: Path) -> None:
    error = refused(lambda: plan(source, target, transform=asked(tmp_path)))
    assert (error.code, "--accept extra-fields" in str(error.hint)) == ("gap", True)
    made = plan(source, target, transform=asked(tmp_path, where='kind != "memory"'))
    assert (made.gaps, made.passing) == ((), 302)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--where", "nope"], "where"),
        (["--map", "nowhere.toml"], "profile"),
        (["--dedup", "fuzzy"], "invalid"),
        (["--sample", "3", "--limit", "3"], "invalid"),
        (["--dedup", "exact", "--limit", "3"], "invalid"),
        (["--limit", "0"], "invalid"),
        (["--limit", "100001"], "invalid"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_read(
    arguments: list[str], code: str, tmp_path: Path
) -> None:
    ended = run_cli("plan", tmp_path / "no.db", tmp_path / "no.jsonl", *arguments, "--json", "-q", cwd=tmp_path)
    assert (ended.code, ended.final()["error"]["code"]) == (2, code)


def test_the_same_decisions_hold_for_a_server(
    source: EmbeddedPlace, qdrant_server: QdrantServer, qdrant_prefix: str, tmp_path: Path
) -> None:
    """To Qdrant and back: its ids are others, and a second run filters what the first has written."""
    there = f"qdrant://{qdrant_server.host}:{qdrant_server.port}/{qdrant_prefix}transform?distance=dot"
    asked(tmp_path)  # writes the table
    table = tmp_path / "map.toml"
    result = migrate(source.url, there, accept=["extra-fields"], where=WHERE, mapping=table, dedup="exact")
    assert (result.outcome, result.books.total("filtered"), result.books.total("deduplicated")) == ("partial", 100, 51)
    back = EmbeddedPlace(tmp_path, "back")
    assert migrate(there, back.url).outcome == "proven"
    assert back.read().records == contents(transformed(), tmp_path).records

    fewer = 'kind == "memory" && "keep" in tags'
    result = migrate(source.url, there, accept=["extra-fields"], where=fewer, mapping=table, delete=True)
    assert result.verification is not None
    assert (result.outcome, result.books.total("deleted")) == ("partial", 0)
    assert (result.verification.compared, result.verification.extra, result.verification.foreign) == (101, 0, 253)
