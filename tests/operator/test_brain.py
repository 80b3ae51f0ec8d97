"""The brain against the simulation: whole lives, and the same life killed at every action."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from memferry.manifest.status import MigrationStatus
from memferry_operator.actions import DeletePod, FlagNewerStatus, PatchJob
from memferry_operator.brain import plan
from memferry_operator.observed import Pod
from support.simulated_cluster import App, World

OFFLINE: dict[str, Any] = {}
ONLINE = {"strategy": "Online", "monitoring": {"duration": "20s", "interval": "5s"}}
LIVES: dict[str, tuple[dict[str, Any], bool]] = {
    "offline": (OFFLINE, False),
    "offline-delete": ({"decommission": {"policy": "Delete"}}, False),
    "offline-bound": ({"monitoring": {"duration": "20s", "interval": "5s"}}, True),
    "online-bound": (ONLINE, True),
    "online-bound-delete": ({**ONLINE, "decommission": {"policy": "Delete"}}, True),
}


def world(life: str, **changes: Any) -> World:
    spec, bound = LIVES[life]
    return World(spec={**spec}, bound=bound, **changes)


@pytest.mark.parametrize("life", LIVES)
def test_life(life: str) -> None:
    w = world(life)
    w.run()
    assert w.status.phase == "Succeeded", (w.status.phase, w.status.reason, w.status.conditions)
    phases = [entry.phase for entry in w.status.history]
    assert phases[:4] == ["Pending", "ParallelSetup", "BulkTransfer", "Validation"]
    assert all(entry.completed_at for entry in w.status.history)
    if w.binding:
        assert (w.binding.active, w.binding.mode) == ("b", "Serving")
        assert w.status.traffic is not None
        assert w.status.traffic.write_freeze_millis


@pytest.mark.parametrize("life", LIVES)
def test_killed_at_every_action(life: str) -> None:
    whole = world(life)
    whole.run()
    for at in range(len(whole.log)):
        w = world(life)
        struck: list[int] = []

        def strike(n: int, at: int = at, struck: list[int] = struck) -> bool:
            if n == at and not struck:
                struck.append(n)
                return True
            return False

        w.run(stop=strike)
        assert struck
        assert w.status.phase == "Succeeded", (at, whole.log[at], w.status.reason)
        assert w.binding is None or w.binding.active == "b"


# What a command does in a phase: docs/operator.md has the same table.
_PHASES = ["Pending", "ParallelSetup", "BulkTransfer", "Validation", "TrafficSwitch", "Monitoring", "Decommission"]
_BEFORE_SWITCH = _PHASES[:5]
TABLE: dict[tuple[str, str], str] = {
    **{(phase, "suspend"): "waits" for phase in _PHASES},
    **{(phase, "Abort"): "Aborted" if phase in _BEFORE_SWITCH else "refused" for phase in _PHASES},
    **{(phase, "SwitchBack"): "SwitchedBack" if phase == "Monitoring" else "refused" for phase in _PHASES},
    **{(phase, "retry"): "goes on" for phase in _PHASES},
    **{(phase, "delete"): "gone" for phase in _PHASES},
    **{(phase, "edit"): "goes on" for phase in _PHASES},
    **{("Succeeded", command): "refused" for command in ("Abort", "SwitchBack")},
    **{("Succeeded", command): "goes on" for command in ("suspend", "retry", "edit")},
    ("Succeeded", "delete"): "gone",
}


def reach(phase: str) -> World:
    """A migration that has just come to a phase."""
    w = world("online-bound-delete")
    if phase == "Pending":
        w.slot = False
        w.run(rounds=3)
        w.slot = True
    else:
        w.run(until=lambda: w.status.phase == phase)
    assert w.status.phase == phase
    return w


@pytest.mark.parametrize(("phase", "command"), TABLE)
def test_command_in_phase(phase: str, command: str) -> None:
    w, effect = reach(phase), TABLE[phase, command]
    switched = phase in {"Monitoring", "Decommission", "Succeeded"}
    if command == "suspend":
        w.edit(suspend=True)
        w.run()
        if effect == "waits":
            assert w.status.phase == phase
            assert not [j for j in w.jobs.values() if not (j.ended or j.suspended or j.role == "switch")]
        w.edit(suspend=False)
    elif command == "delete":
        w.deleting = True
    elif command == "retry":
        w.edit(retryToken="again")
    elif command == "edit":
        w.edit(transfer={"parallelism": 2})
    else:
        w.edit(operation=command, operationToken="1")
    attempt = w.status.attempt
    w.run()
    assert w.binding is not None
    home = "a" if effect in {"Aborted", "SwitchedBack"} or (effect == "gone" and not switched) else "b"
    assert (w.binding.active, w.binding.mode, w.binding.locked_by_uid) == (home, "Serving", "")
    assert w.gone == (effect == "gone")
    if effect in {"Aborted", "SwitchedBack"}:
        assert w.status.phase == effect
    elif effect != "gone":
        assert w.status.phase == "Succeeded"
        assert w.status.observed_generation == w.generation
        assert w.status.attempt == max(1, attempt)
    refused = [c for c in w.status.conditions if c.type == "OperationRefused"]
    assert bool(refused) == (effect == "refused")


def test_parallelism_changes_while_it_runs() -> None:
    w = reach("BulkTransfer")
    w.run(until=lambda: bool(w.jobs) and w.job("transfer") is not None)
    w.edit(transfer={"parallelism": 1})
    w.reconcile()
    assert PatchJob("m-transfer-1", 1, suspend=False) in w.log


@pytest.mark.parametrize("role", ["plan", "transfer", "verify"])
@pytest.mark.parametrize(
    ("code", "reasons"),
    [(42, {"RecordsRefused", "ValidationFailed"}), (43, {"PlanRefused", "WorkerRefused"}), (3, {"BackendUnavailable"})],
)
@pytest.mark.parametrize("life", ["offline", "offline-bound", "online-bound"])
def test_failed_worker_stalls_and_is_retried_once(role: str, code: int, reasons: set[str], life: str) -> None:
    w = world(life, exits={role: [code]})
    w.run()
    if (role, code, life) == ("verify", 42, "online-bound"):
        # The application wrote while it was compared: passes and the final pass compare again.
        assert (w.status.phase, w.status.attempt) == ("Succeeded", 1)
        assert {c.type: c.reason for c in w.status.conditions}["DataValidated"] == "FinalPass"
        return
    assert w.status.reason in reasons
    assert {c.type: c.status for c in w.status.conditions}["Stalled"] == "True"
    assert w.binding is None or (w.binding.mode, w.binding.active) == ("Serving", "a"), "frozen at rest"
    w.edit(retryToken="1")
    w.run()
    assert (w.status.phase, w.status.attempt) == ("Succeeded", 2)


_EQUAL = {"verify": {"compared": 10, "missing": 0, "extra": 0, "different": 0}}
_TOO_LITTLE = {"target_recall": 0.41}


@pytest.mark.parametrize(
    ("found", "goes_on"),
    [
        ({"parity": {"target_recall": 0.99}}, True),
        ({"parity": {"target_recall": None}}, True),
        ({"parity": {**_TOO_LITTLE, "unchanged": {"recall": 0.95, "reached": True}}}, True),
        ({"parity": {**_TOO_LITTLE, "unchanged": {"recall": None, "reached": None}}}, True),
        ({"parity": {**_TOO_LITTLE, "unchanged": {"recall": 0.4, "reached": False}}}, False),
        ({"parity": _TOO_LITTLE}, False),
        ({**_EQUAL, "parity": _TOO_LITTLE}, False),
        ({"kinds": {"memory": {"quarantined": 1}, "entity": {"quarantined": 1}}}, False),
        ({"kinds": {"memory": {"quarantined": 1}}}, True),
        (_EQUAL, False),
    ],
)
def test_passes_decide_only_about_records_that_differ(found: dict[str, Any], goes_on: bool) -> None:
    spec = {**ONLINE, "validation": {"parity": {"minRecall": "0.9"}}, "transfer": {"maxQuarantined": 1}}
    w = World(spec=spec, bound=True, exits={"verify": [42]}, unproven=found)
    w.run()
    if goes_on:
        assert w.status.phase == "Succeeded"
        return
    assert (w.status.phase, w.status.reason) == ("Validation", "ValidationFailed")
    assert {c.type: c.status for c in w.status.conditions}["DataValidated"] == "False"
    assert w.binding is not None
    assert (w.binding.active, w.binding.revision) == ("a", 1), "no freeze was begun"


def test_record_that_someone_else_changed_stops_the_switch() -> None:
    w = world("online-bound", conflicts=1)
    w.run()
    assert w.status.reason == "ValidationFailed"
    assert w.binding is not None
    assert w.binding.revision == 1, "no freeze was begun"
    w.conflicts = 0
    w.run()
    assert w.status.phase == "Succeeded", "it goes on by itself when a pass finds nothing left alone"


def test_silent_client_gives_the_freeze_back_and_others_go_on() -> None:
    w = world("online-bound")
    w.run(until=lambda: w.status.traffic is not None and w.status.traffic.step == "Freezing")
    w.apps[1].silent = True
    w.run()
    assert w.status.reason == "FreezeReturned"
    assert w.binding is not None
    assert (w.binding.mode, w.binding.active) == ("Serving", "a")
    assert w.apps[0].mode == "Serving"
    w.apps[1].silent = False
    w.edit(retryToken="1")
    w.run()
    assert w.status.phase == "Succeeded"


def test_three_returned_freezes_stall() -> None:
    w = world("online-bound", final_pass=[{"missing": 1}] * 3)
    w.run()
    assert w.status.reason == "FreezeReturned"
    w.edit(retryToken="1")
    w.run()
    assert w.status.phase == "Succeeded"


def test_freeze_past_its_end_is_returned_first_of_all() -> None:
    w = world("online-bound")
    w.run(until=lambda: w.binding is not None and w.binding.mode == "Frozen")
    w.now += timedelta(minutes=5)  # nobody led
    w.reconcile()
    w.reconcile()
    assert w.binding is not None
    assert (w.binding.mode, w.binding.active) == ("Serving", "a")


def test_a_long_freeze_is_not_begun() -> None:
    w = world("online-bound", pass_secs=9.0)
    w.run()
    assert w.status.reason == "FreezeTooLong"
    assert w.binding is not None
    assert w.binding.revision == 1
    w.pass_secs = 1.0
    w.run()
    assert w.status.phase == "Succeeded", "it goes on by itself when passes are short again"


def test_no_way_back_is_refused() -> None:
    w = world("online-bound", way_back=False)
    w.run(until=lambda: w.status.phase == "Monitoring")
    w.edit(operation="SwitchBack", operationToken="1")
    w.run()
    assert w.status.phase == "Succeeded"
    assert any(c.type == "OperationRefused" and c.status == "True" for c in w.status.conditions)


@pytest.mark.parametrize("life", LIVES)
def test_wiped_status_after_success_runs_nothing_backwards(life: str) -> None:
    w = world(life)
    w.run()
    w.status, w.version = type(w.status)(), w.version + 1
    before = [str(a) for a in w.log if type(a).__name__ == "CreateJob"]
    w.run()
    assert w.status.phase == "Succeeded"
    assert [str(a) for a in w.log if type(a).__name__ == "CreateJob"] == before
    assert w.binding is None or (w.binding.active, w.binding.mode) == ("b", "Serving")


def test_status_lost_in_the_freeze_of_a_switch_back_never_serves_the_source() -> None:
    w = world("online-bound")
    w.run(until=lambda: w.status.phase == "Monitoring")
    w.edit(operation="SwitchBack", operationToken="1")
    for app in w.apps:
        app.silent = True  # It has not heard of the freeze, and goes on writing to the target.
    w.run(until=lambda: w.binding is not None and (w.binding.mode, w.binding.active) == ("Frozen", "b"))
    w.status, w.version = type(w.status)(), w.version + 1
    w.run(rounds=90)  # Longer than a freeze may last, so it is given back; `check` sees two sides serving.
    for app in w.apps:
        app.silent = False
    w.run()
    assert w.binding is not None
    assert (w.binding.mode, w.binding.active) == ("Serving", "b")
    w.at_rest()


def test_created_again_after_success_is_refused() -> None:
    w = world("online-bound")
    w.run()
    again = world("online-bound", binding=w.binding, apps=w.apps, journal=w.journal, carried=w.carried)
    again.binding = w.binding
    again.run()
    assert again.status.reason == "SourceNotActive"
    assert not again.jobs


def test_newer_status_is_left_alone() -> None:
    w = world("offline")
    observed = w.observe()
    newer = type(observed)(**{**{f: getattr(observed, f) for f in observed.__slots__}, "newer_status": True})
    assert plan(newer, w.now) == [FlagNewerStatus()]


def test_namespace_that_ends_gives_back_and_ends_its_workers() -> None:
    w = world("online-bound")
    w.run(until=lambda: w.binding is not None and w.binding.mode == "Frozen")
    w.ending = True
    w.run()
    assert w.binding is not None
    assert (w.binding.mode, w.binding.active, w.binding.locked_by_uid) == ("Serving", "a", "")
    assert not [job for job in w.jobs.values() if not job.ended]
    assert w.finalizer, "it is not deleted yet"
    w.deleting = True
    w.run()
    assert w.gone


def test_silent_worker_is_replaced_and_counted_apart() -> None:
    w = world("offline")
    w.run(until=lambda: w.job("transfer") is not None)
    w.workers()
    w.now += timedelta(minutes=6)
    w.reconcile()
    assert DeletePod("m-transfer-1-0") in w.log
    assert w.status.shards is not None
    assert w.status.shards.replaced == 1
    w.run()
    assert w.status.phase == "Succeeded"


@pytest.mark.parametrize("role", ["plan", "transfer", "verify"])
def test_what_a_worker_failed_with_is_told_while_it_is_tried_again(role: str) -> None:
    w = world("offline")
    w.run(until=lambda: w.job(role) is not None)
    said = "error[unavailable]: nobody answers"
    w.pods["first"] = Pod("first", role, 1, phase="Failed", exit_code=3, error=said, since=w.now)  # type: ignore[arg-type]
    w.reconcile()
    (going,) = [c for c in w.status.conditions if c.type == "Reconciling"]
    assert said in going.message
    w.run()
    assert w.status.phase == "Succeeded"
    assert not any(said in c.message for c in w.status.conditions)


def test_queued_without_a_place() -> None:
    w = world("offline", slot=False)
    w.run()
    assert (w.status.phase, w.status.reason, w.status.attempt) == ("Pending", "Queued", 0)
    assert not w.jobs


@pytest.mark.parametrize(("after", "phases"), [("Plan", 2), ("Copy", 3), ("Validation", 4)])
def test_rehearsal_ends_where_it_is_asked_to(after: str, phases: int) -> None:
    w = world("online-bound")
    w.edit(stopAfter=after)
    w.run()
    assert (w.status.phase, w.status.reason) == ("Succeeded", "Rehearsed")
    assert len(w.status.history) == phases + 1
    assert w.binding is not None
    assert (w.binding.active, w.binding.revision) == ("a", 1)


@pytest.mark.parametrize(
    ("life", "step"),
    [
        *(("online-bound", step) for step in ("Freezing", "FinalPass", "Flipping", "Serving")),
        *(("offline-bound", step) for step in ("Frozen", "FinalPass")),
    ],
)
def test_journals_follow_who_ended_a_freeze_by_hand(life: str, step: str) -> None:
    w = world(life, apps=[App("one")])

    def frozen() -> bool:
        traffic, binding = w.status.traffic, w.binding
        return bool(traffic and binding and traffic.step == step and binding.mode == "Frozen")

    w.run(until=frozen)
    w.unfreeze()
    assert w.binding is not None
    revision = w.binding.revision
    w.run(until=lambda: w.status.traffic is not None and w.status.traffic.step == "Settled")
    assert w.binding.active == "a"
    assert w.journal == {"revision": w.binding.revision, "mode": "Serving", "active": "a"}
    assert w.binding.revision >= revision
    w.run()
    if life == "offline-bound":  # What was copied is no longer all there is: a person begins again.
        w.edit(retryToken="1")
        w.run()
    assert w.status.phase == "Succeeded"
    assert (w.binding.active, w.journal["active"]) == ("b", "b")


def test_a_return_waits_for_its_journals_and_goes_beyond_one_that_has_gone_on() -> None:
    w = world("online-bound", apps=[App("one")])
    w.run(until=lambda: w.status.traffic is not None and w.status.traffic.step == "Flipping")
    w.journal = {"revision": 40, "mode": "Frozen", "active": "b"}
    w.edit(operation="Abort", operationToken="1")
    w.run()
    assert w.binding is not None
    assert (w.status.phase, w.binding.active, w.binding.mode) == ("Aborted", "a", "Serving")
    assert w.journal == {"revision": w.binding.revision, "mode": "Serving", "active": "a"}
    assert w.binding.revision > 40


def test_a_status_is_not_rebuilt_before_the_binding_has_its_own() -> None:
    w = world("offline-bound")
    w.run()
    assert w.binding is not None
    whole, w.status = w.binding, MigrationStatus()
    w.binding = dataclasses.replace(whole, active="", revision=0)
    for _ in range(3):
        w.reconcile()
    assert w.status.phase is None
    w.binding = whole
    w.run()
    assert w.status.phase == "Succeeded"


def test_a_target_that_finds_too_little_goes_home_where_that_is_asked_for() -> None:
    spec = {**ONLINE, "validation": {"parity": {"minRecall": "0.9"}}}
    spec["monitoring"] = {"duration": "10m", "interval": "5s", "autoSwitchBack": True}
    w = World(spec=spec, bound=True)
    w.run(until=lambda: w.status.phase == "Monitoring")
    w.probe = {"parity": {"recall": None, "reached": None}}
    w.run(rounds=60)
    assert w.status.monitoring is not None
    assert w.status.monitoring.failures == 0, "no data is no failure"
    w.probe = {"parity": {"recall": 0.5, "reached": False}}
    w.run(until=lambda: w.status.phase == "TrafficSwitch")
    assert w.command is not None
    text = w.status.history[-1].message
    assert text == "3 checks failed in a row, the last one: b finds 0.500 of the nearest neighbours, 0.9 are wanted"
    w.probe = {}
    w.run()
    assert w.status.phase == "SwitchedBack"


@pytest.mark.parametrize("parity", [True, False])
def test_parity_is_watched_where_it_is_asked_for(parity: bool) -> None:
    w = World(spec={**ONLINE, "validation": {"parity": {}}} if parity else dict(ONLINE), bound=True)
    w.run(until=lambda: w.command is not None and w.command.verb == "Probe")
    assert w.command is not None
    assert w.command.parity == (True if parity else None)
