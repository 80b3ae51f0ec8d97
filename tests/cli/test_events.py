"""Progress for programs: `--events`, and `status` while a run is at work and after it was killed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from memferry.cli.progress import Events, Meter
from support.checker import last_json
from support.cli import memferry
from support.documents import plain_documents, write_jsonl
from support.manifest_docs import backend, migration

RUNNER = Path(__file__).parents[1] / "support" / "runner.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_jsonl(tmp_path / "memory.jsonl", plain_documents(400, seed=5))
    return tmp_path


def test_events_in_a_file(folder: Path) -> None:
    for _ in range(2):
        assert memferry(folder, "migrate", "memory.jsonl", "agents.db", "--events", "e.ndjson").returncode == 0
    events = [json.loads(line) for line in (folder / "e.ndjson").read_text().splitlines()]
    assert [e["event"] for e in events if e["event"] != "progress"] == ["started", "finished"] * 2, "it is appended to"
    assert events[0]["format"] == 1
    assert events[0]["command"] == "memferry migrate memory.jsonl agents.db --events e.ndjson"
    assert (events[-1]["exit_code"], events[-1]["outcome"]) == (0, "proven")
    progress = [e for e in events if e["event"] == "progress"]
    assert list(dict.fromkeys(e["phase"] for e in progress)) == ["plan", "copy", "verify"]
    assert {(e["phase"], e["records"]) for e in progress} >= {("plan", 400), ("copy", 400), ("verify", 800)}
    assert all(set(e) == {"event", "at", "phase", "records", "total", "rate", "eta_secs"} for e in progress)
    times = [datetime.fromisoformat(e["at"]) for e in events]
    assert times == sorted(times)


def test_events_on_stderr_are_all_there_is(folder: Path) -> None:
    done = memferry(folder, "migrate", "nothing.jsonl", "agents.db", "--events", "-", "--json")
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [e["event"] for e in events] == ["started", "message", "finished"]
    assert (events[-1]["exit_code"], events[-1]["error"]["code"]) == (2, "store-missing")
    assert last_json(done.stdout)["error"]["code"] == "store-missing"
    done = memferry(folder, "migrate", "memory.jsonl", "agents.db", "--events", "-")
    assert {json.loads(line)["event"] for line in done.stderr.splitlines()} == {"started", "progress", "finished"}
    assert "proven" in done.stdout


def test_a_place_for_events_that_is_none(folder: Path) -> None:
    before = sorted(folder.rglob("*"))
    done = memferry(folder, "migrate", "memory.jsonl", "agents.db", "--events", "no/e.ndjson", "--json")
    assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, "invalid")
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize("name", ["memory.jsonl", "link", "agents.db"])
def test_events_are_appended_to_no_store(folder: Path, name: str) -> None:
    (folder / "link").symlink_to("memory.jsonl")
    ends = [backend("a", "{backend: jsonl, path: memory.jsonl}"), backend("b", "{backend: embedded, path: agents.db}")]
    manifest = "---\n".join([*ends, migration()])
    (folder / "migration.yaml").write_text(manifest)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for done in (
        memferry(folder, "migrate", "memory.jsonl", "agents.db", "--events", name, "--json"),
        memferry(folder, "quarantine", "retry", "agents.db", "--source", "memory.jsonl", "--events", name, "--json"),
        memferry(folder, "apply", "-f", "migration.yaml", "--events", name, "--json"),
        memferry(folder, "apply", "-f", "-", "--events", name, "--json", text=manifest),
    ):
        assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, "invalid"), done.stderr
        assert "that is the store" in done.stderr
        assert {path: path.read_bytes() for path in folder.iterdir()} == before
    done = memferry(folder, "apply", "-f", "-", "--events", "e.ndjson", "--json", text=manifest)
    assert (done.returncode, last_json(done.stdout)["outcome"]) == (0, "proven"), done.stderr
    done = memferry(folder, "apply", "-f", "-", "--events", "e.ndjson", "--json", text="{nothing")
    assert (done.returncode, last_json(done.stdout)["error"]["code"]) == (2, "manifest"), done.stderr
    assert json.loads((folder / "e.ndjson").read_text().splitlines()[-1])["error"]["code"] == "manifest"


def test_a_full_disk_ends_the_events_and_nothing_else(folder: Path) -> None:
    done = memferry(folder, "migrate", "memory.jsonl", "agents.db", "--events", "/dev/full")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("no more events") == 1


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_events_are_bounded_and_the_last_of_a_phase_is_told() -> None:
    clock, stream = Clock(), io.StringIO()
    events = Events(stream, clock)
    for phase in ("copy", "verify"):
        for records in range(1000):
            events.progress(phase, records, None)
            clock.now += 0.001
    events.settle()
    told: list[dict[str, Any]] = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert len(told) <= 10
    for phase in ("copy", "verify"):
        assert [e["records"] for e in told if e["phase"] == phase][-1] == 999


def test_what_an_earlier_process_did_is_not_counted_in_the_rate() -> None:
    clock = Clock()
    meter = Meter(clock)
    assert meter.read("copy", 9000, 10_000).rate is None
    clock.now += 10
    reading = meter.read("copy", 9500, 10_000)
    assert (reading.rate, reading.eta_secs) == (50.0, 10.0)
    assert meter.read("verify", 1, None).eta_secs is None


def test_status_of_a_run_at_work_and_of_one_that_was_killed(folder: Path) -> None:
    command = ["migrate", "memory.jsonl", "agents.db", "--json"]
    environment = {n: v for n, v in os.environ.items() if not n.startswith("MEMFERRY_")}
    with subprocess.Popen(
        [sys.executable, RUNNER, *command],
        cwd=folder,
        env={**environment, "MEMFERRY_TEST_PAUSE": "x-ledger:30"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == ["started\n", "paused\n"]
            done = memferry(folder, "status", "agents.db", "--json")
            [row] = last_json(done.stdout)
            assert (row["state"], row["rows"], row["outcome"], row["resume"]) == ("copying", 400, None, None), row
            assert row["lock"]["pid"] == process.pid
            assert row["lock"]["alive"]
            assert 0 <= row["percent"] < 100
            assert row["running_secs"] >= 0
            text = memferry(folder, "status", "agents.db").stdout
            assert f"process {process.pid}" in text
            assert max(map(len, text.splitlines())) <= 80
        finally:
            process.send_signal(signal.SIGKILL)
    [row] = last_json(memferry(folder, "status", "agents.db", "--json").stdout)
    assert not row["lock"]["alive"]
    assert row["resume"] == "memferry migrate memory.jsonl agents.db --json"
    inside = folder / "elsewhere"
    inside.mkdir()
    text = memferry(inside, "status", "../agents.db").stdout
    assert f"cd {folder} && memferry migrate memory.jsonl agents.db --json" in text
    done = memferry(folder, *command)
    assert (done.returncode, last_json(done.stdout)["resumed"]) == (0, True), done.stderr
    [row] = last_json(memferry(folder, "status", "agents.db", "--json").stdout)
    assert (row["state"], row["percent"], row["outcome"], row["lock"], row["resume"]) == (
        "done",
        100.0,
        "proven",
        None,
        None,
    )


def test_status_changes_nothing(folder: Path) -> None:
    assert memferry(folder, "migrate", "memory.jsonl", "agents.db").returncode == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert memferry(folder, "status", "agents.db").returncode == 0
    assert {path: path.read_bytes() for path in folder.iterdir() if not path.name.endswith(("-wal", "-shm"))} == before
