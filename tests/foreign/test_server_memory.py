"""The file of the official MCP memory server as a target: observations go into their entities."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from memferry.backends import open_target
from memferry.errors import RefusedError
from memferry.ledger import Ledger
from memferry.model import Limits
from memferry.phases import gather
from memferry.phases.migrate import Result, migrate, verify_only
from memferry.phases.plan import Options
from memferry.phases.rollback import RolledBack, rollback
from memferry.phases.transform import Decisions, parse_mapping
from memferry.urls import parse_url
from testbed import forked

Graph = list[dict[str, Any]]
ENDINGS = ["jsonl", "jsonl.zst"]
RUNNER = """
import sys
from memferry.phases import gather, plan
from memferry.phases.migrate import migrate
from memferry.model import Limits
from memferry.urls import parse_url
plan.ROWS_PER_RANGE, plan.BYTES_PER_RANGE, gather.SPILL_BYTES = 30, 3000, 4096
options = plan.Options(limits=Limits(records=7), parallelism=3, on_existing="overwrite")
result = migrate(parse_url(sys.argv[1]), parse_url(sys.argv[2]), options)
print(result.outcome, result.books.total("conflicts"), result.books.balanced())
"""


def graph(entities: int = 40) -> Graph:
    """Lines as the server writes them, and the odd ones that its file may hold."""
    lines: Graph = [
        {
            "type": "entity",
            "name": f"Entity {i} \u00e9",
            "entityType": "person" if i % 2 else "",
            "observations": [f"seen {j} \U0001f600 \u0000" for j in range(i % 5)],
        }
        for i in range(entities)
    ]
    lines[3]["observations"] = ["twice", "once", "twice", ""]
    del lines[5]["observations"]
    lines += [
        {"type": "relation", "from": f"Entity {i} \u00e9", "to": f"Entity {i * 7 % 50} \u00e9", "relationType": "knows"}
        for i in range(entities)
    ]
    return lines


def write(path: Path, lines: Graph) -> str:
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    return f"jsonl:{path}?profile=server-memory"


def load(path: Path) -> Graph:
    """Reads a file as the server does: one object a line, of two types, with the members it knows."""
    lines = []
    for text in path.read_text("utf-8").splitlines():
        line = json.loads(text)
        known = {"entity": {"type", "name", "entityType", "observations"}, "relation": set(line)}
        assert set(line) <= known[line["type"]]
        if line["type"] == "relation":
            assert set(line) == {"type", "from", "to", "relationType"}
        lines.append(line)
    return lines


def canonical(lines: Graph) -> list[str]:
    return sorted(json.dumps(line, sort_keys=True) for line in lines)


def run(source: str, target: str, **chosen: Any) -> Result:
    options = Options(**{"limits": Limits(records=7), "parallelism": 3, **chosen})
    result = migrate(parse_url(source), parse_url(target), options)
    assert result.books.balanced(), result.books.to_json()
    return result


def roll_back(target: str, migration: str) -> RolledBack:
    store = open_target(parse_url(target))
    try:
        return rollback(store, Ledger(store.documents, migration))
    finally:
        store.close()


def columns(result: Result) -> tuple[int, ...]:
    names = ("written", "unchanged", "conflicts", "nested", "quarantined", "deleted")
    return tuple(result.books.total(name) for name in names)


@pytest.mark.parametrize("middle", ["db", *ENDINGS])
def test_there_and_back(tmp_path: Path, middle: str) -> None:
    lines = graph()
    first, second = write(tmp_path / "a.json", lines), str(tmp_path / f"b.{middle}")
    third = f"jsonl:{tmp_path / 'c.json'}?profile=server-memory"
    observations = sum(len(line.get("observations", ())) for line in lines)
    there = run(first, second)
    assert (there.outcome, there.lossless, there.books.of("observation").written) == ("proven", True, observations)
    back = run(second, third)
    assert (back.outcome, back.lossless) == ("proven", True)
    assert columns(back) == (80, 0, 0, observations, 0, 0)
    assert (back.books.of("observation").read, back.books.of("observation").nested) == (observations, observations)
    assert canonical(load(tmp_path / "c.json")) == canonical(lines)
    again = run(second, third)
    assert (again.outcome, columns(again)) == ("proven", (0, 80, 0, observations, 0, 0))
    assert verify_only(parse_url(second), parse_url(third), Options()).outcome == "proven"


def test_from_file_to_file(tmp_path: Path) -> None:
    lines = graph()
    target = f"jsonl:{tmp_path / 'b.jsonl.gz'}?profile=server-memory"
    back = f"jsonl:{tmp_path / 'c.json'}?profile=server-memory"
    assert run(write(tmp_path / "a.json", lines), target).books.of("observation").exploded == 81
    assert run(target, back).outcome == "proven"
    assert canonical(load(tmp_path / "c.json")) == canonical(lines)


def test_many_observations_of_one_entity_through_a_small_spill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "SPILL_BYTES", 4096)
    texts = {owner: [f"{owner} {i} " + "x" * 200 for i in range(n)] for owner, n in (("big", 5000), ("small", 3))}
    records: list[dict[str, Any]] = [{"kind": "entity", "id": owner, "type": "t"} for owner in texts]
    records += [
        {
            "kind": "observation",
            "id": f"{owner}#{i}",
            "owner_id": owner,
            "content": text,
            "extra": {"$position": i},
        }
        for owner, listed in texts.items()
        for i, text in enumerate(listed)
    ]
    random.Random(1).shuffle(records)
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    target = f"jsonl:{tmp_path / 'out.json'}?profile=server-memory"
    result = run(str(source), target, limits=Limits(records=100))
    assert (result.outcome, result.lossless, columns(result)) == ("proven", True, (2, 0, 0, 5003, 0, 0))
    assert {line["name"]: line["observations"] for line in load(tmp_path / "out.json")} == texts


def test_what_the_file_cannot_hold_is_declared(tmp_path: Path) -> None:
    records: list[dict[str, Any]] = [
        {"kind": "entity", "id": "e", "type": "t", "name": "Ann", "created_at": "2024-01-01T00:00:00Z"},
        {"kind": "memory", "id": "m", "content": "text", "vectors": [{"kind": "dense", "dim": 1, "data": "AACAPw=="}]},
        {"kind": "observation", "id": "o", "owner_id": "e", "content": "seen", "confidence": 0.5},
        {"kind": "observation", "id": "p", "owner_id": "e", "content": "seen again"},
        {"kind": "relation", "id": "r", "from_id": "e", "to_id": "e", "type": "is", "extra": {"since": 1}},
    ]
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    target = f"jsonl:{tmp_path / 'out.json'}?profile=server-memory"
    with pytest.raises(RefusedError) as refused:
        run(str(source), target)
    gaps = ("confidence", "created-at", "extra-fields", "ids", "memories", "names")
    assert refused.value.code == "gap"
    assert all(f"--accept {gap}" in str(refused.value.hint) for gap in gaps)
    assert not (tmp_path / "out.json").exists()
    result = run(str(source), target, accept=gaps)
    assert (result.outcome, result.lossless) == ("proven", False)
    assert [gap.name for gap in result.plan.gaps] == list(gaps)
    assert next(gap for gap in result.plan.gaps if gap.name == "ids").records == 3
    assert result.books.of("memory").filtered == 1
    assert load(tmp_path / "out.json") == [
        {"type": "entity", "name": "e", "entityType": "t", "observations": ["seen", "seen again"]},
        {"type": "relation", "from": "e", "to": "e", "relationType": "is"},
    ]
    again = run(str(source), target, accept=gaps)
    assert (again.outcome, columns(again)) == ("proven", (0, 2, 0, 2, 0, 0))
    # `verify` knows what was given up.
    assert verify_only(parse_url(str(source)), parse_url(target), Options()).outcome == "proven"


def test_relations_that_become_one_are_not_written_over_each_other(tmp_path: Path) -> None:
    records = [{"kind": "entity", "id": "e", "type": "t"}] + [
        {"kind": "relation", "id": identity, "from_id": "e", "to_id": end, "type": "is"}
        for identity, end in (("r", "e"), ("s", "e"), ("t", "f"))
    ]
    source = tmp_path / "source.jsonl"
    source.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    result = run(str(source), f"jsonl:{tmp_path / 'out.json'}?profile=server-memory", accept=("ids",))
    assert result.plan.repeated == (("relation", "r"), ("relation", "s"))
    assert (result.outcome, columns(result)) == ("not_proven", (2, 0, 0, 0, 2, 0))


def test_holes_in_a_list_are_a_gap(tmp_path: Path) -> None:
    source = tmp_path / "source.jsonl"
    records = [{"kind": "entity", "id": "e", "type": "t"}] + [
        {"kind": "observation", "id": f"e#{i}", "owner_id": "e", "content": f"{i}", "extra": {"$position": i}}
        for i in (0, 2)
    ]
    source.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    target = f"jsonl:{tmp_path / 'out.json'}?profile=server-memory"
    with pytest.raises(RefusedError, match=r"ids \(2 records"):
        run(str(source), target)
    assert run(str(source), target, accept=("ids",)).outcome == "proven"


def test_observations_without_their_entity_are_quarantined(tmp_path: Path) -> None:
    store, target = str(tmp_path / "b.db"), f"jsonl:{tmp_path / 'out.json'}?profile=server-memory"
    source = tmp_path / "source.jsonl"
    lost = {"kind": "observation", "id": "gone#0", "owner_id": "gone", "content": "c", "extra": {"$position": 0}}
    source.write_text(json.dumps({"kind": "entity", "id": "e", "type": "t"}) + "\n" + json.dumps(lost) + "\n", "utf-8")
    run(str(source), store)
    result = run(store, target)
    assert (result.outcome, columns(result)) == ("not_proven", (1, 0, 0, 0, 1, 0))
    opened = open_target(parse_url(target))
    ((_, row),) = Ledger(opened.documents, result.migration).quarantined()
    opened.close()
    assert (row.kind, row.id, row.reason) == ("observation", "gone#0", "missing-end")
    assert json.loads(row.raw)["content"] == "c"
    assert run(store, target, max_quarantined=1).outcome == "proven"


def test_a_sync_finds_changes_conflicts_and_deletions(tmp_path: Path) -> None:
    lines = graph()
    source, store = write(tmp_path / "a.json", lines), str(tmp_path / "b.db")
    out = tmp_path / "c.json"
    target = f"jsonl:{out}?profile=server-memory"
    # The server has been at work there before.
    theirs = {"type": "entity", "name": "Theirs", "entityType": "t", "observations": ["x"]}
    write(out, [theirs])
    run(source, store)
    assert run(store, target).outcome == "proven"

    lines[7]["observations"].append("one more")
    gone = lines.pop(9)
    write(tmp_path / "a.json", lines)
    run(source, store, delete=True)
    held = load(out)
    edited = next(line for line in held if line["name"] == lines[1]["name"])
    edited["observations"].append("added by the server")
    write(out, held)
    second = run(store, target)
    assert (second.outcome, second.books.of("entity").written) == ("not_proven", 1)
    assert [c["id"] for c in second.conflicts] == [edited["name"]]
    assert second.verification is not None
    assert [(f.what, f.id) for f in second.verification.findings] == [("extra", gone["name"])]
    third = run(store, target, delete=True, on_conflict="source")
    assert (third.outcome, third.books.total("deleted")) == ("proven", 1)
    assert canonical(load(out)) == canonical([theirs, *lines])


@pytest.mark.parametrize("existed", [False, True])
def test_a_rollback_puts_the_file_back(tmp_path: Path, *, existed: bool) -> None:
    out = tmp_path / "out.json"
    source, target = write(tmp_path / "a.json", graph()), f"jsonl:{out}?profile=server-memory"
    if existed:
        write(out, [{"type": "entity", "name": "Entity 1 \u00e9", "entityType": "theirs", "observations": []}])
        before = out.read_bytes()
        with pytest.raises(RefusedError) as refused:
            run(source, target)
        assert refused.value.code == "existing"
    result = run(source, target, on_existing="overwrite")
    assert result.outcome == "proven"
    roll_back(target, result.migration)
    assert out.exists() == existed
    if existed:
        assert out.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", *(["out.json"] if existed else [])]
    assert run(source, target, on_existing="overwrite").outcome == "proven"


def process(source: str, target: str, failpoint: str = "") -> str:
    environment = {**os.environ, "MEMFERRY_FAILPOINT": failpoint}
    ended = forked.run("-c", RUNNER, source, target, environment=environment)
    assert ended.returncode in {0, -signal.SIGKILL}, ended.stderr
    return ended.stdout


def one(name: str, *observations: str) -> dict[str, Any]:
    return {"type": "entity", "name": name, "entityType": "t", "observations": list(observations)}


def test_after_the_state_was_lost_a_rollback_takes_back_what_the_new_one_knows(tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    source, target = (
        write(tmp_path / "a.json", [one("ann", "1")]),
        write(out, [one("ann", "precious"), one("bob", "b")]),
    )
    run(source, target, on_existing="overwrite")
    folder = tmp_path / "out.json.memferry"
    [original] = folder.glob("previous-*")
    shutil.rmtree(os.environ["MEMFERRY_STATE_DIR"])
    between = load(out)
    write(tmp_path / "a.json", [one("ann", "1"), one("new", "2")])
    again = run(source, target, on_existing="overwrite")
    assert roll_back(target, again.migration) == RolledBack(restored=1)
    assert load(out) == between
    # Nobody knows any more whose it is, so it stays.
    assert [path for path in folder.iterdir() if path.name.startswith("previous-")] == [original]
    assert load(original)[0]["observations"] == ["precious"]


def test_two_state_directories_know_nothing_of_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, first = tmp_path / "out.json", os.environ["MEMFERRY_STATE_DIR"]
    source, target = write(tmp_path / "a.json", [one("ann", "1")]), write(out, [one("ann", "precious")])
    migration = run(source, target, on_existing="overwrite").migration
    monkeypatch.setenv("MEMFERRY_STATE_DIR", str(tmp_path / "other"))
    write(tmp_path / "a.json", [one("ann", "1"), one("new", "2")])
    between = load(out)
    assert run(source, target, on_existing="overwrite").migration == migration
    monkeypatch.setenv("MEMFERRY_STATE_DIR", first)
    with pytest.raises(RefusedError, match="has been changed since"):
        roll_back(target, migration)
    monkeypatch.setenv("MEMFERRY_STATE_DIR", str(tmp_path / "other"))
    assert roll_back(target, migration) == RolledBack(restored=1)
    assert load(out) == between
    monkeypatch.setenv("MEMFERRY_STATE_DIR", first)
    assert roll_back(target, migration) == RolledBack(restored=1)
    assert load(out)[0]["observations"] == ["precious"]
    assert not (tmp_path / "out.json.memferry").exists()


POINTS = ("planned", "prepared", "written", "booked", "committed", "before-finish", "intended", "acknowledged")


@pytest.mark.parametrize("failpoint", [*POINTS, "written:3", "committed:3", "after-finish", "copied"])
def test_killed_anywhere_the_same_command_finishes(tmp_path: Path, failpoint: str) -> None:
    lines, out = graph(), tmp_path / "out.json"
    store, target = str(tmp_path / "b.db"), f"jsonl:{out}?profile=server-memory"
    source = write(tmp_path / "a.json", lines)
    run(source, store)
    before = write(out, [{"type": "entity", "name": lines[2]["name"], "entityType": "theirs", "observations": ["x"]}])
    assert before == target
    process(store, target, failpoint)
    assert process(store, target) == "proven 0 True\n"
    assert canonical(load(out)) == canonical(lines)
    for line in lines[:20]:
        line["observations"] = ["later"]
    write(tmp_path / "a.json", lines)
    run(source, store, delete=True, max_deletes_percent=100.0)
    process(store, target, failpoint)
    assert process(store, target) == "proven 0 True\n"
    assert canonical(load(out)) == canonical(lines)
    # Nothing of the sort stays behind.
    assert not list(Path(os.environ["MEMFERRY_STATE_DIR"]).rglob("gather-*"))


# -- map, filter, dedup on the way into a file that nests


def memories(tmp_path: Path) -> tuple[str, str]:
    """A store with everything of the graph, and the file it goes to."""
    source = str(tmp_path / "s.db")
    assert run(write(tmp_path / "a.json", graph()), source).outcome == "proven"
    return source, f"jsonl:{tmp_path / 'out.json'}?profile=server-memory"


def lists(path: Path) -> dict[str, list[str]]:
    return {line["name"]: line.get("observations", []) for line in load(path) if line["type"] == "entity"}


def test_observations_are_chosen_one_by_one(tmp_path: Path) -> None:
    source, target = memories(tmp_path)
    where = 'kind != "observation" || !content.startsWith("seen 1")'
    expected = {
        name: [t for t in texts if not t.startswith("seen 1")] for name, texts in lists(tmp_path / "a.json").items()
    }
    gone = sum(len(texts) for texts in lists(tmp_path / "a.json").values()) - sum(map(len, expected.values()))
    # Their places are a part of their ids, and the lists close up.
    with pytest.raises(RefusedError) as caught:
        run(source, target, transform=Decisions(where=where))
    assert (caught.value.code, "ids (" in str(caught.value)) == ("gap", True)
    result = run(source, target, transform=Decisions(where=where), accept=("ids",))
    assert (result.outcome, result.books.of("observation").filtered) == ("partial", gone)
    assert result.books.of("observation").nested == sum(map(len, expected.values()))
    assert lists(tmp_path / "out.json") == expected
    assert verify_only(parse_url(source), parse_url(target), Options()).outcome == "partial"
    again = run(source, target, transform=Decisions(where=where), accept=("ids",))
    assert (again.outcome, again.books.total("written"), again.books.total("conflicts")) == ("partial", 0, 0)


def test_observations_stay_behind_with_their_entities(tmp_path: Path) -> None:
    source, target = memories(tmp_path)
    result = run(source, target, transform=Decisions(where='kind != "entity" || type == "person"'))
    kept = {name: texts for name, texts in lists(tmp_path / "a.json").items() if int(name.split()[1]) % 2}
    assert lists(tmp_path / "out.json") == kept
    books = result.books.of("observation")
    assert (result.outcome, books.nested, books.quarantined) == ("partial", sum(map(len, kept.values())), 0)
    assert books.filtered == books.read - books.nested
    # A second run without it brings the rest.
    whole = run(source, target)
    assert whole.outcome == "proven"
    assert canonical(load(tmp_path / "out.json")) == canonical(graph())


def test_a_mapping_reaches_observations_before_they_are_gathered(tmp_path: Path) -> None:
    source = tmp_path / "s.jsonl"
    records: list[dict[str, Any]] = [{"kind": "entity", "id": "ann", "extra": {"what": "person"}}]
    records += [
        {"kind": "observation", "id": f"ann#{i}", "owner_id": "ann", "extra": {"$position": i, "said": f"text {i}"}}
        for i in range(3)
    ]
    source.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    target = f"jsonl:{tmp_path / 'out.json'}?profile=server-memory"
    table = """
[[move]]
from = "extra.what"
to = "type"
kinds = ["entity"]
[[move]]
from = "extra.said"
to = "content"
"""
    result = run(str(source), target, transform=Decisions(mapping=parse_mapping(table.encode(), "table")))
    assert (result.outcome, result.books.of("observation").nested) == ("proven", 3)
    (line,) = load(tmp_path / "out.json")
    assert (line["entityType"], line["observations"]) == ("person", ["text 0", "text 1", "text 2"])


def test_what_is_said_twice_is_merged_before_it_is_gathered(tmp_path: Path) -> None:
    """An entity under two ids: the observations of the loser go into the list of the winner."""
    source = tmp_path / "s.jsonl"
    records: list[dict[str, Any]] = [
        {"kind": "entity", "id": identity, "name": "Ann", "type": "person"} for identity in ("a", "b")
    ]
    records += [
        {"kind": "observation", "id": f"{owner}-{i}", "owner_id": owner, "content": text}
        for owner in ("a", "b")
        for i, text in enumerate(["likes tea", f"of {owner}", f"of {owner}"])
    ]
    source.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    target = f"jsonl:{tmp_path / 'out.json'}?profile=server-memory"
    result = run(str(source), target, transform=Decisions(dedup="exact"), accept=("ids", "names"))
    books = result.books
    assert (result.outcome, books.of("entity").deduplicated, books.of("observation").deduplicated) == ("proven", 1, 2)
    (line,) = load(tmp_path / "out.json")
    # As they stood in the source "likes tea" of both were of different owners.
    assert line["observations"] == ["likes tea", "of a", "likes tea", "of b"]


@pytest.mark.parametrize("chosen", [{"sample": 20}, {"limit": 50}])
def test_some_of_the_records(tmp_path: Path, chosen: dict[str, int]) -> None:
    source, target = memories(tmp_path)
    result = run(source, target, transform=Decisions(**chosen), accept=("ids",))  # type: ignore[arg-type]
    counts = result.books
    assert (result.outcome, counts.total("quarantined")) == ("partial", 0)
    assert counts.total("written") + counts.total("nested") <= next(iter(chosen.values()))
    assert sum(map(len, lists(tmp_path / "out.json").values())) == counts.of("observation").nested
    assert verify_only(parse_url(source), parse_url(target), Options()).outcome == "partial"


def test_orphans_are_quarantined_whatever_is_chosen(tmp_path: Path) -> None:
    source = tmp_path / "s.jsonl"
    records = [
        {"kind": "entity", "id": "ann", "type": "t"},
        {"kind": "observation", "id": "nobody#0", "owner_id": "nobody", "content": "lost", "extra": {"$position": 0}},
    ]
    source.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    target = f"jsonl:{tmp_path / 'out.json'}?profile=server-memory"
    result = run(str(source), target, transform=Decisions(where="true"))
    assert (result.outcome, result.books.of("observation").quarantined) == ("not_proven", 1)
