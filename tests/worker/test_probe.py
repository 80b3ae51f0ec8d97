"""What a probe says of a MemoryBackend."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memferry.errors import RefusedError
from memferry.worker.pod import Pod
from memferry.worker.probe import probe
from support.switching import driving
from support.worker import Job, backend
from worker.conftest import MakeJob

BOUND: dict[str, Any] = {"cutover": {"bindingRef": {"name": "memory"}}, "transfer": {"shards": 1}}


def look(job: Job, name: str, **asked: str) -> dict[str, Any]:
    """Probes a MemoryBackend of a job, and what it is made of."""
    resources = {one["metadata"]["name"]: one for one in job.resources}
    halves = [ref["name"] for key in ("graphRef", "vectorsRef") if (ref := resources[name]["spec"].get(key))]
    text = "\n---\n".join(json.dumps(resources[one]) for one in [name, *halves])
    folder = job.root / "folder"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "migration.yaml").write_text(text, "utf-8")
    pod = Pod.of(folder, job.claims, job.variables(MEMFERRY_RESULT="r", MEMFERRY_PROBE="2-1"))
    return probe(replace(pod, journals=json.dumps(asked)))


@pytest.mark.parametrize(
    ("kind", "version"), [("embedded", False), ("jsonl", False), ("qdrant", False), ("hybrid", True)]
)
def test_a_store_and_its_journal(kind: str, version: bool, make_job: MakeJob) -> None:
    job = make_job(kind, records=40, **BOUND)
    told = look(job, "b", memory="t1")
    assert (told["probe"], told["identity"], told["reachable"]) == ("2-1", told["identity"], True)
    assert told["journals"] == {"memory": {"since": "t1", "journal": None}}, "nothing is there yet"
    job.done("plan")
    job.done("transfer")
    job.done("verify")
    entry = {"revision": 4, "mode": "Serving", "active": "b", "frozenUntil": None, "lockedBy": "u"}
    with driving(job) as driver:
        driver.done("Journal", **entry)
    source, target = look(job, "a", memory="t2", other="t3"), look(job, "b", memory="t2", other="t3")
    for told in (source, target):
        assert "error" not in told
        none = {"since": "t3", "journal": None}
        assert told["journals"] == {"memory": {"since": "t2", "journal": entry}, "other": none}
    assert source["records"] == sum(source["counts"].values()) > 40
    counted = kind in {"embedded", "qdrant"}
    assert target["records"] == (source["records"] if counted else None), "the others would have to be read"
    assert bool(target["version"]) == version
    assert ("vector-search" in target["capabilities"]) == (kind != "jsonl")


def test_a_store_that_is_away(tmp_path: Path) -> None:
    job = Job(tmp_path, [backend("a", backend="qdrant", address="127.0.0.1:9", collection="c")])
    told = look(job, "a", memory="t1")
    assert (told["reachable"], told["error"]["code"]) == (False, "unavailable")
    assert told["journals"]["memory"]["error"]["code"] == "unavailable", "that is not an empty journal"


def test_a_secret_that_is_not_there(tmp_path: Path) -> None:
    key = {"secretRef": {"name": "qdrant", "key": "key"}}
    job = Job(tmp_path, [backend("a", backend="qdrant", address="127.0.0.1:9", collection="c", apiKey=key)])
    told = look(job, "a", memory="t1")
    assert (told["reachable"], told["error"]["code"]) == (False, "manifest")
    assert told["journals"]["memory"]["error"]["code"] == "manifest"


def test_a_probe_is_of_one_backend(tmp_path: Path) -> None:
    job = Job(tmp_path, [backend(name, backend="embedded", claimName="c", path="x.db") for name in "ab"])
    (tmp_path / "folder").mkdir()
    text = "\n---\n".join(json.dumps(one) for one in job.resources)
    (tmp_path / "folder" / "migration.yaml").write_text(text, "utf-8")
    with pytest.raises(RefusedError, match="2 MemoryBackends to look at, needed: 1"):
        probe(Pod.of(tmp_path / "folder", tmp_path, job.variables(MEMFERRY_RESULT="r")))
