"""Kill -9 at random instants, again and again, then the same command: nothing missing, nothing twice.

`MEMFERRY_CRASH_RUNS` sets how many runs; each has its own seed and prints what it did when it fails.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from testbed.qdrant import QdrantServer

RUNS = int(os.environ.get("MEMFERRY_CRASH_RUNS", "60"))
RECORDS = 1_500
STORES = ["embedded", "jsonl", "jsonl.zst", "qdrant"]
KILLS: list[float] = []
"""When a kill really struck."""
RUNNER = """
import sys
import time
from memferry.phases import plan
from memferry.phases.migrate import migrate
from memferry.model import Limits
from memferry.urls import parse_url
plan.ROWS_PER_RANGE, plan.BYTES_PER_RANGE = 200, 30_000
options = plan.Options(limits=Limits(records=40), parallelism=4, delete=len(sys.argv) > 3)
print("started", flush=True)
result = migrate(parse_url(sys.argv[1]), parse_url(sys.argv[2]), options)
print(result.outcome, result.books.balanced(), result.books.total("read"))
"""


def documents(seed: int) -> list[dict[str, object]]:
    rng = random.Random(seed)
    records: list[dict[str, object]] = [
        {"kind": "memory", "id": f"m{i}", "content": f"text {rng.random()}", "extra": {"n": i}} for i in range(RECORDS)
    ]
    return records + [{"kind": "entity", "id": f"m{i}", "name": str(i)} for i in range(50)]


def write(path: Path, records: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(r) + "\n" for r in records), "utf-8")


def move(*arguments: str, kill_after_secs: float | None = None) -> str:
    """Runs one migration; with a time it is killed that long after it started."""
    command = [sys.executable, "-c", RUNNER, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        if process.stdout.readline() == "started\n" and kill_after_secs is not None:
            try:
                process.wait(kill_after_secs)
            except subprocess.TimeoutExpired:
                process.kill()
        out, error = process.communicate()
    if process.returncode == -signal.SIGKILL:
        KILLS.append(time.monotonic())
    else:
        assert process.returncode == 0, error
    return out


@pytest.mark.parametrize("seed", range(RUNS))
def test_killed_at_random_the_same_command_finishes(
    seed: int,
    tmp_path: Path,
    qdrant_server: QdrantServer,
    qdrant_prefix: str,
    record_property: Callable[[str, object], None],
) -> None:
    rng = random.Random(seed)
    store = STORES[seed % len(STORES)]
    source, check = tmp_path / "source.jsonl", tmp_path / "check.jsonl"
    target = str(tmp_path / f"target.{'db' if store == 'embedded' else store}")
    if store == "qdrant":
        target = f"qdrant://{qdrant_server.host}:{qdrant_server.port}/{qdrant_prefix}kills"
    records = documents(seed)
    write(source, records)
    before = len(KILLS)
    for _ in range(rng.randrange(1, 4)):
        move(str(source), target, kill_after_secs=rng.uniform(0.0, 0.25))
    assert move(str(source), target) == f"proven True {len(records)}\n"

    # A sync with changes and deletions, killed as well.
    kept = [dict(record, changed=True) if rng.random() < 0.05 else record for record in records if rng.random() > 0.03]
    write(source, kept)
    move(str(source), target, "delete", kill_after_secs=rng.uniform(0.0, 0.25))
    assert move(str(source), target, "delete") == f"proven True {len(kept)}\n"

    # Read back to a file and compared without memferry's own digests.
    assert move(target, str(check)) == f"proven True {len(kept)}\n"
    found = [json.loads(line) for line in check.read_text("utf-8").splitlines()]
    assert len(found) == len(kept)
    assert {_plain(d) for d in found} == {_plain(d) for d in kept}
    record_property("kills", len(KILLS) - before)


def _plain(document: dict[str, object]) -> str:
    """Kind, id and everything else of a document, wherever unknown members ended up, the marker apart."""
    flat = {key: value for key, value in document.items() if key != "_memferry"}
    return json.dumps(flat, sort_keys=True)
