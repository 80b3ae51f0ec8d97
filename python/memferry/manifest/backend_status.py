"""Status of a MemoryBackend: what was last seen of its store."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from memferry.manifest.status_parts import Changes, Count, Instant, ObjectName, Small, Status, StatusPart, Word, keyed

__all__ = ["BackendStatus", "BackendUser", "Capability", "RecordCounts"]

Capability = Literal["write", "atomic", "text-search", "vector-search", "exact-vectors"]
"""What a store can do, as `memferry.open(...).capabilities()` has it."""


class RecordCounts(StatusPart):
    """Records by kind."""

    entity: Count = 0
    """Entities."""
    memory: Count = 0
    """Memories."""
    observation: Count = 0
    """Observations."""
    relation: Count = 0
    """Relations."""


class BackendUser(StatusPart):
    """A resource that names the backend."""

    kind: Literal["MemoryMigration", "MemoryBinding", "MemoryBackend"]
    """Its kind."""
    name: ObjectName
    """Its name."""


class BackendStatus(Status):
    """What was last seen of a store."""

    reachable: bool | None = None
    """Whether it answered; nothing while it was not asked."""
    server_version: Word = ""
    """What it says of itself."""
    store_identity: ObjectName = ""
    """Identity of the store; two MemoryBackends with one are one store."""
    records: Count | None = None
    """Records in it."""
    counts: RecordCounts | None = None
    """Records by kind."""
    changes: Changes | None = None
    """How it tells what changed."""
    capabilities: Annotated[
        tuple[Capability, ...], Field(max_length=16, json_schema_extra={"x-kubernetes-list-type": "set"})
    ] = ()
    """What it can do."""
    users: Annotated[tuple[BackendUser, ...], Field(max_length=64, json_schema_extra=keyed("kind", "name"))] = ()
    """Resources that name it, the first 64."""
    checked_at: Instant | None = None
    """When it was asked."""
    failures: Small = 0
    """Probes in a row that came to no good end; the next one waits the longer."""
