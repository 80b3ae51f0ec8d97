"""One round of the brain."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

from memferry.manifest.status import Phase, StallReason
from memferry_operator.actions import Action, AddFinalizer, FlagNewerStatus
from memferry_operator.brain import (
    commands,
    copying,
    decommission,
    monitoring,
    rebuild,
    rest,
    setup,
    switch,
    validation,
)
from memferry_operator.brain.draft import TERMINAL, Draft
from memferry_operator.observed import Observed
from memferry_operator.reasons import Reason

_STEPS: Final[Mapping[Phase, Callable[[Draft], None]]] = {
    "Pending": setup.pending,
    "ParallelSetup": setup.parallel_setup,
    "BulkTransfer": copying.bulk_transfer,
    "Validation": validation.validation,
    "TrafficSwitch": switch.traffic_switch,
    "Monitoring": monitoring.monitoring,
    "Decommission": decommission.decommission,
    "Succeeded": rest.terminal,
    "Failed": rest.terminal,
    "Aborted": rest.terminal,
    "SwitchedBack": rest.terminal,
}
_HOLDING: Final = frozenset({"BulkTransfer", "Validation", "TrafficSwitch", "Monitoring"})
"""Phases that go on only while the binding is held; those before take it."""
_LOOK_AGAIN: Final = timedelta(seconds=5)
_MOST_PHASES: Final = 12
"""A round goes through no more phases than there are."""


def _unreadable(draft: Draft) -> None:
    """A spec that a newer version understands, or nobody: nothing is begun, and nothing left frozen."""
    if draft.status.phase in TERMINAL:
        rest.terminal(draft)
        return
    rest.thawed(draft)
    draft.stall(StallReason.INVALID_SPEC, draft.observed.invalid)


def plan(observed: Observed, now: datetime) -> list[Action]:
    """What is to be done.

    Args:
        observed: Everything of one migration.
        now: The time; the brain asks no clock.

    Returns:
        Actions in their order; when one cannot be done, those after it are not done either. A change of status comes
        before what it announces, so that whoever comes next knows what may have been done.
    """
    draft = Draft(observed, now, observed.status)
    if observed.newer_status:
        draft.act(FlagNewerStatus())
        return draft.finish()
    if observed.deleting or observed.ending:
        rest.deletion(draft)
        return draft.finish()
    draft.update(observed_generation=observed.generation)
    if observed.spec is None:
        _unreadable(draft)
        return draft.finish()
    if draft.stalled == StallReason.INVALID_SPEC:
        draft.going(Reason.QUEUED, "the spec can be read again")
    if not observed.finalizer and draft.status.phase not in TERMINAL:
        return [AddFinalizer()]
    if draft.status.phase is None:
        if rebuild.waits(draft):
            draft.wake(_LOOK_AGAIN)
            return draft.finish()
        rebuild.rebuild(draft)
    _go(draft)
    return draft.finish()


def _go(draft: Draft) -> None:
    """From phase to phase, as far as it comes."""
    commands.handle(draft)
    for _ in range(_MOST_PHASES):
        phase = draft.status.phase
        assert phase is not None  # noqa: S101 - rebuild() has set one
        if phase in _HOLDING and not setup.holds(draft):
            break
        _STEPS[phase](draft)
        if draft.status.phase == phase:
            break
