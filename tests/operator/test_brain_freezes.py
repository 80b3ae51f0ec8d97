"""Nobody is frozen for ever, and nobody is frozen or switched by a migration that does not hold the binding."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from memferry.manifest.status import MigrationStatus
from memferry_operator.actions import DeletePod, Emit
from memferry_operator.names import shard
from memferry_operator.observed import Answer, BindingState, Command, Job, Observed, Pod, Progress, WorkerLease
from support.simulated_cluster import World

ONLINE: dict[str, Any] = {"strategy": "Online", "monitoring": {"duration": "20s", "interval": "5s"}}
OFFLINE: dict[str, Any] = {"monitoring": {"duration": "20s", "interval": "5s"}}


def world(spec: dict[str, Any], **changes: Any) -> World:
    return World(spec=copy.deepcopy(spec), bound=True, **changes)


def step(w: World) -> str:
    return w.status.traffic.step if w.status.traffic else ""


def bound(w: World) -> BindingState:
    assert w.binding is not None
    return w.binding


def says(w: World, **changes: Any) -> None:
    """Somebody else writes the status of the binding."""
    version = str(int(bound(w).resource_version) + 1)
    w.binding = dataclasses.replace(bound(w), resource_version=version, **changes)


def walk(w: World, rounds: int) -> None:
    """Everybody does what they do for so many seconds, whatever comes of it."""
    for _ in range(rounds):
        w.reconcile()
        w.workers()
        w.clients()
        w.approve()
        w.check()
        w.now += timedelta(seconds=1)


def waits_for_approval(spec: dict[str, Any]) -> World:
    w = world(spec)
    w.run(until=lambda: w.status.approval is not None, approve=False)
    return w


# -- a binding that is not held


def test_a_binding_whose_status_was_made_anew_is_taken_again() -> None:
    w = waits_for_approval(ONLINE)
    says(w, locked_by_uid="", locked_by_name="")
    w.run(rounds=3, approve=False)
    assert bound(w).locked_by_uid == "uid-1"
    w.run()
    assert w.status.phase == "Succeeded"


@pytest.mark.parametrize("spec", [ONLINE, OFFLINE], ids=["online", "offline"])
def test_a_binding_that_another_migration_has_taken_is_left_alone(spec: dict[str, Any]) -> None:
    w = waits_for_approval(spec)
    others = {"active": "c", "revision": 9, "mode": "Serving", "frozen_until": None}
    says(w, locked_by_uid="uid-2", locked_by_name="m2", **others)
    w.journal = {"revision": 9, "mode": "Serving", "active": "c"}
    stands, command = bound(w), w.command
    walk(w, 60)
    assert w.status.reason == "BindingLocked"
    assert (bound(w), w.command) == (stands, command), "nothing is ordered, and nothing written"
    says(w, locked_by_uid="", locked_by_name="")
    stands = bound(w)
    walk(w, 60)
    assert w.status.reason == "SourceNotActive"
    assert bound(w) == stands
    w.edit(operation="Abort", operationToken="1")
    walk(w, 60)
    assert (w.status.phase, bound(w)) == ("Aborted", stands)


def test_a_freeze_that_another_migration_has_taken_is_not_gone_on_with() -> None:
    w = world(ONLINE)
    w.run(until=lambda: step(w) == "FinalPass")
    says(w, locked_by_uid="uid-2", locked_by_name="m2", active="c", revision=9, mode="Serving", frozen_until=None)
    stands = bound(w)
    walk(w, 60)
    assert bound(w) == stands


def test_no_freeze_begins_on_a_side_that_is_not_left() -> None:
    w = waits_for_approval(ONLINE)
    says(w, active="c", revision=9)  # By hand: it is held all the while.
    stands = bound(w)
    walk(w, 60)
    assert w.status.reason == "SourceNotActive"
    assert bound(w) == stands


def test_a_frozen_binding_is_not_taken() -> None:
    w = world(ONLINE)
    says(w, mode="Frozen")
    w.run(rounds=20)
    assert (w.status.phase, w.status.reason, bound(w).locked_by_uid) == ("Pending", "BindingLocked", "")
    says(w, mode="Serving", revision=2)
    w.run()
    assert w.status.phase == "Succeeded"


def test_nothing_is_written_while_the_status_of_the_binding_is_made_anew() -> None:
    w = world(ONLINE)
    w.run(until=lambda: step(w) == "FinalPass")
    whole = bound(w)
    says(w, active="", revision=0, mode="Serving", frozen_until=None, locked_by_uid="", locked_by_name="")
    stands = bound(w)
    for _ in range(60):
        w.reconcile()
    assert (bound(w), w.status.reason) == (stands, "BindingNotReady")
    says(w, active="a", revision=whole.revision, mode="Frozen", frozen_until=whole.frozen_until)
    w.run()
    assert w.status.phase == "Succeeded"


# -- nobody is frozen at rest


def hangs(w: World) -> None:
    """No worker does anything any more, and there is no room for another one."""

    def pending() -> bool:
        for job in w.jobs.values():
            name = f"{job.name}-0"
            w.pods.setdefault(name, Pod(name, job.role, job.attempt, since=w.now, waiting="full"))
        return False

    w.workers = pending  # type: ignore[method-assign]


def is_refused(w: World) -> None:
    job = w.job("switch")
    assert job is not None
    w.jobs[job.name] = dataclasses.replace(job, failure="PodFailurePolicy")


def suspended(w: World) -> None:
    w.edit(suspend=True)
    hangs(w)


def deleted(w: World) -> None:
    w.deleting = True
    hangs(w)


def ending(w: World) -> None:
    w.deleting = w.ending = True
    w.jobs.clear()
    w.pods.clear()
    hangs(w)


def unreadable(w: World) -> None:
    observe = w.observe

    def without_spec() -> Observed:
        return dataclasses.replace(observe(), spec=None, invalid="spec.x: bad")

    w.observe = without_spec  # type: ignore[method-assign]


def unreadable_and_deleted(w: World) -> None:
    unreadable(w)
    deleted(w)


def status_is_lost(w: World) -> None:
    w.status, w.version = MigrationStatus(), w.version + 1


def status_is_lost_and_suspended(w: World) -> None:
    status_is_lost(w)
    suspended(w)


def status_is_lost_without_a_place(w: World) -> None:
    status_is_lost(w)
    w.slot = False


def status_is_lost_and_a_backend(w: World) -> None:
    status_is_lost(w)
    del w.backends["b"]


def journals_cannot_be_written(w: World) -> None:
    def fails(command: Command) -> Answer:
        return Answer(command.sequence, command.verb, done=False, code="unavailable")

    w._answer = fails  # type: ignore[method-assign]


TROUBLES: list[Callable[[World], None]] = [
    hangs,
    is_refused,
    suspended,
    deleted,
    ending,
    unreadable,
    unreadable_and_deleted,
    status_is_lost_and_suspended,
    status_is_lost_without_a_place,
    status_is_lost_and_a_backend,
    journals_cannot_be_written,
]
STEPS = [
    *((ONLINE, "Forward", step) for step in ("Freezing", "FinalPass", "Flipping", "Serving")),
    *((ONLINE, "Back", step) for step in ("Freezing", "FinalPass", "Flipping", "Serving")),
    *((OFFLINE, "Forward", step) for step in ("Freezing", "Frozen", "FinalPass", "Flipping", "Serving")),
]


def reach(spec: dict[str, Any], direction: str, wanted: str) -> World:
    """A switch that has just come to a step, and shown it."""
    w = world(spec)
    if direction == "Back":
        w.run(until=lambda: w.status.phase == "Monitoring")
        w.edit(operation="SwitchBack", operationToken="1")
        w.run(until=lambda: w.status.phase == "TrafficSwitch")

    def reached() -> bool:
        return step(w) == wanted and bound(w).mode == "Frozen"

    w.run(until=reached)
    assert reached()
    return w


@pytest.mark.parametrize("trouble", TROUBLES, ids=[one.__name__ for one in TROUBLES])
@pytest.mark.parametrize(("spec", "direction", "where"), STEPS)
def test_nobody_is_frozen_for_two_hours(
    trouble: Callable[[World], None], spec: dict[str, Any], direction: str, where: str
) -> None:
    w = reach(spec, direction, where)
    trouble(w)
    for _ in range(240):
        walk(w, 1)
        w.now += timedelta(seconds=29)
    assert bound(w).mode == "Serving", w.status
    if w.deleting:
        assert w.gone
        assert not w.jobs
    assert {app.mode for app in w.apps} == {"Serving"}


# -- the worst of them, to the second


@pytest.mark.parametrize("kept", [{"target": "store"}, {}])
def test_the_new_side_serves_though_a_journal_cannot_be_written(kept: dict[str, str]) -> None:
    w = reach(ONLINE, "Forward", "Serving")
    answer = w._answer

    def half(command: Command) -> Answer:
        if command.verb != "Journal":
            return answer(command)
        return Answer(command.sequence, command.verb, done=False, code="unavailable", body={"kept": kept})

    w._answer = half  # type: ignore[method-assign]
    began = w.now
    w.run(until=lambda: bound(w).mode == "Serving")
    assert bound(w).active == "b"
    assert w.now - began < (timedelta(seconds=5) if kept else timedelta(minutes=2))
    w.run(rounds=5)
    told = any(isinstance(action, Emit) and action.reason == "JournalNotWritten" for action in w.log)
    assert told == (not kept)
    assert w.status.phase == "Monitoring"


def test_a_journal_that_has_gone_on_is_gone_beyond_before_the_new_side_serves() -> None:
    w = reach(ONLINE, "Forward", "Serving")
    w.journal = {"revision": 40, "mode": "Frozen", "active": "a"}
    w.run()
    assert (w.status.phase, w.journal["active"]) == ("Succeeded", "b")
    assert w.journal["revision"] == bound(w).revision > 40


def test_a_long_last_pass_is_waited_for_while_it_makes_progress() -> None:
    w = reach(OFFLINE, "Forward", "FinalPass")
    lease, workers = w.leases["m-switch"], w.workers
    hangs(w)
    for _ in range(30):
        w.progress(0, progressed_at=w.now)
        progress = w.leases["m-shard-0"].progress
        w.leases["m-switch"] = dataclasses.replace(lease, renewed_at=w.now, progress=progress)
        walk(w, 1)
        w.now += timedelta(minutes=4)
    assert step(w) == "FinalPass"
    w.workers = workers  # type: ignore[method-assign]
    w.run()
    assert w.status.phase == "Succeeded"


def test_a_spec_that_can_be_read_again_is_gone_on_with() -> None:
    w = reach(ONLINE, "Forward", "Serving")
    observe = w.observe
    unreadable(w)
    walk(w, 60)
    assert (w.status.reason, step(w), bound(w).mode) == ("InvalidSpec", "Settled", "Serving")
    w.observe = observe  # type: ignore[method-assign]
    w.run()
    assert w.status.phase == "Succeeded"


def test_an_end_is_an_end_though_nobody_can_read_the_spec() -> None:
    w = world(ONLINE)
    w.run()
    before = w.status
    unreadable(w)
    walk(w, 10)
    assert w.status.conditions == before.conditions


def test_what_is_asked_for_by_now_leaves_nobody_frozen() -> None:
    w = reach(OFFLINE, "Forward", "Frozen")
    w.edit(strategy="Online", suspend=True)  # As where the definitions are those of an older chart.
    walk(w, 60)
    assert (bound(w).mode, bound(w).active) == ("Serving", "a")
    w.edit(suspend=False)
    w.run()
    w.edit(retryToken="1")
    w.run()
    assert w.status.phase == "Succeeded"


def test_a_freeze_of_the_whole_copy_that_is_over_is_not_extended_by_the_next_leader() -> None:
    w = reach(OFFLINE, "Forward", "Frozen")
    w.now += timedelta(hours=1)
    w.reconcile()
    w.reconcile()
    assert (bound(w).mode, bound(w).active) == ("Serving", "a")


# -- a lost status, passes, workers


def test_what_was_aborted_does_not_begin_anew_when_its_status_is_lost() -> None:
    w = reach(OFFLINE, "Forward", "Frozen")
    w.run(until=lambda: w.status.phase == "BulkTransfer")
    w.edit(operation="Abort", operationToken="1")
    w.run()
    jobs = list(w.jobs)
    status_is_lost(w)
    w.run()
    assert (w.status.phase, list(w.jobs)) == ("Aborted", jobs)


def test_passes_of_another_worker_begin_at_one_again_and_count() -> None:
    w = waits_for_approval(ONLINE)
    w.run(rounds=50, approve=False)
    w.passes, w.pass_secs = 0, 600.0
    w.run(rounds=5, approve=False)
    assert w.status.sync is not None
    assert w.status.sync.predicted_freeze_secs == 1200
    walk(w, 60)
    assert (w.status.reason, bound(w).revision) == ("FreezeTooLong", 1)


class NoRoom:
    """Pods of a role that wait until there is room, or are not even made."""

    def __init__(self, w: World, role: str, *, pods: bool = True) -> None:
        self.world, self.role, self.full, self.pods = w, role, True, pods
        self.job, w._job = w._job, self.step  # type: ignore[method-assign]

    def step(self, job: Job) -> bool:
        name = f"{job.name}-0"
        if job.role == self.role and self.full and not job.ended and not self.pods:
            self.world.jobs[job.name] = dataclasses.replace(job, since=job.since or self.world.now)
            return False
        if job.role == self.role and self.full and not job.ended:
            self.world.pods.setdefault(name, Pod(name, job.role, job.attempt, since=self.world.now, waiting="full"))
            return False
        if name in self.world.pods and self.world.pods[name].phase == "Pending":
            del self.world.pods[name]
        return self.job(job)


def stalled(w: World) -> str:
    """Why it is stalled, as its condition says."""
    return next((c.reason for c in w.status.conditions if c.type == "Stalled" and c.status == "True"), "")


@pytest.mark.parametrize("spec", [ONLINE, OFFLINE], ids=["online", "offline"])
def test_a_switch_worker_that_finds_no_room_is_told_and_goes_on(spec: dict[str, Any]) -> None:
    w = world(spec)
    room = NoRoom(w, "switch")
    walk(w, 400)
    assert stalled(w) == "WorkerUnschedulable"
    events = [action for action in w.log if isinstance(action, Emit) and action.reason == "WorkerUnschedulable"]
    assert len(events) == 1
    room.full = False
    w.run()
    assert w.status.phase == "Succeeded"


def test_a_copy_that_finds_room_is_not_stalled_any_more() -> None:
    w = world(ONLINE)
    room = NoRoom(w, "transfer")
    walk(w, 400)
    assert stalled(w) == "WorkerUnschedulable"
    room.full = False
    job = w.job("transfer")
    assert job is not None
    name = f"{job.name}-0"
    w.pods[name] = dataclasses.replace(w.pods[name], phase="Running", since=w.now)
    w.reconcile()
    assert (stalled(w), w.status.reason) == ("", "Copying")


@pytest.mark.parametrize("role", ["plan", "transfer", "verify", "switch"])
@pytest.mark.parametrize("spec", [ONLINE, OFFLINE], ids=["online", "offline"])
def test_a_job_that_is_given_no_pod_is_told_and_goes_on(spec: dict[str, Any], role: str) -> None:
    w = world(spec)
    room = NoRoom(w, role, pods=False)
    walk(w, 400)
    assert stalled(w) == "WorkerUnschedulable"
    message = next(c.message for c in w.status.conditions if c.type == "Stalled")
    assert "is given no pod" in message
    room.full = False
    if spec is OFFLINE and role != "switch":
        # Nobody stays frozen for it: the copy begins anew.
        assert bound(w).mode == "Serving"
        w.edit(retryToken="again")
    w.run()
    assert w.status.phase == "Succeeded"


@pytest.mark.parametrize("pods", [False, True], ids=["no pod", "no room"])
def test_a_deletion_that_finds_no_room_is_told_and_goes_on(*, pods: bool) -> None:
    w = world({**ONLINE, "decommission": {"policy": "Delete"}})
    room = NoRoom(w, "retire", pods=pods)
    walk(w, 500)
    assert (w.status.phase, stalled(w)) == ("Decommission", "WorkerUnschedulable")
    room.full = False
    w.run()
    assert w.status.phase == "Succeeded"


def test_a_job_whose_pod_has_just_gone_is_not_told_to_have_none() -> None:
    w = world(ONLINE)
    w.run(until=lambda: w.status.phase == "BulkTransfer" and w.job("transfer") is not None)
    job = w.job("transfer")
    assert job is not None
    progress = Progress(attempt=job.attempt, read=1)
    w.leases[shard("m", 0)] = WorkerLease(shard("m", 0), "gone", w.now, progress)
    w.jobs[job.name] = dataclasses.replace(job, since=w.now - timedelta(hours=1), complete=False, succeeded=0)
    w.pods.clear()
    w.reconcile()
    assert stalled(w) == ""


def test_a_switch_worker_that_beats_no_more_is_replaced_outside_of_a_freeze() -> None:
    w = waits_for_approval(ONLINE)
    workers = w.workers
    hangs(w)
    w.now += timedelta(minutes=6)
    w.reconcile()
    assert DeletePod("m-switch-1-0") in w.log
    w.workers = workers  # type: ignore[method-assign]
    w.run()
    assert w.status.phase == "Succeeded"


@pytest.mark.parametrize("spec", [ONLINE, OFFLINE], ids=["online", "offline"])
@pytest.mark.parametrize("secs", [-40, -21, 21, 3600])
def test_a_node_with_another_clock_holds_no_switch_up(spec: dict[str, Any], secs: int) -> None:
    w = world(spec)
    observe = w.observe

    def skewed() -> Observed:
        seen, ahead = observe(), timedelta(seconds=secs)
        moved = {
            name: dataclasses.replace(one, renewed_at=one.renewed_at and one.renewed_at + ahead)
            for name, one in seen.leases.items()
        }
        return dataclasses.replace(seen, leases=moved)

    w.observe = skewed  # type: ignore[method-assign]
    w.run()
    assert w.status.phase == "Succeeded"


def test_no_freeze_begins_for_a_worker_that_is_ahead_and_does_not_report() -> None:
    w = waits_for_approval(ONLINE)
    w.run(rounds=5, approve=False)
    w.leases["m-switch"] = dataclasses.replace(w.leases["m-switch"], renewed_at=w.now + timedelta(hours=1))
    hangs(w)
    w.approve()
    for _ in range(30):
        w.reconcile()
        w.now += timedelta(seconds=1)
    assert bound(w).revision == 1
    (going,) = [c for c in w.status.conditions if c.type == "Reconciling"]
    assert "before the switch worker reports" in going.message


def test_nothing_waits_for_an_approval_any_more_when_it_is_tried_again() -> None:
    w = waits_for_approval(OFFLINE)
    is_refused(w)
    walk(w, 30)
    w.edit(retryToken="1")
    w.run(until=lambda: w.status.phase == "BulkTransfer")
    assert not [c for c in w.status.conditions if c.type == "ApprovalRequired" and c.status == "True"]
