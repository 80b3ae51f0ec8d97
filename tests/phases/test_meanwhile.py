"""Stores that others change while a migration is at work, and what a run leaves for the next one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memferry
from memferry import Decisions, RefusedError
from memferry.phases.migrate import Result, migrate, verify_only
from memferry.phases.plan import Options, Plan
from memferry.phases.quarantine import retry
from memferry.urls import parse_url
from testbed.qdrant import QdrantServer


def written(path: Path, *records: dict[str, Any]) -> str:
    """A JSONL store of memories."""
    path.write_text("".join(json.dumps({"kind": "memory"} | record) + "\n" for record in records), "utf-8")
    return str(path)


def held(store: str) -> dict[str, str | None]:
    """Contents by id."""
    with memferry.open(store, read_only=True) as opened:
        return {record.id: record.content for record in opened.list()}


def put(store: str, **contents: str) -> None:
    """What an application writes."""
    if store.endswith(".jsonl"):
        written(Path(store), *({"id": identity, "content": content} for identity, content in contents.items()))
        return
    with memferry.open(store) as opened:
        opened.put([memferry.Record("memory", identity, content=content) for identity, content in contents.items()])


def run(source: str, target: str, approve: Callable[[Plan], None] = lambda _: None, **chosen: Any) -> Result:
    return migrate(parse_url(source), parse_url(target), Options(**chosen), approve=approve)


@pytest.mark.parametrize("store", ["embedded", "jsonl", "qdrant"])
@pytest.mark.parametrize("there", [False, True], ids=["new", "empty"])
def test_what_was_written_after_the_plan_is_not_written_over(
    store: str, there: bool, tmp_path: Path, qdrant_server: QdrantServer, qdrant_prefix: str
) -> None:
    source = written(tmp_path / "a.jsonl", {"id": "m1", "content": "moved"}, {"id": "m2", "content": "moved"})
    target = {
        "embedded": str(tmp_path / "b.db"),
        "jsonl": str(tmp_path / "b.jsonl"),
        "qdrant": f"qdrant://{qdrant_server.host}:{qdrant_server.port}/{qdrant_prefix}b?distance=dot",
    }[store]
    if there:
        put(target, gone="")
        if store == "jsonl":
            Path(target).write_text("")
        else:
            with memferry.open(target) as opened:
                opened.delete("memory", "gone")
    result = run(source, target, approve=lambda _: put(target, m1="theirs"))
    assert (result.outcome, result.books.total("written"), len(result.conflicts)) == ("not_proven", 1, 1)
    assert held(target) == {"m1": "theirs", "m2": "moved"}


def test_a_record_whose_twin_has_gone_or_changed_is_missed(tmp_path: Path) -> None:
    for what in ("deleted", "changed", "another"):
        source, target = str(tmp_path / f"{what}.db"), str(tmp_path / f"{what}-copy.db")
        put(source, m1="tea", m2="tea", m3="coffee")

        def change(_: Plan, what: str = what, source: str = source) -> None:
            with memferry.open(source) as opened:
                if what == "deleted":
                    opened.delete("memory", "m1")
                else:
                    identity = "m1" if what == "changed" else "m3"
                    opened.put(memferry.Record("memory", identity, content="milk"))

        result = run(source, target, change, transform=Decisions(dedup="exact"))
        assert result.verification is not None
        found = [(one.what, one.id) for one in result.verification.findings]
        assert (result.outcome, found) == (
            ("matched_live", []) if what == "another" else ("not_proven", [("missing", "m2")])
        )
        assert run(source, target, transform=Decisions(dedup="exact")).outcome == "proven"
        assert set(held(target).values()) == set(held(source).values())


def test_deletions_that_are_refused_leave_nothing_unfinished(tmp_path: Path) -> None:
    records = [{"id": f"m{number}", "content": "x"} for number in range(20)]
    source, target = written(tmp_path / "a.jsonl", *records), str(tmp_path / "b.db")
    run(source, target)
    written(tmp_path / "a.jsonl", *records[:10])
    with pytest.raises(RefusedError) as caught:
        run(source, target, delete=True)
    assert caught.value.code == "max-deletes"
    written(tmp_path / "a.jsonl", *records, {"id": "new", "content": "x"})
    assert run(source, target, delete=True).outcome == "proven"
    assert len(held(target)) == 21


def test_what_a_run_was_allowed_to_quarantine_is_allowed_and_told_afterwards(tmp_path: Path) -> None:
    source = written(tmp_path / "a.jsonl", {"id": "m1", "content": "x"}, {"id": "m2", "vectors": 5})
    target = str(tmp_path / "b.db")
    assert run(source, target, max_quarantined=1).outcome == "proven"
    assert verify_only(parse_url(source), parse_url(target), Options()).outcome == "proven"
    retried = retry(parse_url(target), run(source, target, max_quarantined=1).migration, source_url=parse_url(source))
    assert retried.proof is not None
    assert (retried.moved, len(retried.left), retried.proof.outcome) == (0, 1, "proven")
