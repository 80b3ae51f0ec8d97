"""What the brain asks for. Every action can be done twice without harm."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from memferry.manifest.status import MigrationStatus
from memferry_operator.names import Role
from memferry_operator.observed import Command, Mode

__all__ = [
    "Action",
    "AddFinalizer",
    "CreateJob",
    "DeleteJob",
    "DeletePod",
    "Emit",
    "ExpireJob",
    "FlagNewerStatus",
    "PatchJob",
    "Prepare",
    "RemoveFinalizer",
    "SendCommand",
    "WakeAt",
    "WriteBinding",
    "WriteStatus",
]


@dataclass(frozen=True, slots=True)
class AddFinalizer:
    """Comes before everything that leaves something behind."""


@dataclass(frozen=True, slots=True)
class RemoveFinalizer:
    """Everything is cleaned up."""


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """PUT of the status with the resourceVersion that was observed; a conflict ends this round."""

    status: MigrationStatus


@dataclass(frozen=True, slots=True)
class FlagNewerStatus:
    """A condition is added to a status of a newer operator, the rest of which stays as it is."""


@dataclass(frozen=True, slots=True)
class Emit:
    """A Kubernetes Event."""

    type: Literal["Normal", "Warning"]
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Prepare:
    """What workers need: account, rights, Leases, result, command, the manifest of the attempt."""

    attempt: int
    shards: int


@dataclass(frozen=True, slots=True)
class CreateJob:
    """A Job; one of that name that is there is left as it is."""

    role: Role
    attempt: int
    completions: int = 1
    parallelism: int = 1
    suspend: bool = False


@dataclass(frozen=True, slots=True)
class PatchJob:
    """Suspends, resumes, or changes how many pods run at a time."""

    name: str
    parallelism: int
    suspend: bool


@dataclass(frozen=True, slots=True)
class DeleteJob:
    """Ends a Job and its pods, gracefully."""

    name: str


@dataclass(frozen=True, slots=True)
class ExpireJob:
    """Lets a Job that has ended go after a while: its outcome stands in the status."""

    name: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Ends a worker that makes no progress; its Job starts another."""

    name: str


@dataclass(frozen=True, slots=True)
class SendCommand:
    """Writes the command for the switch worker."""

    command: Command


@dataclass(frozen=True, slots=True)
class WriteBinding:
    """PUT of a MemoryBinding's status with the resourceVersion that was observed.

    Attributes:
        locked: Whether this migration holds the binding from now on.
    """

    active: str
    revision: int
    mode: Mode
    frozen_until: datetime | None
    locked: bool


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Look again then, at the latest."""

    at: datetime


Action = (
    AddFinalizer
    | RemoveFinalizer
    | WriteStatus
    | FlagNewerStatus
    | Emit
    | Prepare
    | CreateJob
    | PatchJob
    | DeleteJob
    | ExpireJob
    | DeletePod
    | SendCommand
    | WriteBinding
    | WakeAt
)
