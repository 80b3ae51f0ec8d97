"""What the brain sees: everything of one migration, read at one time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

from memferry.manifest import Backend, Migration
from memferry.manifest.binding import Binding
from memferry.manifest.status import MigrationStatus
from memferry_operator.names import Role

__all__ = [
    "TERMINAL",
    "Answer",
    "BindingState",
    "Client",
    "Command",
    "Job",
    "Observed",
    "Pod",
    "Progress",
    "User",
    "WorkerLease",
]

Mode = Literal["Serving", "Frozen"]
TERMINAL: Final = frozenset({"Succeeded", "Failed", "Aborted", "SwitchedBack"})
"""Phases that a migration stays in."""


@dataclass(frozen=True, slots=True)
class Job:
    """A Job of the migration.

    Attributes:
        failure: Reason of its Failed condition, or None.
        since: When it began, or last went on after it was suspended.
        expires: Whether it goes by itself.
    """

    name: str
    role: Role
    attempt: int
    complete: bool = False
    failure: str | None = None
    message: str = ""
    suspended: bool = False
    parallelism: int = 1
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    since: datetime | None = None
    deleting: bool = False
    expires: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.complete or self.failure is not None


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod of a Job of the migration."""

    name: str
    role: Role
    attempt: int
    index: int = 0
    phase: Literal["Pending", "Running", "Succeeded", "Failed", "Unknown"] = "Pending"
    ready: bool = False
    deleting: bool = False
    exit_code: int | None = None
    since: datetime | None = None
    waiting: str = ""
    error: str = ""
    """What it ended with, as it said itself."""

    @property
    def ended(self) -> bool:
        """Whether its containers have ended, which a node that is lost never says."""
        return self.phase in {"Succeeded", "Failed"}


@dataclass(frozen=True, slots=True)
class Progress:
    """What a worker reports in its Lease."""

    attempt: int = 0
    phase: str = ""
    read: int = 0
    written: int = 0
    quarantined: int = 0
    total: int | None = None
    records_per_second: float = 0
    progressed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the switch worker says to a command.

    Attributes:
        body: Everything else it said.
    """

    sequence: int
    verb: str
    done: bool
    code: str = ""
    message: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WorkerLease:
    """The Lease of a worker."""

    name: str
    holder: str = ""
    renewed_at: datetime | None = None
    progress: Progress | None = None
    answer: Answer | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """What the switch worker is to do."""

    sequence: int
    verb: Literal["Pass", "Journal", "ReadJournal", "FinalPass", "Probe", "Stop"]
    direction: Literal["Forward", "Back"] | None = None
    revision: int | None = None
    mode: Mode | None = None
    active: str | None = None
    frozen_until: str | None = None
    stray: bool | None = None
    parity: bool | None = None


@dataclass(frozen=True, slots=True)
class Client:
    """Something that is expected to acknowledge: a pod of the application, or a live Lease of a client.

    Attributes:
        heard_at: Last renewal of its Lease, None where it has none.
        revision: The revision it acknowledged.
    """

    name: str
    heard_at: datetime | None = None
    revision: int = 0
    mode: Mode | None = None
    active: str = ""
    errors: int = 0


@dataclass(frozen=True, slots=True)
class User:
    """A migration that names the binding, or anything that names a backend.

    Attributes:
        phase: Of a migration; empty for others and for one that has not begun.
        backends: MemoryBackends it names.
        state_claim: Of a migration: the claim with its state directory.
    """

    kind: Literal["MemoryMigration", "MemoryBinding", "MemoryBackend"]
    name: str
    uid: str = ""
    phase: str = ""
    backends: tuple[str, ...] = ()
    state_claim: str = ""

    @property
    def ended(self) -> bool:
        """Whether it is done with what it names."""
        return self.phase in TERMINAL


@dataclass(frozen=True, slots=True)
class BindingState:
    """A MemoryBinding: its spec, and what its status says."""

    name: str
    uid: str
    resource_version: str
    spec: Binding
    active: str = ""
    revision: int = 0
    mode: Mode = "Serving"
    frozen_until: datetime | None = None
    locked_by_uid: str = ""
    locked_by_name: str = ""
    status: Mapping[str, Any] = field(default_factory=dict)
    clients: tuple[Client, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything of one migration.

    Attributes:
        spec: What is asked for; None where it cannot be read, then `invalid` says why.
        resource_version: What a write of status must name.
        status: As it stands; empty where there is none.
        newer_status: Whether a newer operator wrote it.
        backends: Every MemoryBackend that is reached from the two ends, by name.
        unreachable: Those of them that a probe could not reach, and why.
        mapping: Whether the mapping's ConfigMap and key are there (True where none is named).
        results: Final objects of the workers' verbs, by key of the result Secret without `.json`.
        command: What stands in the control ConfigMap.
        references: Who else uses the source's store; only looked up before it is deleted.
        slot: Whether the operator-wide limit leaves a place.
        ending: Whether the namespace is being deleted.
    """

    name: str
    namespace: str
    uid: str
    generation: int
    resource_version: str
    spec: Migration | None
    status: MigrationStatus
    invalid: str = ""
    newer_status: bool = False
    deleting: bool = False
    finalizer: bool = False
    backends: Mapping[str, Backend] = field(default_factory=dict)
    unreachable: Mapping[str, str] = field(default_factory=dict)
    mapping: bool = True
    binding: BindingState | None = None
    jobs: tuple[Job, ...] = ()
    pods: tuple[Pod, ...] = ()
    leases: Mapping[str, WorkerLease] = field(default_factory=dict)
    results: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    command: Command | None = None
    references: tuple[str, ...] = ()
    slot: bool = True
    ending: bool = False

    def job(self, role: Role, attempt: int) -> Job | None:
        """The Job of a role in an attempt."""
        return next((j for j in self.jobs if j.role == role and j.attempt == attempt), None)
