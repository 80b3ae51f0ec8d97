"""The brain after the switch: what is watched, what goes home, and how the source ends."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from typing import Any

import pytest

from support.simulated_cluster import World

DAY = {"duration": "24h", "failureLimit": 2}


def switched(**monitoring: Any) -> World:
    """A migration that has just begun to be monitored."""
    w = World(spec={"strategy": "Online", "monitoring": {**DAY, **monitoring}}, bound=True)
    w.run(until=lambda: w.status.phase == "Monitoring")
    return w


RETIRING = {
    "strategy": "Online",
    "monitoring": {"duration": "20s", "interval": "5s"},
    "decommission": {"policy": "Delete"},
}


def deleting(**changes: Any) -> World:
    """A migration that waits for the approval to delete its source."""
    w = World(spec=dict(RETIRING), bound=True, **changes)
    w.run(until=lambda: w.status.reason == "ApprovalRequired" and w.status.phase == "Decommission")
    return w


def running(w: World, role: str) -> bool:
    """Whether a Job or a pod of a role is at work."""
    pods = (pod for pod in w.pods.values() if pod.role == role and not pod.ended)
    return any(pods) or any(job for job in w.jobs.values() if job.role == role and not job.ended)


def going(w: World) -> str:
    """What the migration says of what goes on."""
    return next(c.message for c in w.status.conditions if c.type == "Reconciling")


@pytest.mark.parametrize("interval", ["5s", "2m", "5m", "1h"])
def test_a_check_is_made_however_far_apart_they_are(interval: str) -> None:
    w = switched(interval=interval)
    w.probe = {"target": {"reachable": False, "error": {"message": "it is down"}}}
    for _ in range(2 * 3600 // 5 + 10):
        # The operator sees its own writes before the worker has read the command.
        for _ in range(3):
            w.reconcile()
        w.workers()
        w.now += timedelta(seconds=5)
        if w.status.reason == "MonitoringFailed":
            break
    assert w.status.reason == "MonitoringFailed"
    assert w.status.monitoring is not None
    assert "b does not answer: it is down" in w.status.monitoring.problem


def test_a_probe_that_waits_for_a_long_pass_counts_when_it_is_answered() -> None:
    w = switched(interval="30s")
    w.probe = {"target": {"reachable": False, "error": {"message": "it is down"}}}
    for _ in range(20 * 60):  # The worker is at work on a pass.
        w.reconcile()
        w.now += timedelta(seconds=1)
    assert w.command is not None
    assert w.command.verb == "Probe"
    assert "is not answered yet" in going(w)
    w.workers()
    w.reconcile()
    assert w.status.monitoring is not None
    assert w.status.monitoring.failures == 1
    assert going(w) == ""


def test_a_switch_that_somebody_else_ended_is_monitored_to_its_end() -> None:
    w = World(spec={"strategy": "Online", "monitoring": {"duration": "20s", "interval": "5s"}}, bound=True)
    w.run(until=lambda: w.status.traffic is not None and w.status.traffic.step == "Serving")
    assert w.binding is not None
    revision = w.binding.revision + 3
    w.journal = {"revision": revision, "mode": "Serving", "active": "b"}
    changes: dict[str, Any] = {"active": "b", "mode": "Serving", "revision": revision, "frozen_until": None}
    w.binding = dataclasses.replace(w.binding, resource_version="99", **changes)
    w.run()
    assert (w.status.phase, w.binding.active) == ("Succeeded", "b")
    assert w.status.traffic is not None
    assert w.status.traffic.switched_at


@pytest.mark.parametrize("way_back", [True, False])
def test_nothing_goes_home_while_the_source_is_deleted(way_back: bool) -> None:
    w = deleting(way_back=way_back)
    w.run(rounds=20, approve=False)
    assert w.command is not None
    assert running(w, "switch")
    assert not way_back or w.command.verb == "Pass", "it goes on until the deletion is approved"
    w.approve()
    w.run(until=lambda: w.job("retire") is not None)
    assert not running(w, "switch")
    w.run()
    assert w.status.phase == "Succeeded"
    assert not w.lost()


def test_a_deletion_that_was_refused_and_is_tried_again_waits_with_passes_home() -> None:
    w = deleting(exits={"retire": [42]})
    w.run(until=lambda: w.status.reason == "RetireRefused")
    assert not running(w, "switch")
    w.edit(retryToken="1")
    passes = w.passes
    w.run(rounds=20, approve=False)
    assert running(w, "switch")
    assert w.passes > passes
    w.run()
    assert w.status.phase == "Succeeded"
    assert not running(w, "switch")


@pytest.mark.parametrize("step", ["Preparing", "Freezing", "FinalPass", "Flipping", "Returning", "Settled"])
def test_a_switch_home_that_is_called_off_stays_with_the_target(step: str) -> None:
    w = switched(interval="5s", duration="1h")
    if step == "Preparing":
        w.conflicts = 1
    elif step in {"Returning", "Settled"}:
        w.final_pass = [{"missing": 1}]
    w.edit(operation="SwitchBack", operationToken="1")
    w.run(until=lambda: w.status.phase == "TrafficSwitch" and w.status.traffic.step == step)  # type: ignore[union-attr]
    if step == "Preparing":
        w.run(rounds=5)
        assert w.status.reason == "ValidationFailed"
    w.conflicts = 0
    w.now += timedelta(hours=step in {"Preparing", "Settled"})  # Where it stalls, nobody may look for long.
    w.edit(operation="Abort", operationToken="2")
    w.run(rounds=30)
    assert (w.status.phase, w.status.reason) == ("Monitoring", "Watching")
    assert w.status.traffic is not None
    assert w.binding is not None
    assert (w.status.traffic.step, w.status.traffic.direction) == ("Settled", "Back")
    assert (w.binding.active, w.binding.mode, w.journal["active"]) == ("b", "Serving", "b")
    assert w.status.monitoring is not None
    assert {c.type: c.status for c in w.status.conditions}["TrafficSwitched"] == "True"
    w.edit(operation="SwitchBack", operationToken="3")
    w.run()
    assert (w.status.phase, w.binding.active) == ("SwitchedBack", "a")


def test_a_switch_home_that_serves_is_not_called_off() -> None:
    w = switched(interval="5s")
    w.edit(operation="SwitchBack", operationToken="1")
    w.run(until=lambda: w.status.traffic is not None and w.status.traffic.step == "Serving")
    w.edit(operation="Abort", operationToken="2")
    w.run()
    assert w.binding is not None
    assert (w.status.phase, w.binding.active) == ("SwitchedBack", "a")
    assert {c.type: c.message for c in w.status.conditions}["OperationRefused"] == "a serves already"
