"""Offline with a binding: writes are frozen from before the plan until the flip, as long as the leader lives."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from memferry.manifest.status import StallReason
from memferry_operator.actions import DeleteJob, WriteBinding
from memferry_operator.brain import rest, steps, switch, times
from memferry_operator.brain.draft import Draft
from memferry_operator.reasons import Reason

__all__ = ["held", "offline"]

_WINDOW: Final = timedelta(minutes=3)
"""How long a freeze lasts that nobody extends."""
_LOOK_AGAIN: Final = timedelta(seconds=5)


def offline(draft: Draft) -> bool:
    """Whether the application is frozen for the whole copy, as was asked for when the freeze began."""
    step = draft.traffic.step
    begun = step == "Frozen" or (draft.status.phase != "TrafficSwitch" and step != "Preparing")
    return (draft.spec.strategy == "Offline" or begun) and draft.spec.cutover.binding_ref is not None


def held(draft: Draft) -> bool:
    """Whether the copy may go on: always, except where it waits for a freeze that does not hold.

    Nothing is frozen at rest: who is suspended or stalled serves again, and the copy begins anew with the next attempt.
    """
    binding = draft.observed.binding
    if not offline(draft):
        return True
    if binding is None:
        draft.stall(StallReason.BINDING_MISSING, "the MemoryBinding is gone")
        return False
    waits = draft.stalled == StallReason.WORKER_UNSCHEDULABLE and draft.traffic.step == "Preparing"
    if draft.spec.suspend or (draft.stalled and not waits) or draft.traffic.step in {"Returning", "Settled"}:
        _given_back(draft)
        return False
    if draft.traffic.step == "Preparing":
        if switch.ensure_worker(draft) and not switch.silent(draft):
            draft.going(Reason.FREEZING, "waits for the switch worker")
            draft.wake(_LOOK_AGAIN)
            if steps.alive(draft):
                steps.begin_freeze(draft, binding, draft.now + _WINDOW)
    elif draft.traffic.step == "Freezing":
        draft.going(Reason.FREEZING, "clients finish what is in flight")
        steps.drive(draft, binding)
    if draft.traffic.step != "Frozen":
        return False
    _extend(draft)
    # Someone else may have ended the freeze.
    return draft.traffic.step == "Frozen"


def _given_back(draft: Draft) -> None:
    """The application serves again, so what was copied is no longer all there is."""
    if not rest.thawed(draft):
        return
    draft.act(*(DeleteJob(j.name) for j in draft.observed.jobs if not j.ended and not j.deleting))
    if draft.spec.suspend or draft.stalled:
        return
    if draft.traffic.returns:
        draft.stall(StallReason.FREEZE_RETURNED, "the freeze was given back; retryToken begins again")
    else:
        draft.enter("Pending", Reason.QUEUED, "the application has written meanwhile, the copy begins again")


def _extend(draft: Draft) -> None:
    binding, until = draft.observed.binding, times.instant(draft.traffic.frozen_until)
    draft.wake(_WINDOW / 3)
    if binding is None:
        return
    if binding.revision > draft.traffic.revision:
        steps.drive(draft, binding)
        return
    if until is not None and draft.now > until:
        steps.begin_return(draft, "nobody led while the freeze ended")
        return
    if until is None or until - draft.now < _WINDOW / 2:
        until = draft.now + _WINDOW
        draft.update_traffic(frozen_until=times.text(until))
    if binding.frozen_until is None or until - binding.frozen_until > timedelta(seconds=1):
        traffic = draft.traffic
        draft.act(WriteBinding(traffic.active, traffic.revision, traffic.mode, until, locked=True))
