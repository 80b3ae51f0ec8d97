"""memferry moves an agent's memory from any backend to any other and proves that nothing was lost.

The verbs of the command line are functions here, `open` gives an application one store whatever is behind it, and
`memferry.aio` has the same to be awaited. Described in `docs/library.md`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from memferry.application import Hit, Store
    from memferry.application import open_store as open  # noqa: A004 - read as memferry.open
    from memferry.backends.access import Capabilities
    from memferry.endpoint import EndpointSettings
    from memferry.errors import MemferryError, NotProvenError, RefusedError, StoreError, TransientError
    from memferry.library import migrate, plan, rollback, verify
    from memferry.listing import RecordPage
    from memferry.phases.embedding import Embedding
    from memferry.phases.migrate import Result
    from memferry.phases.parity import Parity
    from memferry.phases.plan import Plan, Stop
    from memferry.phases.rollback import RolledBack
    from memferry.phases.transform import Decisions, load_mapping
    from memferry.records import Record, Scope, Time
    from memferry.urls import Secrets, StoreUrl, hybrid_url, parse_url
    from memferry.values import NumberText, Reserved
    from memferry.vectors import Vector

__all__ = [
    "Capabilities",
    "Decisions",
    "Embedding",
    "EndpointSettings",
    "Hit",
    "MemferryError",
    "NotProvenError",
    "NumberText",
    "Parity",
    "Plan",
    "Record",
    "RecordPage",
    "RefusedError",
    "Reserved",
    "Result",
    "RolledBack",
    "Scope",
    "Secrets",
    "Stop",
    "Store",
    "StoreError",
    "StoreUrl",
    "Time",
    "TransientError",
    "Vector",
    "hybrid_url",
    "load_mapping",
    "migrate",
    "open",
    "parse_url",
    "plan",
    "rollback",
    "verify",
]

_HOMES = {
    "application": ("Hit", "Store"),
    "backends.access": ("Capabilities",),
    "endpoint": ("EndpointSettings",),
    "errors": ("MemferryError", "NotProvenError", "RefusedError", "StoreError", "TransientError"),
    "library": ("migrate", "plan", "rollback", "verify"),
    "listing": ("RecordPage",),
    "phases.embedding": ("Embedding",),
    "phases.migrate": ("Result",),
    "phases.parity": ("Parity",),
    "phases.plan": ("Plan", "Stop"),
    "phases.rollback": ("RolledBack",),
    "phases.transform": ("Decisions", "load_mapping"),
    "records": ("Record", "Scope", "Time"),
    "urls": ("Secrets", "StoreUrl", "hybrid_url", "parse_url"),
    "values": ("NumberText", "Reserved"),
    "vectors": ("Vector",),
}
_HOME = {name: (home, name) for home, names in _HOMES.items() for name in names} | {
    "open": ("application", "open_store"),
}


def __getattr__(name: str) -> Any:
    """Imported when it is first used: who needs only a part, as `memferry.errors`, does not load the rest."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home, there = _HOME[name]
    value = globals()[name] = getattr(import_module(f"{__name__}.{home}"), there)
    return value
