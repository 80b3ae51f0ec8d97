"""The same searches on both ends."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import memferry
from memferry import Record, RefusedError, Store, Vector
from memferry.application import Hit
from memferry.phases import parity as phase
from memferry.phases.parity import Parity
from testbed.forked import Done, run

DIM = 16


def _records(count: int) -> list[Record]:
    rng = random.Random(7)

    def unit() -> Vector:
        numbers = [rng.gauss(0, 1) for _ in range(DIM)]
        length = math.hypot(*numbers)
        return Vector.dense([number / length for number in numbers])

    records = [Record("memory", f"m{i:04}", content=f"text {i}", vectors=[unit()]) for i in range(count)]
    # As near as each other: either is the right answer.
    records += [Record("memory", f"twin{i:02}", vectors=records[0].vectors) for i in range(15)]
    return [
        *records,
        Record("memory", "none"),
        Record("memory", "zero", vectors=[Vector.dense([0.0] * DIM)]),
        Record("entity", "e", vectors=[Vector.sparse({1: 1.0}, name="sparse")]),
    ]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source.db"
    with memferry.open(path) as store:
        store.put(_records(300))
    return path


@pytest.mark.parametrize("backend", ["embedded", "qdrant", "neo4j"])
def test_both_ends_find_the_same(source: Path, make_url: Callable[..., str], backend: str) -> None:
    told: list[str] = []
    result = memferry.migrate(
        source, make_url(backend), parity=20, min_recall=0.9, progress=lambda phase, *_: told.append(phase)
    )
    assert result.outcome == "proven"
    parity = result.parity
    assert isinstance(parity, Parity)
    assert (parity.samples, parity.neighbours, parity.indexed, parity.source_recall) == (20, 10, True, 1.0)
    assert parity.overlap is not None
    assert parity.target_recall is not None
    assert parity.overlap >= 0.9
    assert parity.target_recall >= 0.95
    for millis in (parity.source_millis, parity.target_millis):
        assert 0 < millis["p50"] <= millis["p95"]
    assert told.count("parity") == 20
    final: dict[str, Any] = result.to_json()["parity"]
    assert final["target_recall"] == parity.target_recall


def test_only_neighbours_by_the_metric_of_the_store_are_right(make_url: Callable[..., str], tmp_path: Path) -> None:
    """By dot product long vectors are near to everything; by cosine their directions count."""
    rng = random.Random(1)
    url = make_url("qdrant", distance="dot")
    with memferry.open(url) as store:
        for i in range(200):
            length = 10 ** rng.uniform(-2, 2)
            vector = Vector.dense([rng.gauss(0, 1) * length for _ in range(8)])
            store.put(Record("memory", f"m{i:04}", vectors=[vector]))
    result = memferry.migrate(url, tmp_path / "copy.db", parity=20, min_recall=0.9)
    assert result.parity is not None
    assert result.parity.source_recall == 1.0
    assert result.parity.target_recall == result.parity.overlap
    assert result.outcome == "not_proven"


def test_a_server_as_the_source(source: Path, make_url: Callable[..., str], tmp_path: Path) -> None:
    url = make_url("qdrant")
    assert memferry.migrate(source, url).outcome == "proven"
    result = memferry.migrate(url, tmp_path / "back.db", parity=5)
    assert result.parity is not None
    assert result.parity.target_recall == 1.0


def _broken(monkeypatch: pytest.MonkeyPatch, target: Path) -> None:
    """Makes the target's searches miss the first half of what they should find."""
    search = Store.search

    def worse(self: Store, text: str | None = None, **wanted: Any) -> list[Hit]:
        hits = search(self, text, **wanted)
        return hits if str(target) not in self._url.text else hits[5:]

    monkeypatch.setattr(Store, "search", worse)


def test_too_little_recall_is_not_proven_only_if_it_was_asked_for(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target.db"
    assert memferry.migrate(source, target).outcome == "proven"
    _broken(monkeypatch, target)
    result = memferry.verify(source, target, parity=10)
    assert result.parity is not None
    assert (result.outcome, result.parity.source_recall) == ("proven", 1.0)
    assert result.parity.target_recall == pytest.approx(0.5, abs=0.01)
    assert result.parity.overlap == pytest.approx(0.5, abs=0.05)
    assert memferry.verify(source, target, parity=10, min_recall=0.4).outcome == "proven"
    low = memferry.verify(source, target, parity=10, min_recall=0.6)
    assert (low.outcome, low.exit_code) == ("not_proven", 1)
    assert memferry.migrate(source, target, parity=10, min_recall=0.6).outcome == "not_proven"


def test_the_same_source_gives_the_same_samples(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    search = Store.search

    def noting(self: Store, text: str | None = None, **wanted: Any) -> list[Hit]:
        asked.append(bytes(wanted["vector"]))
        return search(self, text, **wanted)

    monkeypatch.setattr(Store, "search", noting)
    seen = []
    for name in ("a", "b"):
        memferry.migrate(source, tmp_path / f"{name}.db", parity=8, parallelism=2 if name == "a" else 1)
        seen.append(asked[:])
        asked.clear()
    assert seen[0] == seen[1]
    assert len(set(seen[0])) == 8


def test_nothing_to_search(tmp_path: Path) -> None:
    source = tmp_path / "a.db"
    with memferry.open(source) as store:
        store.put(Record("memory", "m"))
    result = memferry.migrate(source, tmp_path / "b.db", parity=3, min_recall=1.0)
    assert result.outcome == "proven"
    assert result.parity is not None
    assert (result.parity.samples, result.parity.overlap, result.parity.target_millis) == (0, None, {})


def test_stores_that_cannot_be_searched_are_refused_before_anything_is_written(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.jsonl"
    with pytest.raises(RefusedError) as caught:
        memferry.migrate(source, target, parity=3)
    assert caught.value.code == "unsupported"
    assert not target.exists()
    assert memferry.migrate(source, target).outcome == "proven"
    with pytest.raises(RefusedError) as caught:
        memferry.verify(source, target, parity=3)
    assert caught.value.code == "unsupported"


def test_stores_that_are_not_to_hold_the_same_are_not_compared(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "b.db"
    with pytest.raises(RefusedError) as caught:
        memferry.migrate(source, target, parity=3, limit=5)
    assert caught.value.code == "unsupported"
    assert not target.exists()
    assert memferry.migrate(source, target, where='kind == "entity"').outcome == "partial"
    with pytest.raises(RefusedError) as caught:
        memferry.verify(source, target, parity=3)
    assert caught.value.code == "unsupported"


def test_an_index_that_is_not_built_in_time_is_told(
    source: Path, make_url: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    deadlines: list[float] = []

    def never(self: Store, deadline_secs: float) -> bool:
        deadlines.append(deadline_secs)
        return False

    monkeypatch.setattr(Store, "wait_indexed", never)
    result = memferry.migrate(source, make_url("embedded"), parity=1)
    assert result.parity is not None
    assert not result.parity.indexed
    assert deadlines == [phase.INDEX_DEADLINE_SECS] * 2


def _cli(*arguments: str, cwd: Path) -> Done:
    return run("-m", "memferry", *arguments, folder=cwd)


def test_the_command_line(source: Path, tmp_path: Path) -> None:
    done = _cli("migrate", "source.db", "b.db", "--parity", "4", "--min-recall", "0.9", "--json", "-q", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    final = json.loads(done.stdout)
    assert (final["outcome"], final["parity"]["samples"], final["parity"]["target_recall"]) == ("proven", 4, 1.0)
    text = _cli("verify", "source.db", "b.db", "--parity", "4", "-q", cwd=tmp_path).stdout
    assert "recall@10: source 1.000, target 1.000" in text
    assert "overlap 1.000" in _cli("report", "b.db", cwd=tmp_path).stdout
    refused = _cli("migrate", "source.db", "b.jsonl", "--parity", "4", "--json", cwd=tmp_path)
    assert refused.returncode == 2
    assert json.loads(refused.stdout)["error"]["code"] == "unsupported"
    assert _cli("migrate", "source.db", "b.db", "--min-recall", "0.9", cwd=tmp_path).returncode == 2
