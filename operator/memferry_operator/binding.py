"""MemoryBinding: what its status becomes and what is done for it. Pure, as the brain is.

The status of a binding is the truth for clients. It is made once: from the journals that lie in the stores, and from
`spec.initialBackendRef` only where no store has one. After that a migration changes side and mode; here the Secret
follows, clients are counted, and a freeze that nobody holds any more is given back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from memferry.manifest import Backend
from memferry.manifest.binding import Binding
from memferry.manifest.binding_status import BindingStatus, BoundSecret, ClientCount
from memferry.manifest.projection import Lookup, NotThereError, secret_data
from memferry.manifest.protocol import binding_secret_name
from memferry.manifest.status import STATUS_VERSION
from memferry_operator.actions import AddFinalizer, FlagNewerStatus, RemoveFinalizer
from memferry_operator.brain import times
from memferry_operator.brain.conditions import with_condition
from memferry_operator.clients import RESTARTED_FOR
from memferry_operator.observed import Client, Mode, User

__all__ = [
    "BindingAction",
    "BindingSeen",
    "Journal",
    "ReadJournal",
    "Restart",
    "Unread",
    "WriteBindingStatus",
    "WriteSecret",
    "asked_since",
    "plan_binding",
]

_READING: Final = "ReadingJournal"


@dataclass(frozen=True, slots=True)
class Journal:
    """What a store knows of the binding: the last change that was written into it."""

    active: str
    revision: int
    mode: Mode
    frozen_until: str | None = None


@dataclass(frozen=True, slots=True)
class Unread:
    """A store that was asked and could not say."""

    problem: str


@dataclass(frozen=True, slots=True)
class BindingSeen:
    """Everything of one binding, read at one time.

    Attributes:
        spec: What is asked for.
        status: As it stands; revision 0 where there is none.
        newer_status: Whether a newer operator wrote it.
        backends: Every MemoryBackend that is there, by name.
        journals: What the stores said when they were asked, by MemoryBackend; None where one knows nothing.
        migrations: Those that name the binding.
        clients: Who has to acknowledge.
        secret: What stands in its Secret, None where there is none.
        workloads: What `spec.restart` names, by kind and name, as far as it is there.
    """

    name: str
    generation: int
    spec: Binding
    status: BindingStatus
    newer_status: bool = False
    deleting: bool = False
    finalizer: bool = False
    backends: Mapping[str, Backend] = field(default_factory=dict)
    journals: Mapping[str, Journal | Unread | None] = field(default_factory=dict)
    migrations: tuple[User, ...] = ()
    clients: tuple[Client, ...] = ()
    secret: Mapping[str, str] | None = None
    workloads: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ReadJournal:
    """Have a store asked for its journal of the binding.

    Attributes:
        backend: The MemoryBackend.
        since: When the status was found empty: what a store said before that may be out of date.
        state_claim: Where a store of another system has its journal beside it.
    """

    backend: str
    since: str
    state_claim: str = ""


@dataclass(frozen=True, slots=True)
class WriteBindingStatus:
    """PUT of the status with the resourceVersion that was observed; a conflict ends this round."""

    status: BindingStatus


@dataclass(frozen=True, slots=True, repr=False)
class WriteSecret:
    """Writes the Secret; never shown."""

    data: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Restart:
    """Puts the revision on the pods of a workload, which its controller then replaces."""

    kind: str
    name: str
    revision: int


BindingAction = (
    AddFinalizer | RemoveFinalizer | FlagNewerStatus | ReadJournal | WriteBindingStatus | WriteSecret | Restart
)


def plan_binding(seen: BindingSeen, lookup: Lookup, now: datetime) -> list[BindingAction]:
    """What is to be done for a binding now.

    Args:
        seen: Everything of it.
        lookup: Reads the Secrets and ConfigMaps that its backends name.
        now: The time.
    """
    if seen.newer_status:
        return [FlagNewerStatus()]
    if seen.deleting:
        return _deleting(seen, now)
    if not seen.finalizer:
        return [AddFinalizer()]
    if not seen.status.revision:
        return _first(seen, now)
    status, actions = _unheld(seen, now), list[BindingAction]()
    problem = ""
    if (status.active, status.revision, status.mode) == (seen.status.active, seen.status.revision, seen.status.mode):
        # Of what stands in the status only: the Secret never runs ahead of it.
        actions, problem = _secret(seen, status, lookup)
        actions += _restarts(seen)
    told = _told(seen, status, problem, now)
    return [WriteBindingStatus(told), *actions] if told != seen.status else actions


def asked_since(status: BindingStatus) -> str:
    """When the status was found empty and the stores began to be asked; empty where they are not."""
    return next(
        (c.last_transition_time for c in status.conditions if c.type == "Reconciling" and c.reason == _READING), ""
    )


def _first(seen: BindingSeen, now: datetime) -> list[BindingAction]:
    """The first status, or that of a binding that was made again: the journals know better than the spec.

    Every store that the application can have been switched to is asked, and all have to answer: one that was left at
    some switch still names the side of that one, and one that was made anew knows nothing.
    """
    home, since = seen.spec.initial_backend_ref.name, asked_since(seen.status)
    if home not in seen.backends:
        return _stalled(seen, "BackendMissing", f"MemoryBackend {home} is not there", now)
    if not since:
        return _stalled(seen, _READING, "the journals in the stores are to be read", now, wait=True)
    there = [journal for journal in seen.journals.values() if isinstance(journal, Journal)]
    newest = max([*there, *_projected(seen)], key=lambda one: one.revision, default=None)
    stores = {home, *(name for one in seen.migrations for name in one.backends), *(one.active for one in there)}
    stores |= {one.active for one in _projected(seen)}
    open_: list[BindingAction] = []
    told: list[str] = []
    for name in sorted(stores & set(seen.backends)):
        journal = seen.journals.get(name, Unread("asked for its journal, see the MemoryBackend"))
        if isinstance(journal, Unread):
            claims = (one.state_claim for one in seen.migrations if name in one.backends and one.state_claim)
            open_.append(ReadJournal(name, since, next(claims, "")))
            told.append(f"{name}: {journal.problem}")
    if open_:
        return [*_stalled(seen, _READING, "; ".join(told), now, wait=True), *open_]
    made = newest or Journal(home, 1, "Serving")
    if made.active not in seen.backends:
        text = f"MemoryBackend {made.active}, which serves since revision {made.revision}, is not there"
        return _stalled(seen, "BackendMissing", text, now)
    status = BindingStatus(
        active=made.active,
        revision=made.revision,
        mode=made.mode,
        frozen_until=made.frozen_until if made.mode == "Frozen" else None,
        conditions=seen.status.conditions,
    )
    return [WriteBindingStatus(_told(seen, status, "", now))]


def _projected(seen: BindingSeen) -> tuple[Journal, ...]:
    """What the Secret says that an earlier life of the binding left: never ahead of the journals, if they are whole."""
    told = seen.secret or {}
    active, revision, frozen = told.get("active", ""), told.get("revision", ""), told.get("mode") == "Frozen"
    if not (active and revision.isdecimal()):
        return ()
    return (Journal(active, int(revision), "Frozen" if frozen else "Serving"),)


def _unheld(seen: BindingSeen, now: datetime) -> BindingStatus:
    """Takes the lock from a migration that is gone, and ends its freeze where the time for that is over."""
    status, lock = seen.status, seen.status.locked_by
    holder = next((one for one in seen.migrations if lock is not None and one.uid == lock.uid), None)
    if lock is not None and (holder is None or (holder.ended and status.mode == "Serving")):
        status = status.model_copy(update={"locked_by": None})
    until = times.instant(status.frozen_until)
    if status.mode == "Frozen" and status.locked_by is None and (until is None or now >= until):
        changes = {"mode": "Serving", "revision": status.revision + 1, "frozen_until": None}
        status = status.model_copy(update=changes)
    return status


def _secret(seen: BindingSeen, status: BindingStatus, lookup: Lookup) -> tuple[list[BindingAction], str]:
    try:
        data = secret_data(status.active, seen.backends, lookup, revision=status.revision, mode=status.mode)
    except NotThereError as error:
        return [], str(error)
    return ([] if seen.secret is not None and dict(seen.secret) == data else [WriteSecret(data)]), ""


def _restarts(seen: BindingSeen) -> list[BindingAction]:
    """Workloads that cannot follow a binding are started anew for each freeze and for each change of side."""
    if seen.status.locked_by is None:
        return []
    revision, found = seen.status.revision, list[BindingAction]()
    for one in seen.spec.restart:
        workload = seen.workloads.get((one.kind, one.name))
        template = (((workload or {}).get("spec") or {}).get("template") or {}).get("metadata") or {}
        if workload is not None and (template.get("annotations") or {}).get(RESTARTED_FOR) != str(revision):
            found.append(Restart(one.kind, one.name, revision))
    return found


def _deleting(seen: BindingSeen, now: datetime) -> list[BindingAction]:
    if not seen.finalizer:
        return []
    users = [f"{one.kind} {one.name}" for one in seen.migrations if not one.ended]
    users += [f"client {one.name}" for one in seen.clients]
    if not users:
        return [RemoveFinalizer()]
    more = f" and {len(users) - 3} more" if len(users) > 3 else ""
    told = _told(seen, seen.status, "", now, in_use=f"in use by {', '.join(users[:3])}{more}")
    return [WriteBindingStatus(told)] if told != seen.status else []


def _stalled(seen: BindingSeen, reason: str, message: str, now: datetime, *, wait: bool = False) -> list[BindingAction]:
    conditions = with_condition(seen.status.conditions, now, seen.generation, "Ready", "False", reason, message)
    conditions = with_condition(
        conditions, now, seen.generation, "Reconciling", "True" if wait else "False", reason, message
    )
    conditions = with_condition(
        conditions, now, seen.generation, "Stalled", "False" if wait else "True", reason, message
    )
    told = seen.status.model_copy(update={"conditions": conditions, "observed_generation": seen.generation})
    return [WriteBindingStatus(told)] if told != seen.status else []


def _told(seen: BindingSeen, status: BindingStatus, problem: str, now: datetime, *, in_use: str = "") -> BindingStatus:
    """Counts and conditions to what a status says."""
    acknowledged = sum(
        (c.revision, c.mode, c.active) == (status.revision, status.mode, status.active) for c in seen.clients
    )
    home, generation, conditions = seen.spec.initial_backend_ref.name, seen.generation, status.conditions
    frozen = f"frozen, revision {status.revision}" if status.mode == "Frozen" else ""
    serves = f"{status.active} serves, revision {status.revision}"
    ready = not problem and not frozen and not in_use
    reason = "SecretNotWritten" if problem else "InUse" if in_use else "Frozen" if frozen else "Serving"
    text = problem or in_use or frozen or serves
    away = status.active != home
    for kind, holds, why, message in (
        ("Ready", ready, reason, text),
        ("Reconciling", bool(frozen) and not problem, reason, text),
        ("Stalled", bool(problem), reason, text),
        (
            "Switched",
            away,
            "OtherBackendActive" if away else "InitialBackendActive",
            f"{status.active} serves; spec.initialBackendRef names {home}, which is not acted upon" if away else serves,
        ),
    ):
        conditions = with_condition(conditions, now, generation, kind, "True" if holds else "False", why, message)
    return status.model_copy(
        update={
            "observed_generation": generation,
            "status_version": STATUS_VERSION,
            "binding": BoundSecret(name=binding_secret_name(seen.name)),
            "clients": ClientCount(expected=len(seen.clients), acknowledged=acknowledged),
            "conditions": conditions,
        }
    )
