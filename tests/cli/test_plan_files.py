"""Saved plans, quick plans, estimates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memferry.model import Books, KindBooks
from memferry.phases.plan import Options, Plan
from memferry.phases.stages import judge
from memferry.phases.verify import Verification
from support.checker import differences, last_json, read_embedded, read_jsonl
from support.cli import memferry
from support.documents import memory, plain_documents, write_jsonl
from testbed.qdrant import QdrantServer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "memory.jsonl", plain_documents(60, seed=5))
    return tmp_path


def refused(folder: Path, *arguments: str) -> tuple[str, str]:
    done = memferry(folder, *arguments, "--json")
    assert done.returncode == 2, done.stderr
    error = last_json(done.stdout)["error"]
    return error["code"], error["message"]


def test_a_saved_plan_is_carried_out(folder: Path) -> None:
    done = memferry(folder, "plan", "memory.jsonl", "agents.db", "--save", "plan.json")
    assert done.returncode == 0, done.stderr
    assert "memferry migrate memory.jsonl agents.db --plan plan.json" in done.stderr
    assert "roughly" in done.stdout
    assert not (folder / "agents.db").exists()
    done = memferry(folder, "migrate", "memory.jsonl", "agents.db", "--plan", "plan.json", "--json")
    assert (done.returncode, last_json(done.stdout)["outcome"]) == (0, "proven"), done.stderr
    assert differences(read_jsonl(folder / "memory.jsonl"), read_embedded(folder / "agents.db")) == []


def test_a_changed_source_is_refused_before_anything_is_written(folder: Path) -> None:
    memferry(folder, "plan", "memory.jsonl", "agents.db", "--save", "plan.json")
    documents = plain_documents(60, seed=5)
    write_jsonl(folder / "memory.jsonl", [*documents, memory("new")])
    before = sorted(folder.rglob("*"))
    code, message = refused(folder, "migrate", "memory.jsonl", "agents.db", "--plan", "plan.json")
    assert code == "plan-changed"
    assert "the source has changed (memory 24 -> 25)" in message
    assert sorted(folder.rglob("*")) == before
    code, _ = refused(folder, "migrate", "memory.jsonl", "agents.db", "--plan", "plan.json", "--dry-run")
    assert code == "plan-changed"


def test_a_source_with_other_contents_is_refused(folder: Path) -> None:
    memferry(folder, "plan", "memory.jsonl", "agents.db", "--save", "plan.json")
    lines = (folder / "memory.jsonl").read_text().splitlines()
    changed = [json.dumps({**json.loads(line), "content": "other"}) if "m00000" in line else line for line in lines]
    assert changed != lines
    (folder / "memory.jsonl").write_text("\n".join(changed) + "\n")
    _, message = refused(folder, "migrate", "memory.jsonl", "agents.db", "--plan", "plan.json")
    assert "with other contents" in message


@pytest.mark.parametrize("target", ["agents.db", "copy.jsonl"])
def test_a_changed_target_is_refused(folder: Path, target: str) -> None:
    memferry(folder, "plan", "memory.jsonl", target, "--save", "plan.json")
    write_jsonl(folder / "other.jsonl", [memory("o")])
    assert memferry(folder, "migrate", "other.jsonl", target).returncode == 0
    _, message = refused(folder, "migrate", "memory.jsonl", target, "--plan", "plan.json")
    assert "the target has changed (records 0 -> 1)" in message


def test_another_store_is_refused(folder: Path) -> None:
    memferry(folder, "plan", "memory.jsonl", "copy.jsonl", "--save", "plan.json")
    write_jsonl(folder / "other.jsonl", plain_documents(60, seed=5))
    _, message = refused(folder, "migrate", "other.jsonl", "agents.db", "--plan", "plan.json")
    assert "the source is jsonl:" in message
    assert "the target is embedded:" in message


def test_accepted_gaps_are_those_of_the_plan(folder: Path, qdrant_server: QdrantServer, qdrant_prefix: str) -> None:
    target = f"qdrant://{qdrant_server.host}:{qdrant_server.port}/{qdrant_prefix}p"
    gap = ["--accept", "vector-lengths"]
    assert memferry(folder, "plan", "memory.jsonl", target, *gap, "--save", "plan.json").returncode == 0
    code, message = refused(folder, "migrate", "memory.jsonl", target, *gap, "--accept", "ids", "--plan", "plan.json")
    assert code == "plan-changed"
    assert "accepted gaps are" in message
    done = memferry(folder, "migrate", "memory.jsonl", target, "--plan", "plan.json", "--json")
    assert (done.returncode, last_json(done.stdout)["outcome"]) == (0, "proven"), done.stderr


def test_a_run_that_was_killed_resumes_with_its_plan_only(folder: Path) -> None:
    memferry(folder, "plan", "memory.jsonl", "agents.db", "--save", "plan.json")
    arguments = ["migrate", "memory.jsonl", "agents.db", "--plan"]
    killed = memferry(folder, *arguments, "plan.json", MEMFERRY_FAILPOINT="written:1")
    assert killed.returncode == -9
    saved = json.loads((folder / "plan.json").read_text())
    saved["plan"]["source_total"] = "0" * 32
    (folder / "other.json").write_text(json.dumps(saved))
    assert refused(folder, *arguments, "other.json")[0] == "plan-changed"
    done = memferry(folder, *arguments, "plan.json", "--json")
    assert (done.returncode, last_json(done.stdout)["resumed"]) == (0, True), done.stderr


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"memferry_plan": 1}', '{"memferry_plan": 2}', "\x00"])
def test_what_is_no_plan_is_refused(folder: Path, content: str | None) -> None:
    if content is not None:
        (folder / "plan.json").write_text(content)
    code, _ = refused(folder, "migrate", "memory.jsonl", "agents.db", "--plan", "plan.json")
    assert code == ("format-newer" if content and "2" in content else "invalid")
    assert not (folder / "agents.db").exists()


def test_a_plan_that_cannot_be_saved(folder: Path) -> None:
    (folder / "plan.json").mkdir()
    before = sorted(folder.rglob("*"))
    assert refused(folder, "plan", "memory.jsonl", "agents.db", "--save", "plan.json")[0] == "invalid"
    assert refused(folder, "plan", "memory.jsonl", "agents.db", "--save", "no/plan.json")[0] == "invalid"
    assert refused(folder, "plan", "memory.jsonl", "agents.db", "--save", ".")[0] == "invalid"
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["memory.jsonl", "link", "agents.db"])
def test_a_plan_is_saved_over_no_store(folder: Path, name: str) -> None:
    (folder / "link").symlink_to("memory.jsonl")
    before = (folder / "memory.jsonl").read_bytes()
    code, message = refused(folder, "plan", "memory.jsonl", "agents.db", "--save", name)
    assert (code, "that is the store" in message) == ("invalid", True)
    assert (folder / "memory.jsonl").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["link", "memory.jsonl"]


def test_a_quick_plan_reads_counts_only(folder: Path) -> None:
    assert memferry(folder, "migrate", "memory.jsonl", "agents.db").returncode == 0
    done = memferry(folder, "plan", "agents.db", "copy.db", "--quick", "--json")
    found: dict[str, Any] = last_json(done.stdout)
    assert (done.returncode, found["quick"], found["rows"], found["target"]) == (0, True, 60, None), done.stderr
    assert found["estimate_secs"] > 0
    assert "gaps" in found["not_looked_at"]
    text = memferry(folder, "plan", "agents.db", "copy.db", "--quick").stdout
    assert "from counts only" in text
    assert max(map(len, text.splitlines())) <= 80
    lines = memferry(folder, "plan", "memory.jsonl", "agents.db", "--quick").stdout
    assert "not counted without reading" in lines
    assert not (folder / "copy.db").exists()
    assert refused(folder, "plan", "agents.db", "copy.db", "--quick", "--save", "plan.json")[0] == "invalid"


@pytest.mark.parametrize(
    ("unchanged", "word", "outcome"),
    [
        (True, False, "proven"),
        (True, True, "proven"),
        (False, False, "matched_live"),
        (False, True, "not_proven"),
    ],
)
def test_a_source_that_was_to_stay_as_it_is(*, unchanged: bool, word: bool, outcome: str) -> None:
    plan = Plan("m", {}, {}, (), {}, 0, (), (), "00", 0, 0, (), ())
    books = Books({"memory": KindBooks(read=1, written=1)})
    found = judge(plan, books, Verification(source_unchanged=unchanged), Options(source_frozen=word))
    assert found == outcome
