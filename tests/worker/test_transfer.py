"""Shards copied by several processes at once, one of them killed; two workers of one shard; what a Job sees of it."""

from __future__ import annotations

import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from memferry.ledger import Ledger
from memferry.manifest import MemoryBackend, read_manifest
from memferry.phases.copy import Pace
from memferry.phases.migrate import migrate
from memferry.phases.plan import Options, Stop
from memferry.resources import store
from memferry.stores import open_target
from memferry.urls import StoreUrl, parse_url
from memferry.worker.pod import InPod, Pod
from support.hybrid import total
from support.killing import Ended
from support.worker import Job
from worker.conftest import MakeJob

TARGETS = ["embedded", "qdrant", "neo4j"]


def url(job: Job, name: str) -> StoreUrl:
    """A store of a job, as its workers open it."""
    pod = Pod.of(job.root / "folder", job.claims, job.variables())
    manifest = read_manifest(job.root / "folder" / "migration.yaml")
    resources = [document.resource for document in manifest.documents]
    [found] = [r for r in resources if isinstance(r, MemoryBackend) and r.metadata.name == name]
    return store(manifest, None, found, "TARGET", InPod(pod))


def proven(job: Job, found: dict[str, Any], records: int) -> None:
    """The result of `verify`, and that the target is what one process would have made."""
    assert (found["outcome"], found["lossless"]) == ("proven", True)
    assert found["verify"] == {"compared": records, "missing": 0, "extra": 0, "different": 0, "foreign": 0}
    assert sum(kind["read"] for kind in found["kinds"].values()) == records
    alone = parse_url(str(job.root / "alone.db"))
    assert migrate(url(job, "a"), alone, Options()).outcome == "proven"
    assert total(url(job, "b")) == total(alone)


@pytest.mark.parametrize("kind", TARGETS)
def test_shards_side_by_side_one_killed_and_done_again(kind: str, make_job: MakeJob) -> None:
    job = make_job(kind, records=150, transfer={"shards": 3, "parallelism": 3})
    planned = job.done("plan")
    assert (planned["shards"], planned["records"], planned["wayBack"], planned["changes"]) == (3, 600, True, "scan")
    assert planned["ranges"] > 3
    assert job.done("plan") == planned

    with ExitStack() as workers:
        failpoints = ["", "booked:2", ""]
        begun = [
            workers.enter_context(job.begun("transfer", shard, MEMFERRY_FAILPOINT=failpoints[shard]))
            for shard in range(3)
        ]
        killed = begun[1].ended()
        assert killed.code == -signal.SIGKILL
        again = job.run("transfer", 1)
        assert again.code == 0, again.err
        assert [begun[shard].ended().code for shard in (0, 2)] == [0, 0]
    assert job.done("transfer", 1)["kinds"] == again.final()["kinds"]
    proven(job, job.done("verify"), 600)


@pytest.mark.parametrize("kind", TARGETS)
def test_the_older_of_two_workers_of_a_shard_writes_nothing_more(kind: str, make_job: MakeJob) -> None:
    job = make_job(kind, records=100, transfer={"shards": 1})
    job.done("plan")
    with job.begun("transfer", MEMFERRY_TEST_PAUSE="committed:2") as older:
        older.paused()
        before = range_states(job)
        # It cannot be seen to be alive from elsewhere: its token counts.
        with job.begun("transfer", MEMFERRY_POD_NAME="m-0-newer", MEMFERRY_FAILPOINT="committed:3") as newer:
            assert newer.ended().code == -signal.SIGKILL
        between = range_states(job)
        assert before != between
        older.go()
        fenced = older.ended()
        assert (fenced.code, last_error(fenced)) == (3, "fenced")
        assert range_states(job) == between
    assert job.done("transfer")["shard"] == 0
    proven(job, job.done("verify"), 400)


def range_states(job: Job) -> dict[int, str]:
    """What is done, as the ledger says."""
    target = open_target(url(job, "b"))
    try:
        [migration] = target.documents.migrations()
        return {number: state.to_json() for number, state in Ledger(target.documents, migration).states().items()}
    finally:
        target.close()


def last_error(found: Ended) -> str:
    """Code of the error on stderr."""
    told = [line for line in found.err.splitlines() if line.startswith("error[")]
    return told[-1].partition("]")[0].removeprefix("error[")


def test_a_worker_of_an_earlier_attempt_is_refused(make_job: MakeJob) -> None:
    job = make_job("embedded", records=30, transfer={"shards": 2})
    job.done("plan")
    job.attempt = 2
    assert job.done("plan")["shards"] == 2
    job.attempt = 1
    for verb in ("transfer", "plan", "verify"):
        found = job.run(verb)
        assert (found.code, last_error(found)) in {(3, "fenced"), (43, "plan-changed")}, verb
    job.attempt = 2
    assert [job.done("transfer", shard)["shard"] for shard in range(2)] == [0, 1]
    proven(job, job.done("verify"), 120)


def test_another_resource_of_the_same_stores_goes_on(make_job: MakeJob) -> None:
    """Attempts are counted by a resource; one that was made anew begins with 1 again."""
    job = make_job("embedded", records=30, transfer={"shards": 2})
    job.attempt = 3
    job.done("plan")
    job.done("transfer", 0)
    job.attempt, job.uid = 1, "uid-2"
    job.done("plan")
    assert [job.done("transfer", shard)["shard"] for shard in range(2)] == [0, 1]
    proven(job, job.done("verify"), 120)


@pytest.fixture
def planned(make_job: MakeJob) -> Job:
    job = make_job("embedded", records=60, transfer={"shards": 2})
    job.done("plan")
    return job


def test_sigterm_finishes_the_page_and_is_told_apart(planned: Job) -> None:
    with planned.begun("transfer", MEMFERRY_TEST_PAUSE="written:2") as worker:
        worker.paused()
        worker.process.send_signal(signal.SIGTERM)
        worker.go()
        found = worker.ended()
    assert (found.code, last_error(found)) == (130, "interrupted")
    # Ranges are copied side by side: another one may have ended a second page by then, too.
    assert any('"page":2' in state for state in range_states(planned).values())


def test_verify_of_a_copy_that_is_not_complete_is_tried_again(planned: Job) -> None:
    planned.done("transfer", 0)
    found = planned.run("verify")
    assert (found.code, last_error(found)) == (3, "unavailable")


def test_no_secret_and_no_content_is_told(make_job: MakeJob) -> None:
    job = make_job("qdrant", records=20, transfer={"shards": 1})
    job.secret("keys", "api", "hush-hush")
    job.resources[-1]["spec"]["apiKey"] = {"secretRef": {"name": "keys", "key": "api"}}
    found = [job.run("plan"), job.run("transfer"), job.run("verify")]
    assert [one.code for one in found] == [0, 0, 0], [one.err for one in found]
    text = "".join(one.out + one.err for one in found)
    assert "hush-hush" not in text
    assert "entity 7" not in text


def test_what_is_refused_fails_the_job(make_job: MakeJob) -> None:
    job = make_job("qdrant", records=20)
    job.resources[-1]["spec"]["distance"] = "cosine"
    found = job.run("plan")
    assert (found.code, found.final()["error"]["code"]) == (43, "gap")
    job.resources[0]["spec"]["path"] = "../../elsewhere.db"
    found = job.run("plan")
    assert (found.code, found.final()["error"]["code"]) == (43, "manifest")


@pytest.mark.usefixtures("empty_neo4j")
def test_quarantine_over_its_limit_fails_the_shard_and_ends_the_verification(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job("neo4j", records=20, transfer={"shards": 1})
    source = job.claims / "src" / "loose.jsonl"
    lines = ['{"kind": "entity", "id": "e"}', '{"kind": "relation", "id": "r", "from_id": "e", "to_id": "nobody"}']
    source.write_text("\n".join(lines) + "\n", "utf-8")
    job.resources[0]["spec"] = {"backend": "jsonl", "claimName": "src", "path": "loose.jsonl"}
    job.done("plan")
    found = job.run("transfer")
    assert (found.code, found.final()["error"]["code"]) == (42, "not-proven")
    found = job.run("verify")
    assert (found.code, found.final()["error"]["code"]) == (42, "not-proven")
    job.attempt, job.spec = 2, {"transfer": {"maxQuarantined": 1, "shards": 1}}
    job.done("plan")
    job.done("transfer")
    assert job.done("verify")["outcome"] == "proven"


class Recorded(Stop):
    """Notes how long it would wait."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return False


def test_a_rate_is_held() -> None:
    stop = Recorded()
    pace = Pace(100.0, stop)
    for _ in range(4):
        pace.take(50)
    assert len(stop.waits) == 3
    assert stop.waits == pytest.approx([0.5, 1.0, 1.5], abs=0.1)
