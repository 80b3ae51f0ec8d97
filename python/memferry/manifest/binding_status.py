"""Status of a MemoryBinding: what clients go by."""

from __future__ import annotations

from memferry.manifest.status_parts import Count, Instant, Mode, ObjectName, Small, Status, StatusPart, Uid

__all__ = ["BindingStatus", "BoundSecret", "ClientCount", "Lock"]


class Lock(StatusPart):
    """The migration that may switch the binding; others wait."""

    uid: Uid
    """Its uid."""
    name: ObjectName
    """Its name."""


class BoundSecret(StatusPart):
    """The Secret with what a client needs to connect, as servicebinding.io has it."""

    name: ObjectName
    """Its name."""


class ClientCount(StatusPart):
    """Clients of the binding."""

    expected: Small = 0
    """That have to acknowledge."""
    acknowledged: Small = 0
    """That acknowledged the revision."""


class BindingStatus(Status):
    """What clients go by."""

    active: ObjectName = ""
    """The MemoryBackend that serves."""
    revision: Count = 0
    """Each change of mode or side has its own."""
    mode: Mode = "Serving"
    """Whether clients may write."""
    frozen_until: Instant | None = None
    """When a freeze ends by itself."""
    locked_by: Lock | None = None
    """The migration that may switch it."""
    binding: BoundSecret | None = None
    """The Secret for clients."""
    clients: ClientCount | None = None
    """Clients and their acknowledgements."""
