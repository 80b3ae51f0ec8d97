"""Status of a MemoryMigration: what the operator writes, and what clients and the command line read.

Every text and list is bounded; messages are cut to their bound: a status that is refused stops everything.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final, Literal

from pydantic import Field

from memferry.manifest.status_parts import (
    STATUS_VERSION,
    Changes,
    Condition,
    Count,
    Digest,
    Instant,
    Message,
    Mode,
    ObjectName,
    SecretKey,
    Secs,
    Small,
    Status,
    StatusPart,
    Word,
)

__all__ = [
    "STATUS_VERSION",
    "Approval",
    "Condition",
    "Handled",
    "History",
    "MigrationStatus",
    "Mode",
    "MonitoringStatus",
    "Phase",
    "PlanStatus",
    "Progress",
    "SecretKey",
    "ShardCounts",
    "StallReason",
    "Step",
    "SyncStatus",
    "TrafficStatus",
    "ValidationStatus",
]

MAX_HISTORY: Final = 32
Phase = Literal[
    "Pending",
    "ParallelSetup",
    "BulkTransfer",
    "Validation",
    "TrafficSwitch",
    "Monitoring",
    "Decommission",
    "Succeeded",
    "Failed",
    "Aborted",
    "SwitchedBack",
]
"""Where a migration is; the last four are final."""

Step = Literal["Preparing", "Freezing", "Frozen", "FinalPass", "Flipping", "Serving", "Returning", "Settled"]
"""Where a switch is."""

Direction = Literal["Forward", "Back"]
"""From the source to the target, or home again."""


class StallReason(StrEnum):
    """Why a person has to act; `docs/runbooks/` has a page for each."""

    INVALID_SPEC = "InvalidSpec"
    BACKEND_MISSING = "BackendMissing"
    MAPPING_MISSING = "MappingMissing"
    BINDING_MISSING = "BindingMissing"
    SOURCE_NOT_ACTIVE = "SourceNotActive"
    PLAN_REFUSED = "PlanRefused"
    BACKEND_UNAVAILABLE = "BackendUnavailable"
    WORKER_REFUSED = "WorkerRefused"
    WORKER_UNSCHEDULABLE = "WorkerUnschedulable"
    RECORDS_REFUSED = "RecordsRefused"
    NO_PROGRESS = "NoProgress"
    VALIDATION_FAILED = "ValidationFailed"
    FREEZE_TOO_LONG = "FreezeTooLong"
    FREEZE_RETURNED = "FreezeReturned"
    PASS_FAILED = "PassFailed"  # noqa: S105 - a sync pass
    NO_WAY_BACK = "NoWayBack"
    MONITORING_FAILED = "MonitoringFailed"
    RETIRE_REFUSED = "RetireRefused"
    NEWER_STATUS = "NewerStatus"


# --- MemoryMigration


class PlanStatus(StatusPart):
    """What the plan found."""

    hash: Digest = ""
    """Digest of the plan; a run is bound to it."""
    secret_ref: SecretKey | None = None
    """Where the whole plan is."""
    records: Count | None = None
    """Records to move."""
    size_bytes: Count | None = None
    """Their size."""
    shards: Annotated[int, Field(ge=1, le=256)] = 1
    """Workers the copy is cut into."""
    changes: Changes | None = None
    """How the source tells what changed."""
    way_back: bool = False
    """Whether writes made after the switch can be carried home."""


class Approval(StatusPart):
    """What waits for a person."""

    token: Digest
    """What `spec.cutover.approve` or `spec.decommission.confirm` must be."""
    for_: Annotated[Literal["Cutover", "Decommission"], Field(alias="for")]
    """What is approved with it."""


class Progress(StatusPart):
    """How far it is."""

    read: Count = 0
    """Records read."""
    written: Count = 0
    """Records written, or found as they should be."""
    quarantined: Count = 0
    """Records that could not be moved."""
    total: Count | None = None
    """Records to move."""
    percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of the records that is done."""
    records_per_second: Count | None = None
    """Rate of all workers together."""
    eta_secs: Count | None = None
    """Seconds to go at this rate."""
    summary: Message = ""
    """All of it in one line."""


class ShardCounts(StatusPart):
    """Workers of the copy."""

    total: Small = 0
    """All of them."""
    succeeded: Small = 0
    """Done."""
    active: Small = 0
    """At work."""
    failed: Small = 0
    """Given up."""
    replaced: Small = 0
    """Ended because they made no progress."""


class SyncStatus(StatusPart):
    """Passes that carry what changed meanwhile."""

    pass_: Annotated[Small, Field(alias="pass")] = 0
    """Number of the last one."""
    direction: Direction = "Forward"
    """Which way it went."""
    changed: Count = 0
    """Records it carried."""
    deleted: Count = 0
    """Deletions it carried."""
    pass_secs: Secs = 0
    """How long it took."""
    verify_secs: Secs = 0
    """How long verifying its records took."""
    predicted_freeze_secs: Secs | None = None
    """Write freeze that a switch would need now."""
    growing: Small = 0
    """Passes in a row that did not get smaller."""


class TrafficStatus(StatusPart):
    """The switch of the application."""

    active: ObjectName = ""
    """The MemoryBackend that serves."""
    revision: Count = 0
    """Of the binding; each change of mode or side has its own."""
    mode: Mode = "Serving"
    """Whether clients may write."""
    step: Step = "Preparing"
    """Where the switch is."""
    step_at: Instant | None = None
    """When it came there."""
    home: ObjectName = ""
    """The MemoryBackend that served before the last freeze."""
    direction: Direction = "Forward"
    """To the target, or back."""
    sequence: Count = 0
    """Number of the last command to the switch worker."""
    command: Word = ""
    """Its verb."""
    heard: Instant | None = None
    """Renewal of the worker's Lease that was seen last, where its clock is not the operator's."""
    acked: Small = 0
    """Clients that acknowledged the revision."""
    expected: Small = 0
    """Clients that have to."""
    frozen_until: Instant | None = None
    """When a freeze ends by itself."""
    frozen_at: Instant | None = None
    """When it began."""
    switched_at: Instant | None = None
    """When the target began to serve."""
    write_freeze_millis: Count | None = None
    """How long writes waited in the last switch."""
    returns: Small = 0
    """Freezes that were given back to the source."""
    returned_at: Instant | None = None
    """When the last one was."""


class ValidationStatus(StatusPart):
    """The complete comparison of both ends."""

    compared: Count = 0
    """Records compared."""
    missing: Count = 0
    """Expected in the target, and not there."""
    extra: Count = 0
    """In the target, and not expected."""
    different: Count = 0
    """There, and not as expected."""
    foreign: Count = 0
    """Of others; counted, not judged."""
    report_ref: SecretKey | None = None
    """Where ids and names of fields are, without values."""


class MonitoringStatus(StatusPart):
    """Checks after the switch."""

    failures: Small = 0
    """Failed in a row."""
    checked_at: Instant | None = None
    """The last one."""
    stray_writes: Count = 0
    """Writes to the source since the switch."""
    client_errors: Count = 0
    """Errors that clients have reported since the switch."""
    recall: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the nearest neighbours that the target found in the last check."""
    problem: Message = ""
    """What the last check that failed found."""


class Handled(StatusPart):
    """What was asked once and is done."""

    retry_token: Digest = ""
    """The last `spec.retryToken` acted upon."""
    operation_token: Annotated[str, Field(max_length=192)] = ""
    """The last `spec.operation` with its token that was acted upon."""
    suspended: bool = False
    """Whether `spec.suspend` is acted upon."""


class History(StatusPart):
    """A phase that was gone through."""

    phase: Phase
    """Which."""
    started_at: Instant
    """When it began."""
    completed_at: Instant | None = None
    """When it ended."""
    attempt: Small = 0
    """Of which attempt."""
    message: Message = ""
    """How it ended."""


class MigrationStatus(Status):
    """Where a MemoryMigration is."""

    phase: Phase | None = None
    """Where it is."""
    reason: Word = ""
    """Why it is there, or waits there."""
    attempt: Small = 0
    """Counts plans: a retry with another plan is a new attempt."""
    started_at: Instant | None = None
    """When it began."""
    completed_at: Instant | None = None
    """When it ended."""
    plan: PlanStatus | None = None
    """What the plan found."""
    approval: Approval | None = None
    """What waits for a person."""
    progress: Progress | None = None
    """How far it is."""
    shards: ShardCounts | None = None
    """Workers of the copy."""
    sync: SyncStatus | None = None
    """Passes that carry what changed meanwhile."""
    traffic: TrafficStatus | None = None
    """The switch of the application."""
    validation: ValidationStatus | None = None
    """The complete comparison of both ends."""
    monitoring: MonitoringStatus | None = None
    """Checks after the switch."""
    handled: Handled = Field(default_factory=Handled)
    """What was asked once and is done."""
    history: Annotated[
        tuple[History, ...], Field(max_length=MAX_HISTORY, json_schema_extra={"x-kubernetes-list-type": "atomic"})
    ] = ()
    """Phases gone through, the newest last."""
