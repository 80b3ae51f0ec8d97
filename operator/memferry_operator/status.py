"""Status of a MemoryMigration as the brain keeps it."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

STATUS_VERSION: Final = 1

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


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


class Condition(_Part):
    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    observed_generation: int | None = None
    last_transition_time: str = ""


class SecretKey(_Part):
    name: str
    key: str


class Plan(_Part):
    hash: str = ""
    secret_ref: SecretKey | None = None
    records: int | None = None
    size_bytes: int | None = None
    shards: int = 1
    changes: str | None = None
    way_back: bool = False


class Approval(_Part):
    token: str
    for_: Annotated[Literal["Cutover", "Decommission"], Field(alias="for")]


class Progress(_Part):
    read: int = 0
    written: int = 0
    quarantined: int = 0
    total: int | None = None
    percent: int | None = None
    records_per_second: int | None = None
    eta_secs: int | None = None
    summary: str = ""


class Shards(_Part):
    total: int = 0
    succeeded: int = 0
    active: int = 0
    failed: int = 0
    replaced: int = 0


class Sync(_Part):
    pass_: Annotated[int, Field(alias="pass")] = 0
    direction: Literal["Forward", "Back"] = "Forward"
    changed: int = 0
    deleted: int = 0
    pass_secs: float = 0
    verify_secs: float = 0
    predicted_freeze_secs: float | None = None
    growing: int = 0


Step = Literal["Preparing", "Freezing", "Frozen", "FinalPass", "Flipping", "Serving", "Returning", "Settled"]


class Traffic(_Part):
    active: str = ""
    revision: int = 0
    mode: Literal["Serving", "Frozen"] = "Serving"
    step: Step = "Preparing"
    direction: Literal["Forward", "Back"] = "Forward"
    sequence: int = 0
    command: str = ""
    acked: int = 0
    expected: int = 0
    frozen_until: str | None = None
    frozen_at: str | None = None
    switched_at: str | None = None
    write_freeze_millis: int | None = None
    returns: int = 0
    returned_at: str | None = None


class Validation(_Part):
    compared: int = 0
    missing: int = 0
    extra: int = 0
    different: int = 0
    foreign: int = 0
    report_ref: SecretKey | None = None


class Monitoring(_Part):
    failures: int = 0
    checked_at: str | None = None
    stray_writes: int = 0
    client_errors: int = 0


class Handled(_Part):
    retry_token: str = ""
    operation_token: str = ""


class History(_Part):
    phase: Phase
    started_at: str
    completed_at: str | None = None
    attempt: int = 0
    message: str = ""


class Status(_Part):
    observed_generation: int = 0
    status_version: int = STATUS_VERSION
    phase: Phase | None = None
    reason: str = ""
    attempt: int = 0
    started_at: str | None = None
    completed_at: str | None = None
    plan: Plan | None = None
    approval: Approval | None = None
    progress: Progress | None = None
    shards: Shards | None = None
    sync: Sync | None = None
    traffic: Traffic | None = None
    validation: Validation | None = None
    monitoring: Monitoring | None = None
    handled: Handled = Field(default_factory=Handled)
    history: tuple[History, ...] = ()
    conditions: tuple[Condition, ...] = ()
