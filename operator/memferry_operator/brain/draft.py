"""The status and the actions of one round, while they are made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from memferry.manifest import Migration
from memferry.manifest.status import History, MigrationStatus, Phase, StallReason, TrafficStatus
from memferry_operator.actions import Action, AddFinalizer, Emit, FlagNewerStatus, WakeAt, WriteStatus
from memferry_operator.brain import times
from memferry_operator.brain.conditions import Status, with_condition
from memferry_operator.observed import TERMINAL, Observed, Pod
from memferry_operator.reasons import Reason

__all__ = ["TERMINAL", "Draft"]

_HISTORY: Final = 32
_MESSAGE: Final = 1024
_FREE: Final = (WakeAt, Emit, AddFinalizer, FlagNewerStatus)
"""Actions that announce nothing and wait for no status."""


@dataclass
class Draft:
    """One round: `status` is what will stand there, `actions` what follows from it."""

    observed: Observed
    now: datetime
    status: MigrationStatus
    actions: list[Action] = field(default_factory=list)

    @property
    def spec(self) -> Migration:
        """What is asked for; only asked for where it could be read."""
        assert self.observed.spec is not None  # noqa: S101 - plan() has looked
        return self.observed.spec

    @property
    def traffic(self) -> TrafficStatus:
        """The state of the switch."""
        return self.status.traffic or TrafficStatus()

    @property
    def source(self) -> str:
        """Name of the source's MemoryBackend."""
        return self.spec.source.backend_ref.name

    @property
    def target(self) -> str:
        """Name of the target's MemoryBackend."""
        return self.spec.target.backend_ref.name

    @property
    def locked(self) -> bool:
        """Whether this migration holds its binding."""
        binding = self.observed.binding
        return binding is not None and binding.locked_by_uid == self.observed.uid

    def update(self, **changes: Any) -> None:
        """Changes fields of the status."""
        self.status = self.status.model_copy(update=changes)

    def update_traffic(self, **changes: Any) -> None:
        """Changes fields of `status.traffic`."""
        self.update(traffic=self.traffic.model_copy(update=changes))

    def act(self, *actions: Action) -> None:
        """Asks for something, after the status stands."""
        self.actions += actions

    def wake(self, after: timedelta) -> None:
        """Looks again after a while, whatever happens."""
        self.act(WakeAt(self.now + after))

    def enter(self, phase: Phase, reason: Reason, message: str = "") -> None:
        """Goes to a phase; the one before gets its end in the history."""
        at = times.text(self.now)
        history = [
            entry if entry.completed_at else entry.model_copy(update={"completed_at": at})
            for entry in self.status.history
        ]
        attempt = self.status.attempt
        history.append(History(phase=phase, started_at=at, attempt=attempt, message=message[:_MESSAGE]))
        if phase in TERMINAL:
            history[-1] = history[-1].model_copy(update={"completed_at": at})
            self.update(completed_at=at)
        self.update(phase=phase, history=tuple(history[-_HISTORY:]), started_at=self.status.started_at or at)
        self.going(reason, message)
        if len(history) > 1:  # That one was made, everybody sees.
            self.act(Emit("Normal", str(reason), f"{phase}: {message}" if message else phase))

    def going(self, reason: Reason, message: str = "") -> None:
        """Work goes on, or is waited for."""
        self.update(reason=str(reason))
        ready = self.status.phase == "Succeeded"
        over = self.status.phase in TERMINAL
        self.condition("Ready", "True" if ready else "False", str(reason), message)
        self.condition("Reconciling", "False" if over else "True", str(reason), message)
        self.condition("Stalled", "True" if over and not ready else "False", str(reason), message)

    def stall(self, reason: StallReason, message: str) -> None:
        """Someone has to act."""
        if self.status.reason != str(reason):
            self.act(Emit("Warning", str(reason), message[:_MESSAGE]))
        self.update(reason=str(reason))
        self.condition("Ready", "False", str(reason), message)
        self.condition("Reconciling", "False", str(reason), message)
        self.condition("Stalled", "True", str(reason), message)

    @property
    def stalled(self) -> StallReason | None:
        """Why it is stalled, by the status as it stands."""
        return StallReason(self.status.reason) if self.status.reason in set(StallReason) else None

    def condition(self, kind: str, status: Status, reason: str, message: str = "") -> None:
        """Sets a condition; its time moves only when its status does."""
        conditions, generation = self.status.conditions, self.observed.generation
        self.update(conditions=with_condition(conditions, self.now, generation, kind, status, reason, message))

    def is_true(self, kind: str) -> bool:
        """Whether a condition is True."""
        return any(c.type == kind and c.status == "True" for c in self.status.conditions)

    def drop_condition(self, kind: str) -> None:
        """Takes a condition away."""
        self.update(conditions=tuple(c for c in self.status.conditions if c.type != kind))

    def workers(self) -> list[Pod]:
        """Pods that have not been seen to end."""
        return [pod for pod in self.observed.pods if not pod.ended]

    def finish(self) -> list[Action]:
        """The actions in the order in which they are done: the status first, what it announces after it."""
        wakes = [a for a in self.actions if isinstance(a, WakeAt)]
        emits = [a for a in self.actions if isinstance(a, Emit)]
        first: list[Action] = [a for a in self.actions if isinstance(a, AddFinalizer | FlagNewerStatus)]
        rest = [a for a in self.actions if not isinstance(a, _FREE)]
        if self.status != self.observed.status:
            first.append(WriteStatus(self.status))
        soonest = [min(wakes, key=lambda a: a.at)] if wakes else []
        return [*first, *emits, *rest, *soonest]
