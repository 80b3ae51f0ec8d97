"""Conditions as all of Kubernetes has them."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from memferry.manifest.status import Condition
from memferry_operator.brain import times

__all__ = ["Status", "with_condition"]

Status = Literal["True", "False", "Unknown"]


def with_condition(
    conditions: tuple[Condition, ...],
    now: datetime,
    generation: int,
    kind: str,
    status: Status,
    reason: str,
    message: str,
) -> tuple[Condition, ...]:
    """Conditions with one of them as it is now; its time changes with its status only."""
    before = next((one for one in conditions if one.type == kind), None)
    since = before.last_transition_time if before is not None and before.status == status else times.text(now)
    made = Condition(
        type=kind,
        status=status,
        reason=reason,
        message=message,
        observed_generation=generation,
        last_transition_time=since,
    )
    return tuple(sorted([*(one for one in conditions if one.type != kind), made], key=lambda one: one.type))
