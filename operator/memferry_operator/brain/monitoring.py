"""Monitoring: the new side is watched, the old one kept up to date where the way back is open."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from memferry.manifest.status import MonitoringStatus, StallReason
from memferry_operator.actions import Emit
from memferry_operator.brain import jobs, steps, switch, times
from memferry_operator.brain.draft import Draft
from memferry_operator.observed import Answer
from memferry_operator.reasons import Reason

__all__ = ["carry_home", "monitoring", "stay", "switch_back"]

_LATE: Final = timedelta(minutes=2)
"""A check that is due for so long and not answered is spoken of."""


def monitoring(draft: Draft) -> None:
    """Checks at an interval, and ends after the duration."""
    works, binding = switch.ensure_worker(draft), draft.observed.binding
    if binding is not None and draft.traffic.step in steps.MOVING:  # A switch home that was called off in its freeze.
        steps.drive(draft, binding)
        if works:
            draft.going(Reason.RETURNING)
        return
    if not works:
        return
    draft.update_traffic(direction="Back")
    spec, state = draft.spec.monitoring, draft.status.monitoring or MonitoringStatus()
    switched = times.instant(draft.traffic.switched_at)
    if switched is None:  # Somebody else has ended the switch, so nobody has noted when.
        switched = draft.now
        draft.update_traffic(switched_at=times.text(switched))
    _heard(draft, state)
    state = draft.status.monitoring or state
    if state.failures >= spec.failure_limit:
        _failed(draft, state)
        return
    end = switched + times.duration(spec.duration)
    if draft.now >= end and not draft.spec.suspend:
        draft.condition("MonitoringPassed", "True", "Passed")
        draft.enter("Decommission", Reason.RETIRING)
        return
    due = (times.instant(state.checked_at) or switched) + times.duration(spec.interval)
    if draft.now >= due and draft.traffic.command != "Probe":
        steps.order(draft, "Probe")
    elif not draft.traffic.command:
        _pass(draft)
    # However long a pass takes that is under way, the worker comes to the probe after it: it is waited for.
    late = draft.traffic.command == "Probe" and draft.now > due + _LATE
    draft.going(Reason.WATCHING, f"the check that was due at {times.text(due)} is not answered yet" if late else "")
    draft.wake(max(timedelta(seconds=1), min(due, end) - draft.now))


def _heard(draft: Draft, state: MonitoringStatus) -> None:
    """Takes over what the worker has answered."""
    said = steps.answer(draft) if draft.traffic.command else None
    if said is not None and said.verb == "Probe":
        _judge(draft, said, state)
    elif said is not None and said.verb == "Pass" and said.done:
        switch.synced(draft, said)


def _pass(draft: Draft) -> None:
    """Keeps the old side up to date where the plan proved that nothing is lost on the way back."""
    if draft.status.plan and draft.status.plan.way_back:
        draft.update(sync=None)
        steps.order(draft, "Pass")
    else:
        draft.update_traffic(command="")


def carry_home(draft: Draft) -> None:
    """Goes on with the passes home: a source is deleted only where it has what the application made of its records."""
    if draft.traffic.direction != "Back" or not (draft.status.plan and draft.status.plan.way_back):
        return
    jobs.ensure(draft, "switch")
    if draft.traffic.command != "Pass":
        _pass(draft)
    steps.send(draft)


def _judge(draft: Draft, said: Answer, state: MonitoringStatus) -> None:
    """No data is inconclusive, never a failure."""
    binding, failures = draft.observed.binding, state.failures
    errors = sum(client.errors for client in binding.clients) if binding else 0
    found = said.body.get("stray") or {}
    stray, parity = int(found.get("records") or 0), said.body.get("parity") or {}
    problem = _problem(draft, said, errors - state.client_errors) if said.done else state.problem
    if said.done:
        failures = failures + 1 if problem else 0
    if stray > state.stray_writes:
        ids = ", ".join("/".join(map(str, one)) for one in (found.get("ids") or [])[:5])
        draft.act(Emit("Warning", "StrayWrites", f"{stray} records were written to {draft.source} since: {ids}"))
    draft.update(
        monitoring=MonitoringStatus(
            failures=failures,
            checked_at=times.text(draft.now),
            stray_writes=max(stray, state.stray_writes),
            client_errors=errors,
            recall=parity.get("recall"),
            problem=problem,
        ),
    )
    _pass(draft)


def _problem(draft: Draft, said: Answer, errors: int) -> str:
    """What speaks against the new side; nothing where nothing does, or where that is not known."""
    target, parity = said.body.get("target") or {}, said.body.get("parity") or {}
    if target.get("reachable") is False:
        return f"{draft.target} does not answer: {(target.get('error') or {}).get('message', '')}"
    if errors > 0:
        return f"{errors} errors of {draft.target} were reported by clients"
    asked = draft.spec.validation.parity
    if asked and parity.get("reached") is False:
        return f"{draft.target} finds {parity['recall']:.3f} of the nearest neighbours, {asked.min_recall} are wanted"
    return ""


def _failed(draft: Draft, state: MonitoringStatus) -> None:
    why = f"{state.failures} checks failed in a row, the last one: {state.problem}"
    if draft.spec.monitoring.auto_switch_back and draft.status.plan and draft.status.plan.way_back:
        switch_back(draft, why)
    else:
        draft.condition("MonitoringPassed", "False", "Failed", why)
        draft.stall(StallReason.MONITORING_FAILED, f"{why}; {draft.target} serves")


def switch_back(draft: Draft, why: str) -> None:
    """The switch in the other direction."""
    draft.update(monitoring=None, sync=None)
    draft.update_traffic(direction="Back", step="Preparing", command="", returns=0, returned_at=None)
    draft.enter("TrafficSwitch", Reason.SWITCHING_BACK, why)


def stay(draft: Draft) -> None:
    """Calls a switch home off that has not come to `Serving`: the target serves on, and is watched anew."""
    if draft.traffic.step in steps.MOVING - {"Returning"}:
        steps.begin_return(draft, "the switch home was called off")
    elif draft.traffic.step == "Preparing":
        draft.update_traffic(step="Settled", command="")
    draft.update(monitoring=None, sync=None)
    draft.update_traffic(switched_at=times.text(draft.now))
    draft.condition("TrafficSwitched", "True", "Stays", f"{draft.target} serves on")
    draft.enter("Monitoring", Reason.WATCHING, f"{draft.target} serves on, as asked")
