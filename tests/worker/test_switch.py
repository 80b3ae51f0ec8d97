"""Passes there and home, the journal, the last pass, and what is deleted at the end."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from memferry.application import Store
from memferry.errors import StoreError
from memferry.ledger import Ledger
from memferry.phases.home import Home
from memferry.phases.journal import Entry, write_journal
from memferry.phases.passes import Passes
from memferry.phases.plan import migration_id
from memferry.phases.rollback import rollback
from memferry.records import Record
from memferry.stores import open_source, open_target
from memferry.urls import StoreUrl, parse_url
from memferry.worker.switch import Switch
from support import switching
from support.checker import differences, read_embedded
from support.hybrid import total
from support.switching import Driver, application, driving
from support.worker import Job
from worker.conftest import MakeJob

ONLINE: dict[str, Any] = {
    "strategy": "Online",
    "cutover": {"bindingRef": {"name": "memory"}},
    "transfer": {"shards": 1},
}


@pytest.fixture
def copied(make_job: MakeJob) -> Job:
    """A job to an embedded store whose copy is proven."""
    return proven(make_job("embedded", records=40, **ONLINE))


def proven(job: Job) -> Job:
    job.done("plan")
    job.done("transfer")
    assert job.done("verify")["outcome"] == "proven"
    return job


def contents(store: Store) -> dict[tuple[str, str], Record]:
    return {record.identity: record for record in store.list()}


def equal(driver: Driver) -> bool:
    return total(driver.source) == total(driver.target)


def memory(identity: str, content: str = "new") -> Record:
    return Record("memory", identity, content=content)


# -- there


@pytest.mark.parametrize("kind", ["embedded", "qdrant", "hybrid"])
def test_passes_carry_what_the_source_became(kind: str, make_job: MakeJob) -> None:
    with driving(proven(make_job(kind, records=40, **ONLINE))) as driver:
        assert driver.done("Pass")["changed"] == 0
        with application(driver.source) as store:
            store.put([memory("new-1"), memory("m0001", "changed")])
            store.delete_many([("memory", "m0002"), ("relation", "r0003")])
        told = driver.done("Pass", direction="Forward")
        assert (told["changed"], told["deleted"], told["complete"], told["conflicts"]) == (2, 2, True, 0)
        assert told["passSecs"] > 0
        told = driver.done("Pass")
        assert (told["changed"], told["deleted"]) == (0, 0)
        assert equal(driver)
        with application(driver.source) as store:
            store.put(memory("new-2"))
        told = driver.done("FinalPass", direction="Forward")
        assert (told["changed"], told["verified"], told["missing"], told["different"]) == (1, 5, 0, 0)
        assert equal(driver)


def test_a_source_that_nobody_wrote_to_is_not_read_again(copied: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    with driving(copied) as driver:
        first = driver.done("Pass")
        with monkeypatch.context() as patch:
            patch.setattr("memferry.phases.stages.transfer", None)
            assert driver.done("Pass") == {**first, "sequence": 2, "pass": 2}
        with application(driver.source) as store:
            store.put(memory("new"))
        assert driver.done("Pass")["changed"] == 1


def test_more_deletions_than_allowed_are_asked_about(make_job: MakeJob) -> None:
    spec = {**ONLINE, "transfer": {"shards": 1, "maxDeletes": 1}}
    with driving(proven(make_job("embedded", records=10, **spec))) as driver:
        with application(driver.source) as store:
            store.delete_many([("memory", "m0002"), ("memory", "m0003")])
        assert driver.failed("Pass") == "max-deletes"
        with application(driver.target) as store:
            assert store.get("memory", "m0002") is not None


def test_the_usual_limit_of_deletions_is_a_hundred(make_job: MakeJob) -> None:
    with driving(proven(make_job("embedded", records=30, **ONLINE))) as driver:
        with application(driver.source) as store:
            store.delete_many([("memory", f"m{n:04}") for n in range(30)])
        assert driver.done("Pass")["deleted"] == 30


def test_a_final_pass_of_a_source_that_is_still_written_fails(copied: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    with driving(copied) as driver:
        inner = Passes.forward

        def forward(self: Passes, number: int, **more: Any) -> Any:
            found = inner(self, number, **more)
            with application(driver.source) as store:
                store.put(memory("late"))
            return found

        monkeypatch.setattr(Passes, "forward", forward)
        assert driver.failed("FinalPass", direction="Forward") == "not-proven"


def test_a_record_that_was_damaged_in_the_target_is_a_conflict(copied: Job) -> None:
    with driving(copied) as driver:
        with application(driver.target) as store:
            store.put(memory("m0001", "by somebody"))
        told = driver.done("Pass")
        assert (told["changed"], told["conflicts"], told["conflictIds"]) == (0, 1, [["memory", "m0001"]])
        assert driver.failed("FinalPass") == "not-proven"


# -- the journal


def test_the_journal_stands_in_both_stores_and_only_goes_on(copied: Job) -> None:
    entry = {"revision": 2, "mode": "Frozen", "active": "a", "frozenUntil": "2030-01-01T00:00:00Z", "lockedBy": "u"}
    with driving(copied) as driver:
        assert driver.done("ReadJournal")["journal"] is None
        told = driver.done("Journal", **entry)
        assert (told["journal"], told["kept"]) == (entry, {"source": "store", "target": "store"})
        assert driver.done("Journal", **entry)["journal"] == entry
        assert driver.failed("Journal", **{**entry, "mode": "Serving"}) == "journal"
        assert driver.failed("Journal", **{**entry, "revision": 1}) == "journal"
        assert driver.failed("Journal", **{**entry, "revision": "3"}) == "invalid"
        assert driver.failed("Journal", **{**entry, "active": "c"}) == "invalid"
        assert driver.done("ReadJournal")["journal"] == entry
    with driving(copied) as later:
        later.done("Journal", **{**entry, "revision": 3, "mode": "Serving", "active": "b"})
        assert later.failed("Pass", direction="Forward") == "journal"


@pytest.mark.parametrize("kind", ["embedded", "qdrant", "hybrid"])
def test_the_journal_stands_in_a_target_that_nothing_was_planned_for(kind: str, make_job: MakeJob) -> None:
    entry = {"revision": 2, "mode": "Frozen", "active": "a", "frozenUntil": None, "lockedBy": "u"}
    job = make_job(kind, records=2, **ONLINE)
    job.write()
    with driving(job) as driver:
        told = driver.done("Journal", **entry)
        assert (told["journal"], told["kept"]) == (entry, {"source": "store", "target": "store"})


def test_the_journal_of_a_source_that_takes_nothing_of_ours_is_kept_beside_it(make_job: MakeJob) -> None:
    job = make_job("embedded", records=2, **ONLINE)
    file = job.claims / "src" / "memory.json"
    line = {"type": "entity", "name": "Ann", "entityType": "person", "observations": ["likes tea"]}
    file.write_text(json.dumps(line) + "\n", "utf-8")
    spec = {"backend": "jsonl", "profile": "server-memory", "claimName": "src", "path": "memory.json"}
    job.resources[0]["spec"] = spec
    with driving(proven(job)) as driver:
        entry = {"revision": 1, "mode": "Serving", "active": "a", "frozenUntil": None, "lockedBy": None}
        assert driver.done("Journal", **entry)["kept"] == {"source": "state", "target": "store"}
        assert driver.done("ReadJournal")["journal"] == entry
    assert sorted(path.name for path in file.parent.iterdir()) == ["agents.db", "memory.json"]


# -- after the switch


def test_what_the_target_finds_is_watched(make_job: MakeJob) -> None:
    parity = {"validation": {"parity": {"queries": 8, "k": 3, "minRecall": "0.9"}}}
    job = make_job("embedded", records=40, **ONLINE, **parity)
    job.done("plan")
    job.done("transfer")
    checked = job.done("verify")["parity"]
    assert (checked["samples"], checked["neighbours"]) == (8, 3)
    assert checked["target_recall"] >= 0.9
    with driving(job) as driver:
        driver.flip()
        assert "parity" not in driver.done("Probe")
        told = driver.done("Probe", parity=True)["parity"]
        assert (told["samples"], told["neighbours"], told["reached"]) == (8, 3, True)
        with application(driver.target) as store:
            nearer = [record for record in store.list(kind="memory") if record.vectors][:10]
            store.put([replace(record, id=f"new-{record.id}") for record in nearer])
            store.delete_many([record.identity for record in nearer[5:]])
        told = driver.done("Probe", parity=True)["parity"]
        assert told["reached"], "what the application wrote is no fault of the migration"
        with application(driver.target) as store:
            store.delete_many([record.identity for record in store.list() if record.vectors])
        told = driver.done("Probe", parity=True)["parity"]
        assert (told["samples"], told["recall"], told["reached"]) == (0, None, None), "no data is inconclusive"


def test_a_target_that_finds_too_little_is_told(copied: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    copied.spec["validation"] = {"parity": {"queries": 5, "k": 3, "minRecall": "0.9"}}
    copied.run("verify")
    with driving(copied) as driver:
        driver.flip()
        search = Store.search

        def broken(self: Store, *args: Any, **named: Any) -> Any:
            return search(self, *args, **named) if named.get("exact") else []

        monkeypatch.setattr(Store, "search", broken)
        told = driver.done("Probe", parity=True)["parity"]
        assert (told["samples"], told["recall"], told["reached"]) == (5, 0.0, False)


def test_what_the_application_wrote_meanwhile_is_apart_from_what_the_target_finds(
    copied: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied.spec["validation"] = {"parity": {"queries": 8, "k": 3, "minRecall": "0.9"}}
    with driving(copied) as driver, application(driver.source) as store:
        nearer = [record for record in store.list(kind="memory") if record.vectors]
        store.put([replace(record, id=f"new-{record.id}-{n}") for record in nearer for n in range(3)])
    found = copied.run("verify")
    assert found.code == 42, "it is not the same"
    parity = found.final()["parity"]
    assert parity["target_recall"] < 0.9
    assert (parity["unchanged"]["recall"], parity["unchanged"]["reached"]) == (1.0, True)
    search = Store.search

    def broken(self: Store, *args: Any, **named: Any) -> Any:
        return search(self, *args, **named) if named.get("exact") else []

    monkeypatch.setattr(Store, "search", broken)
    assert copied.run("verify").final()["parity"]["unchanged"]["reached"] is False


def test_stores_that_cannot_be_searched_say_nothing(make_job: MakeJob) -> None:
    with driving(proven(make_job("embedded", records=10, **ONLINE))) as driver:
        driver.work = replace(driver.work, ends=replace(driver.work.ends, source=parse_url("jsonl:none.jsonl")))
        driver.switch = Switch(driver.work)
        told = driver.done("Probe", parity=True)["parity"]
    assert (told["reached"], told["error"]["code"]) == (None, "unsupported")


# -- home


def use(store: Store) -> None:
    """What an application does after the switch."""
    store.put([memory("after"), memory("m0001", "after"), Record("entity", "e-after", name="new")])
    store.delete_many([("memory", "m0002"), ("relation", "r0003")])


@pytest.mark.parametrize("kind", ["embedded", "qdrant", "neo4j"])
def test_what_was_written_since_goes_home_and_nothing_else(kind: str, make_job: MakeJob) -> None:
    job = proven(make_job(kind, records=40, **ONLINE))
    home = job.claims / "src" / "agents.db"
    with driving(job) as driver:
        driver.flip()
        before = read_embedded(home)
        with application(driver.target) as store:
            use(store)
        told = driver.done("Pass", direction="Back")
        assert (told["changed"], told["deleted"], told["conflicts"]) == (3, 2, 0)
        told = driver.done("FinalPass", direction="Back")
        assert (told["changed"], told["verified"], told["missing"], told["different"]) == (0, 5, 0, 0)
        after = read_embedded(home)
        touched = {("memory", "m0001"), ("memory", "m0002"), ("relation", "r0003")}
        touched |= {("memory", "after"), ("entity", "e-after")}
        untouched = before.records.keys() - touched
        assert {key: before.records[key] for key in untouched} == {key: after.records[key] for key in untouched}
        assert {key for key in untouched if before.markers.get(key) != after.markers.get(key)} == set()
        assert after.records.keys() - before.records.keys() == {("memory", "after"), ("entity", "e-after")}
        assert before.records.keys() - after.records.keys() == {("memory", "m0002"), ("relation", "r0003")}
        assert after.records["memory", "m0001"]["content"] == "after"
        assert after.problems == []
        assert equal(driver)


def test_what_is_written_again_and_again_goes_home(copied: Job) -> None:
    with driving(copied) as driver:
        driver.flip()
        for round_ in range(3):
            with application(driver.target) as store:
                store.put([memory("m0001", f"round {round_}"), memory("back-and-forth")])
            assert driver.done("Pass", direction="Back")["changed"] == 2
            with application(driver.target) as store:
                store.delete("memory", "back-and-forth")
            told = driver.done("Pass", direction="Back")
            assert (told["changed"], told["deleted"], told["conflicts"]) == (0, 1, 0)
        # One that was at home before: deleted, and put again.
        with application(driver.target) as store:
            store.delete("memory", "m0005")
        assert driver.done("Pass", direction="Back")["deleted"] == 1
        with application(driver.target) as store:
            store.put(memory("m0005", "again"))
        told = driver.done("Pass", direction="Back")
        assert (told["changed"], told["conflicts"]) == (1, 0)
        assert equal(driver)


def test_stray_writes_at_home_are_listed_and_never_written_over(copied: Job) -> None:
    with driving(copied) as driver:
        driver.flip()
        with application(driver.target) as store:
            store.put([memory("m0001", "there"), memory("m0002", "there"), memory("both", "there")])
            store.delete("memory", "m0006")
        with application(driver.source) as store:
            store.put([memory("m0001", "here"), memory("m0004", "here"), memory("both", "here"), memory("only")])
            store.put(memory("m0006", "here"))
            store.delete_many([("memory", "m0002"), ("memory", "m0008")])
        told = driver.done("Pass", direction="Back")
        ids = {"m0001", "m0002", "m0004", "both", "only", "m0006", "m0008"}
        assert {one for _, one in told["conflictIds"]} == ids
        assert (told["changed"], told["deleted"]) == (0, 0)
        with application(driver.source) as store:
            found = {key: record.content for key, record in contents(store).items()}
        assert found["memory", "m0001"] == found["memory", "both"] == found["memory", "m0006"] == "here"
        assert ("memory", "m0002") not in found
        assert driver.failed("FinalPass", direction="Back") == "not-proven"
        stray = driver.done("Probe", stray=True)["stray"]
        assert {one for _, one in stray["ids"]} == ids - {"m0002", "m0008"}


def test_a_target_that_goes_away_is_told_by_every_probe(copied: Job) -> None:
    there, away = copied.claims / "dst", copied.claims / "away"
    with driving(copied) as driver:
        driver.flip()
        assert driver.done("Probe", stray=True)["stray"]["records"] == 0
        assert driver.done("Pass", direction="Back")["changed"] == 0
        there.rename(away)
        for _ in range(2):
            told = driver.done("Probe", stray=True)
            assert (told["source"]["reachable"], told["target"]["reachable"]) == (True, False)
            driver.do("Pass", direction="Back")
        away.rename(there)
        assert driver.done("Probe", stray=True)["stray"]["records"] == 0


def test_a_home_that_cannot_be_looked_at_leaves_the_rest_of_a_probe(
    copied: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    with driving(copied) as driver:
        driver.flip()

        def stray(_: Home) -> list[tuple[str, str]]:
            raise StoreError("io", "the disk")

        with monkeypatch.context() as patch:
            patch.setattr(Home, "stray", stray)
            told = driver.done("Probe", stray=True)
        assert (told["target"]["reachable"], told["stray"]["error"]["code"]) == (True, "io")
        assert driver.done("Probe", stray=True)["stray"]["records"] == 0


def test_what_went_home_can_be_taken_back(copied: Job) -> None:
    home = copied.claims / "src" / "agents.db"
    before = read_embedded(home)
    with driving(copied) as driver:
        driver.flip()
        with application(driver.target) as store:
            use(store)
        driver.done("FinalPass", direction="Back")
        url, away = driver.source, open_source(driver.target)
    target = open_target(url)
    home_id = migration_id(away, target)
    away.close()
    try:
        done = rollback(target, Ledger(target.documents, home_id))
    finally:
        target.close()
    assert done.kept == []
    assert differences(before, read_embedded(home), markers=True) == []


def test_there_is_no_way_home_without_a_last_pass(copied: Job) -> None:
    with driving(copied) as driver:
        assert driver.failed("Pass", direction="Back") == "journal"
        driver.done("Journal", revision=3, mode="Serving", active="b", frozenUntil=None, lockedBy="u")
        assert driver.failed("Pass", direction="Back") == "no-migration"


def test_a_pass_never_goes_into_the_active_side(copied: Job) -> None:
    with driving(copied) as driver:
        driver.done("Pass", direction="Forward")
        driver.flip()
        assert driver.failed("Pass", direction="Forward") == "journal"
        driver.done("Pass", direction="Back")
        driver.done("Journal", revision=4, mode="Serving", active="a", frozenUntil=None, lockedBy="u")
        assert driver.failed("Pass", direction="Back") == "journal"


@pytest.mark.parametrize("direction", ["Forward", "Back"])
def test_no_pass_where_a_third_store_is_active(copied: Job, direction: str) -> None:
    with driving(copied) as driver:
        driver.flip()
        write_journal(driver.source, "memory", Entry(9, "Serving", "c"))
        assert driver.failed("Pass", direction=direction) == "journal"
        assert driver.failed("FinalPass", direction=direction) == "journal"


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_application_does_goes_home(seed: int, make_job: MakeJob) -> None:
    rng = random.Random(seed)
    with driving(proven(make_job("embedded", records=12, **ONLINE))) as driver:
        driver.flip()
        for _ in range(4):
            with application(driver.target) as store:
                for _ in range(rng.randrange(12)):
                    identity = f"m{rng.randrange(18):04}"
                    if rng.random() < 0.3:
                        store.delete("memory", identity)
                    else:
                        store.put(memory(identity, f"text {rng.randrange(3)}"))
            told = driver.done("Pass", direction="Back")
            assert told["conflicts"] == 0
            assert equal(driver)
        driver.done("FinalPass", direction="Back")


# -- kills


def killed(job: Job, failpoint: str, *commands: dict[str, Any]) -> int:
    """Does commands in a process that kills itself; its exit code."""
    place = {
        "folder": str(job.root / "folder"),
        "claims": str(job.claims),
        "environment": job.variables(),
        "commands": commands,
    }
    done = subprocess.run(
        [sys.executable, Path(switching.__file__), json.dumps(place)],
        env=job.variables(PYTHONPATH=str(Path(switching.__file__).parents[1]), MEMFERRY_FAILPOINT=failpoint),
        check=False,
        capture_output=True,
        timeout=100,
        text=True,
    )
    assert done.returncode in {0, -signal.SIGKILL}, done.stderr
    return done.returncode


@pytest.mark.parametrize("failpoint", ["written", "booked", "carried", "deleted"])
def test_a_pass_home_that_is_killed_is_done_again(failpoint: str, copied: Job) -> None:
    with driving(copied) as driver:
        driver.flip()
        with application(driver.target) as store:
            use(store)
    assert killed(copied, failpoint, {"verb": "Pass", "direction": "Back"}) == -signal.SIGKILL
    with driving(copied) as driver:
        told = driver.done("FinalPass", direction="Back")
        assert (told["verified"], told["missing"], told["different"]) == (5, 0, 0)
        assert equal(driver)


@pytest.mark.parametrize("failpoint", ["written", "deleted"])
def test_a_final_pass_that_is_killed_verifies_what_was_touched_before(failpoint: str, copied: Job) -> None:
    with driving(copied) as driver, application(driver.source) as store:
        use(store)
    assert killed(copied, failpoint, {"verb": "FinalPass", "direction": "Forward"}) == -signal.SIGKILL
    with driving(copied) as driver:
        told = driver.done("FinalPass", direction="Forward")
        assert (told["verified"], told["missing"], told["different"]) == (5, 0, 0)
        assert equal(driver)


# -- the end of the source


def retiring(job: Job) -> Job:
    job.spec = {**job.spec, "decommission": {"policy": "Delete"}}
    return job


def ids(url: StoreUrl) -> set[tuple[str, str]]:
    with application(url) as store:
        return set(contents(store))


def test_the_source_is_deleted_record_by_record(copied: Job) -> None:
    found = copied.run("retire")
    assert (found.code, found.final()["error"]["code"]) == (43, "invalid")
    told = retiring(copied).done("retire")
    assert told["verified"] == told["deleted"] == 160
    assert told["remains"]["records"] == 0
    with driving(copied) as driver:
        assert ids(driver.source) == set()
        assert len(ids(driver.target)) == 160


def test_the_policy_that_was_confirmed_holds_over_the_one_of_the_manifest(copied: Job) -> None:
    told = copied.done("retire", MEMFERRY_DECOMMISSION="Delete")
    assert (told["deleted"], told["remains"]["records"]) == (160, 0)
    found = retiring(copied).run("retire", MEMFERRY_DECOMMISSION="Retain")
    assert (found.code, found.final()["error"]["code"]) == (43, "invalid")


def test_what_was_not_moved_stays(make_job: MakeJob) -> None:
    job = make_job("embedded", records=10, scope={"kinds": ["memory"]}, transfer={"shards": 1})
    job.done("plan")
    job.done("transfer")
    assert job.done("verify")["outcome"] == "partial"
    told = retiring(job).done("retire")
    assert (told["deleted"], told["remains"]["records"], told["remains"]["notMoved"]) == (10, 30, 30)


def test_nothing_is_deleted_where_something_would_be_lost(copied: Job) -> None:
    with driving(copied) as driver:
        with application(driver.target) as store:
            store.delete("memory", "m0001")
        before = ids(driver.source)
        found = retiring(copied).run("retire")
        assert (found.code, found.final()["error"]["code"]) == (42, "not-proven")
        assert ids(driver.source) == before


def test_after_a_switch_what_the_application_went_on_from_is_deleted_too(copied: Job) -> None:
    with driving(copied) as driver:
        driver.flip()
        with application(driver.target) as store:
            use(store)
        driver.done("FinalPass", direction="Back")
        with application(driver.target) as store:
            store.put(memory("m0007", "later"))
    told = retiring(copied).done("retire")
    assert (told["deleted"], told["remains"]["records"]) == (160, 0)


def test_a_stray_write_keeps_the_source(copied: Job) -> None:
    with driving(copied) as driver:
        driver.flip()
        with application(driver.source) as store:
            store.put(memory("m0007", "stray"))
    found = retiring(copied).run("retire")
    assert (found.code, found.final()["error"]["code"]) == (42, "not-proven")


def test_a_retirement_that_is_killed_goes_on(copied: Job) -> None:
    retiring(copied)
    with copied.begun("retire", MEMFERRY_FAILPOINT="retired:3") as worker:
        assert worker.ended().code == -signal.SIGKILL
    told = copied.done("retire")
    assert 0 < told["deleted"] < 160
    assert told["remains"]["records"] == 0
