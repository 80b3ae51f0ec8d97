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
_LOOK_AGAIN: Final = timedelta(seconds=5)
_MOST_PHASES: Final = 12
"""A round goes through no more phases than there are."""


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
        draft.stall(StallReason.INVALID_SPEC, observed.invalid)
        return draft.finish()
    if not observed.finalizer and draft.status.phase not in TERMINAL:
        return [AddFinalizer()]
    if draft.status.phase is None:
        if rebuild.waits(draft):
            draft.wake(_LOOK_AGAIN)
            return draft.finish()
        rebuild.rebuild(draft)
    commands.handle(draft)
    for _ in range(_MOST_PHASES):
        phase = draft.status.phase
        assert phase is not None  # noqa: S101 - rebuild() has set one
        _STEPS[phase](draft)
        if draft.status.phase == phase:
            break
    return draft.finish()
