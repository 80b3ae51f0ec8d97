"""What goes on: words of `status.reason`, conditions and Events. Why it stalls is the manifest's `StallReason`."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Reason"]


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
