"""Why a migration is where it is: the words of `status.reason`, of conditions and of Events."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason", "StallReason"]


class StallReason(StrEnum):
    """Someone has to act; each has a runbook page. Those that pass by themselves say so there."""

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


class Reason(StrEnum):
    """What goes on, or how it ended."""

    QUEUED = "Queued"
    BINDING_LOCKED = "BindingLocked"
    BINDING_NOT_READY = "BindingNotReady"
    ENDING_WORKERS = "EndingWorkers"
    SUSPENDED = "Suspended"
    FREEZING = "Freezing"
    PLANNING = "Planning"
    COPYING = "Copying"
    VERIFYING = "Verifying"
    SYNCING = "Syncing"
    APPROVAL_REQUIRED = "ApprovalRequired"
    TOO_EARLY = "TooEarly"
    FINAL_PASS = "FinalPass"  # noqa: S105 - a sync pass
    FLIPPING = "Flipping"
    RETURNING = "Returning"
    WATCHING = "Watching"
    SWITCHING_BACK = "SwitchingBack"
    RETIRING = "Retiring"
    SUCCEEDED = "Succeeded"
    REHEARSED = "Rehearsed"
    ABORTED = "Aborted"
    SWITCHED_BACK = "SwitchedBack"
