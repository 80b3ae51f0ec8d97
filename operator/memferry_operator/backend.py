"""MemoryBackend: when its store is looked at, and what its status becomes. Pure, as the brain is.

A probe is a Job of one pod that opens the store and says what it found. A MemoryBackend has one at a time: when it is
new or was changed, when a binding asks for its journal, and from time to time while something refers to it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from memferry.manifest.backend_status import BackendStatus, BackendUser, RecordCounts
from memferry.manifest.status import STATUS_VERSION
from memferry_operator.actions import WakeAt
from memferry_operator.brain import times
from memferry_operator.brain.conditions import Status, with_condition
from memferry_operator.observed import User

__all__ = [
    "PROBE_SECS",
    "Ask",
    "BackendAction",
    "BackendSeen",
    "EndProbe",
    "Probe",
    "StartProbe",
    "WaitForProbe",
    "WriteBackendStatus",
    "answered",
    "plan_backend",
]

PROBE_SECS: Final = 180
"""A probe that has not come to an end by then is ended."""
_FIRST_WAIT: Final = timedelta(seconds=10)
_LONGEST_WAIT: Final = timedelta(minutes=2)
_LOOK_AGAIN: Final = timedelta(seconds=10)
_TRIES: Final = 3
"""Of a change to a MemoryBackend that nothing refers to."""
_MAX_USERS: Final = 64
_AWAY: Final = frozenset({"unavailable", "throttled"})
_UNUSABLE: Final = frozenset({"InvalidSpec", "BackendMissing", "KeyMissing"})
_STORE_MISSING: Final = "store-missing"


@dataclass(frozen=True, slots=True)
class Ask:
    """A binding without a status asks for its journal.

    Attributes:
        since: From when an answer counts.
        state_claim: The claim with the state directory, where a journal lies beside its store.
    """

    since: str
    state_claim: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """The Job of a probe.

    Attributes:
        number: Which one; its result has the same.
        generation: Of the MemoryBackend that it looks at.
        message: Why it failed, where it did.
    """

    name: str
    number: str
    generation: int
    ended: bool = False
    deleting: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True)
class BackendSeen:
    """Everything of one MemoryBackend.

    Attributes:
        problem: What is wrong with the spec.
        missing: MemoryBackends that it is made of and that are not there.
        lacking: Keys of Secrets and ConfigMaps that it references and that are not there, in words.
        newer_status: Whether a newer operator wrote the status.
        users: Resources that name it.
        probe: Its probe, None where there is none.
        said: What the last probe said that came to an end.
        asked: Journals that bindings wait for, by binding.
        slot: Whether one more probe may run now.
    """

    name: str
    generation: int
    status: BackendStatus
    problem: str = ""
    missing: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()
    newer_status: bool = False
    deleting: bool = False
    users: tuple[User, ...] = ()
    probe: Probe | None = None
    said: Mapping[str, Any] = field(default_factory=dict)
    asked: Mapping[str, Ask] = field(default_factory=dict)
    slot: bool = True

    @property
    def used(self) -> bool:
        """Whether something refers to it that is not over."""
        return any(not one.ended for one in self.users)


@dataclass(frozen=True, slots=True)
class WriteBackendStatus:
    """PUT of the status with the resourceVersion that was observed; a conflict ends this round."""

    status: BackendStatus


@dataclass(frozen=True, slots=True)
class StartProbe:
    """Makes what a probe needs, and its Job."""

    number: str
    asked: Mapping[str, Ask]


@dataclass(frozen=True, slots=True)
class EndProbe:
    """Deletes the Job of a probe: what it found stands in the status."""

    name: str


@dataclass(frozen=True, slots=True)
class WaitForProbe:
    """A probe is due, and as many run as may."""


BackendAction = WriteBackendStatus | StartProbe | EndProbe | WaitForProbe | WakeAt


def answered(said: Mapping[str, Any], binding: str, since: str) -> Mapping[str, Any] | None:
    """What a probe said to a question for a journal: `{"journal"}` or `{"error"}`; None where it was not asked."""
    told = (said.get("journals") or {}).get(binding) or {}
    return told if told.get("since") == since else None


def plan_backend(seen: BackendSeen, now: datetime, every: timedelta) -> list[BackendAction]:
    """What is to be done for a MemoryBackend now.

    Args:
        seen: Everything of it.
        now: The time.
        every: How often one is probed that something refers to.
    """
    if seen.newer_status or seen.deleting:
        return []
    status, actions = _used(seen), list[BackendAction]()
    if seen.problem or seen.missing or seen.lacking:
        status = _unusable(seen, status, now)
    elif seen.probe is not None and seen.probe.ended:
        status = _probed(seen, seen.probe, status, now)
    if status != seen.status:
        actions.append(WriteBackendStatus(status))
    if seen.probe is not None:
        if seen.probe.ended and not seen.probe.deleting:
            actions.append(EndProbe(seen.probe.name))
        return [*actions, WakeAt(now + timedelta(seconds=PROBE_SECS + 10))]
    due = _due(seen, status, every, now)
    if due is None:
        return actions
    if due > now:
        return [*actions, WakeAt(due)]
    if not seen.slot:
        return [*actions, WaitForProbe()]
    number = f"{seen.generation}-{round(now.timestamp() * 1000)}"
    return [*actions, StartProbe(number, dict(seen.asked))]


def _due(seen: BackendSeen, status: BackendStatus, every: timedelta, now: datetime) -> datetime | None:
    """When it is to be probed, or looked at again; None where nothing asks for it."""
    if seen.problem or seen.missing:
        return None
    if seen.lacking:
        return now + _LOOK_AGAIN  # Nobody watches Secrets.
    last = times.instant(status.checked_at)
    if last is None or status.observed_generation != seen.generation or _was_unusable(status):
        return times.LONG_AGO
    told = {name: answered(seen.said, name, ask.since) for name, ask in seen.asked.items()}
    waits = any(one is None or "error" in one for one in told.values())
    if status.failures:
        wait = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(status.failures - 1, 10))
        return last + wait if seen.used or waits or status.failures < _TRIES else None
    if waits:
        return last
    return last + every if seen.used else None


def _was_unusable(status: BackendStatus) -> bool:
    """Whether it was not probed for what was missing: that is there now, and the last probe says nothing of it."""
    return any(one.reason in _UNUSABLE for one in status.conditions if one.type == "Reachable")


def _used(seen: BackendSeen) -> BackendStatus:
    """The status with who refers to it now."""
    users = {(one.kind, one.name) for one in seen.users if not one.ended}
    named = tuple(BackendUser(kind=kind, name=name) for kind, name in sorted(users)[:_MAX_USERS])
    return seen.status.model_copy(update={"users": named})


def _unusable(seen: BackendSeen, status: BackendStatus, now: datetime) -> BackendStatus:
    reason, text = "InvalidSpec", seen.problem
    if not text and seen.missing:
        reason, text = "BackendMissing", f"there is no MemoryBackend {', '.join(seen.missing)}"
    elif not text:
        reason, text = "KeyMissing", "; ".join(seen.lacking)
    changes = {"observed_generation": seen.generation, "status_version": STATUS_VERSION, "reachable": None}
    status = status.model_copy(update=changes)
    return _judged(seen, status, now, ready="False", reachable="Unknown", reason=reason, text=text)


def _probed(seen: BackendSeen, probe: Probe, status: BackendStatus, now: datetime) -> BackendStatus:
    """The status after a probe.

    An identity that was seen once stays: another store at the same address is not the one that migrations know.
    """
    began = datetime.fromtimestamp(int(probe.number.partition("-")[2]) / 1000, UTC)
    if status.checked_at == times.text(began):
        return status  # It was taken over before, and the Job has not gone yet.
    said: Mapping[str, Any] = seen.said if seen.said.get("probe") == probe.number else {}
    unread = any("error" in (told or {}) for told in (said.get("journals") or {}).values())
    reachable: bool | None = said.get("reachable")
    changes: dict[str, Any] = {
        "observed_generation": probe.generation,
        "status_version": STATUS_VERSION,
        "reachable": reachable,
        "checked_at": times.text(began),
        "failures": 0 if reachable and not unread else status.failures + 1,
    }
    identity, before = str(said.get("identity") or ""), status.store_identity
    if reachable:
        counts = said.get("counts")
        changes |= {
            "store_identity": before or identity,
            "server_version": str(said.get("version") or "")[:64],
            "records": said.get("records"),
            "counts": RecordCounts.model_validate(counts) if counts else None,
            "changes": said.get("changes"),
            "capabilities": tuple(said.get("capabilities") or ()),
        }
    status = status.model_copy(update=changes)
    if not said:
        text = f"the probe came to no result: {probe.message or 'see its pod'}"
        return _judged(seen, status, now, ready="False", reachable="Unknown", reason="ProbeFailed", text=text)
    if before and identity and identity != before:
        text = f"the store at this address says it is {identity}, and was {before}"
        return _judged(seen, status, now, ready="False", reachable="True", reason="IdentityChanged", text=text)
    error = said.get("error") or {}
    code = str(error.get("code") or "unavailable")
    if reachable:
        text = "nothing is there yet; as a target it will be made" if code == _STORE_MISSING else "it answers"
        return _judged(seen, status, now, ready="True", reachable="True", reason="Reachable", text=text)
    reason, text = ("Unreachable" if code in _AWAY else "Refused"), f"{code}: {error.get('message', 'no answer')}"
    return _judged(seen, status, now, ready="False", reachable="False", reason=reason, text=text)


def _judged(
    seen: BackendSeen, status: BackendStatus, now: datetime, *, ready: Status, reachable: Status, reason: str, text: str
) -> BackendStatus:
    conditions = status.conditions
    stalled: Status = "False" if ready == "True" else "True"
    for kind, holds in (("Ready", ready), ("Reachable", reachable), ("Stalled", stalled)):
        conditions = with_condition(conditions, now, seen.generation, kind, holds, reason, text)
    return status.model_copy(update={"conditions": conditions})
