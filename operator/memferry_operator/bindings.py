"""MemoryBinding and MemoryBackend: what their status becomes and what is done for them. Pure, as the brain is.

The status of a binding is the truth for clients. It is made once: from the journals that lie in the stores, and from
`spec.initialBackendRef` only where no store has one. After that a migration changes side and mode; here the Secret
follows, clients are counted, and a freeze that nobody holds any more is given back.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from memferry.manifest import Backend
from memferry.manifest.clients import expected_clients
from memferry.manifest.model import Binding
from memferry.manifest.projection import Lookup, NotThereError, secret_data
from memferry.manifest.protocol import binding_secret_name
from memferry.manifest.status import (
    STATUS_VERSION,
    BackendStatus,
    BackendUser,
    BindingStatus,
    BoundSecret,
    ClientCount,
    Condition,
    RecordCounts,
)
from memferry_operator.brain import times
from memferry_operator.names import GROUP
from memferry_operator.observed import Client

__all__ = [
    "RESTARTED_FOR",
    "BackendSeen",
    "BindingAction",
    "BindingSeen",
    "FlagNewerBinding",
    "HoldBinding",
    "Journal",
    "ReadJournal",
    "ReleaseBinding",
    "Restart",
    "User",
    "WriteBindingStatus",
    "WriteSecret",
    "backend_status",
    "clients",
    "plan_binding",
    "queue",
    "restarted",
]

Mode = Literal["Serving", "Frozen"]

RESTARTED_FOR: Final = f"{GROUP}/restarted-for"
"""On the pods of a workload that is restarted by a switch: the revision they were started for."""
_MAX_USERS: Final = 64
_FINAL: Final = frozenset({"Succeeded", "Failed", "Aborted", "SwitchedBack"})


@dataclass(frozen=True, slots=True)
class User:
    """A migration that names the binding, or anything that names a backend.

    Attributes:
        phase: Of a migration; empty for others and for one that has not begun.
        created_at: When it was made: who came first is served first.
    """

    kind: Literal["MemoryMigration", "MemoryBinding", "MemoryBackend"]
    name: str
    uid: str = ""
    phase: str = ""
    created_at: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is done with what it names."""
        return self.phase in _FINAL


@dataclass(frozen=True, slots=True)
class Journal:
    """What a store knows of the binding: the last change that was written into it."""

    active: str
    revision: int
    mode: Mode
    frozen_until: str | None = None


@dataclass(frozen=True, slots=True)
class BindingSeen:
    """Everything of one binding, read at one time.

    Attributes:
        spec: What is asked for.
        status: As it stands; revision 0 where there is none.
        newer_status: Whether a newer operator wrote it.
        backends: Every MemoryBackend that is there, by name.
        journals: What the stores know, by MemoryBackend, as far as they were read; None where one knows nothing.
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
    journals: Mapping[str, Journal | None] = field(default_factory=dict)
    migrations: tuple[User, ...] = ()
    clients: tuple[Client, ...] = ()
    secret: Mapping[str, str] | None = None
    workloads: Mapping[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HoldBinding:
    """Adds the finalizer: a binding in use is not deleted."""


@dataclass(frozen=True, slots=True)
class ReleaseBinding:
    """Removes the finalizer. The Secret stays: nobody owns it."""


@dataclass(frozen=True, slots=True)
class FlagNewerBinding:
    """A condition is added to a status of a newer operator, the rest of which stays as it is."""


@dataclass(frozen=True, slots=True)
class ReadJournal:
    """Have a store asked for its journal of the binding."""

    backend: str


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
    HoldBinding | ReleaseBinding | FlagNewerBinding | ReadJournal | WriteBindingStatus | WriteSecret | Restart
)


def clients(
    spec: Binding,
    pods: Iterable[dict[str, Any]],
    leases: Iterable[dict[str, Any]],
    now: datetime,
    workloads: Mapping[tuple[str, str], Mapping[str, Any]] | None = None,
    status: BindingStatus | None = None,
) -> tuple[Client, ...]:
    """Who has to acknowledge, with what each says: pods, live Leases, and workloads that are restarted instead.

    Args:
        spec: Of the binding.
        pods: Pods that match its selector.
        leases: Leases with its label.
        now: The time.
        workloads: What `spec.restart` names, by kind and name.
        status: Of the binding: what a restarted workload acknowledges by being there.
    """
    found = [
        Client(
            name=one.name,
            heard_at=one.heard_at,
            revision=one.revision,
            mode="Frozen" if one.mode == "Frozen" else "Serving" if one.mode == "Serving" else None,
            active=one.active,
            errors=one.errors,
        )
        for one in expected_clients(spec.clients.selector, pods, leases, now)
    ]
    for workload in spec.restart:
        there = (workloads or {}).get((workload.kind, workload.name))
        done = status is not None and there is not None and restarted(there, status.revision)
        name = f"{workload.kind}/{workload.name}"
        found.append(
            Client(name, None, status.revision, status.mode, status.active) if done and status else Client(name)
        )
    return tuple(found)


def restarted(workload: Mapping[str, Any], revision: int) -> bool:
    """Whether all pods of a workload were started for this revision, and the old ones are gone."""
    spec, status = workload.get("spec") or {}, workload.get("status") or {}
    metadata = ((spec.get("template") or {}).get("metadata") or {}).get("annotations") or {}
    if metadata.get(RESTARTED_FOR) != str(revision):
        return False
    if status.get("observedGeneration", 0) < workload["metadata"].get("generation", 0):
        return False
    daemon = "desiredNumberScheduled" in status
    wanted = status["desiredNumberScheduled"] if daemon else spec.get("replicas", 1)
    new = status.get("updatedNumberScheduled" if daemon else "updatedReplicas", 0)
    everyone = status.get("currentNumberScheduled" if daemon else "replicas", 0)
    return bool(new == wanted == everyone and not status.get("terminatingReplicas", 0))


def queue(migrations: Iterable[User], holder_uid: str = "") -> tuple[User, ...]:
    """Migrations that wait for the binding, the first one first."""
    waiting = [one for one in migrations if not one.ended and one.uid != holder_uid]
    return tuple(sorted(waiting, key=lambda one: (one.created_at, one.name)))


def plan_binding(seen: BindingSeen, lookup: Lookup, now: datetime) -> list[BindingAction]:
    """What is to be done for a binding now.

    Args:
        seen: Everything of it.
        lookup: Reads the Secrets and ConfigMaps that its backends name.
        now: The time.
    """
    if seen.newer_status:
        return [FlagNewerBinding()]
    if seen.deleting:
        return _deleting(seen, now)
    if not seen.finalizer:
        return [HoldBinding()]
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


def _first(seen: BindingSeen, now: datetime) -> list[BindingAction]:
    """The first status, or that of a binding that was made again: the journals know better than the spec.

    A store that was left at some switch still names the side of that one; so its word leads to the next store.
    """
    at, trail, newest = seen.spec.initial_backend_ref.name, set[str](), None
    while at not in trail:
        trail.add(at)
        if at not in seen.backends:
            return _stalled(seen, "BackendMissing", f"MemoryBackend {at} is not there", now)
        if at not in seen.journals:
            return [
                ReadJournal(at),
                *_stalled(seen, "ReadingJournal", f"{at} is asked for its journal", now, wait=True),
            ]
        journal = seen.journals[at]
        if journal is None:
            break
        if newest is None or journal.revision > newest.revision:
            newest = journal
        at = newest.active
    made = newest or Journal(seen.spec.initial_backend_ref.name, 1, "Serving")
    status = BindingStatus(
        active=made.active,
        revision=made.revision,
        mode=made.mode,
        frozen_until=made.frozen_until if made.mode == "Frozen" else None,
        conditions=seen.status.conditions,
    )
    return [WriteBindingStatus(_told(seen, status, "", now))]


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
        return [ReleaseBinding()]
    more = f" and {len(users) - 3} more" if len(users) > 3 else ""
    told = _told(seen, seen.status, "", now, in_use=f"in use by {', '.join(users[:3])}{more}")
    return [WriteBindingStatus(told)] if told != seen.status else []


def _stalled(seen: BindingSeen, reason: str, message: str, now: datetime, *, wait: bool = False) -> list[BindingAction]:
    conditions = _with(seen.status.conditions, now, seen.generation, "Ready", "False", reason, message)
    conditions = _with(conditions, now, seen.generation, "Reconciling", "True" if wait else "False", reason, message)
    conditions = _with(conditions, now, seen.generation, "Stalled", "False" if wait else "True", reason, message)
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
        conditions = _with(conditions, now, generation, kind, "True" if holds else "False", why, message)
    return status.model_copy(
        update={
            "observed_generation": generation,
            "status_version": STATUS_VERSION,
            "binding": BoundSecret(name=binding_secret_name(seen.name)),
            "clients": ClientCount(expected=len(seen.clients), acknowledged=acknowledged),
            "conditions": conditions,
        }
    )


def _with(
    conditions: tuple[Condition, ...],
    now: datetime,
    generation: int,
    kind: str,
    status: Literal["True", "False"],
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


# --- MemoryBackend


@dataclass(frozen=True, slots=True)
class BackendSeen:
    """Everything of one backend.

    Attributes:
        probe: What a probe said last, None where there was none since.
        probed_at: When it said that.
        users: Resources that name it.
    """

    name: str
    generation: int
    status: BackendStatus
    probe: Mapping[str, Any] | None = None
    probed_at: datetime | None = None
    users: tuple[User, ...] = ()

    def due(self, now: datetime, every: timedelta) -> bool:
        """Whether it is to be probed: it was changed, or some time has passed."""
        last = times.instant(self.status.checked_at)
        return self.generation != self.status.observed_generation or last is None or now - last >= every

    @property
    def deletable(self) -> bool:
        """Whether nobody needs it."""
        return all(one.ended for one in self.users)


def backend_status(seen: BackendSeen, now: datetime) -> BackendStatus:
    """The status of a backend.

    An identity that was seen once stays: another store at the same address is not the one that migrations know.
    """
    before, said = seen.status, seen.probe
    users = tuple(BackendUser(kind=one.kind, name=one.name) for one in seen.users if not one.ended)
    status = before.model_copy(
        update={"users": tuple(sorted(users, key=lambda one: (one.kind, one.name)))[:_MAX_USERS]}
    )
    if said is None:
        return status
    identity = str(said.get("identity") or "")
    other = bool(before.store_identity and identity and identity != before.store_identity)
    reachable = bool(said.get("reachable"))
    changes: dict[str, Any] = {
        "observed_generation": seen.generation,
        "status_version": STATUS_VERSION,
        "reachable": reachable,
        "checked_at": times.text(seen.probed_at or now),
    }
    if reachable:
        counts = said.get("counts")
        changes |= {
            "store_identity": before.store_identity or identity,
            "server_version": str(said.get("version") or "")[:64],
            "records": said.get("records"),
            "counts": RecordCounts.model_validate(counts) if counts is not None else None,
            "changes": said.get("changes"),
            "capabilities": tuple(said.get("capabilities") or ()),
        }
    error = said.get("error") or {}
    text = f"{error.get('code', 'unavailable')}: {error.get('message', 'it did not answer')}"
    if other:
        text = f"the store at this address says it is {identity}, and was {before.store_identity}"
    reason = "IdentityChanged" if other else "Reachable" if reachable else "Unreachable"
    good = reachable and not other
    conditions = before.conditions
    for kind, holds in (("Ready", good), ("Reachable", reachable), ("Stalled", not good)):
        message = "it answers" if good or (kind == "Reachable" and reachable) else text
        conditions = _with(conditions, now, seen.generation, kind, "True" if holds else "False", reason, message)
    return status.model_copy(update=changes | {"conditions": conditions})
