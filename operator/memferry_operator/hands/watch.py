"""kopf as transport: watches tell which key to look at, and nothing else."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, cast

import kopf

from memferry_operator import names
from memferry_operator.hands.api import login
from memferry_operator.names import GROUP, VERSION
from memferry_operator.settings import Settings

__all__ = ["Tell", "watch"]

Tell = Callable[[str, str | None, Mapping[str, Any]], None]
"""Called with the plural, the type of the event, and the object."""

WATCHED: Final = {
    "memorymigrations": (GROUP, VERSION),
    "memorybindings": (GROUP, VERSION),
    "memorybackends": (GROUP, VERSION),
    "jobs": ("batch", "v1"),
    "pods": ("", "v1"),
    "leases": ("coordination.k8s.io", "v1"),
}
_SELECTORS: Final = {
    "jobs": names.ROLE,
    "pods": names.ROLE,
    "leases": f"{names.MANAGED_BY} in ({names.MANAGER}, memferry-client)",
}


class _Backoffs:
    """For ever, with jitter; a new walk for every request."""

    def __iter__(self) -> Iterator[float]:
        wait = 1.0
        while True:
            yield wait * random.uniform(0.5, 1.0)  # noqa: S311 - spreads retries
            wait = min(60.0, wait * 2)


def _configure(settings: kopf.OperatorSettings, ours: Settings) -> None:
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.posting.enabled = False
    # Workers that idle hold their slot: the two belong together (4 objects a second with the defaults).
    settings.queueing.worker_limit = 50
    settings.queueing.idle_timeout = 0.1
    settings.networking.request_timeout = 30
    settings.networking.connect_timeout = 5
    settings.networking.error_backoffs = _Backoffs()
    settings.watching.connect_timeout = 10
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    settings.watching.chunk_size = 500
    settings.persistence.finalizer = f"{GROUP}/unused"
    settings.process.ultimate_exiting_timeout = 25
    settings.posting.reporting_instance = ours.pod_name
    for plural, selector in _SELECTORS.items():
        group, version = WATCHED[plural]
        settings.watching.label_selectors[group, version, plural] = selector


async def watch(settings: Settings, tell: Tell, stop: asyncio.Event, before: set[asyncio.Task[Any]]) -> None:
    """Watches until it is stopped.

    Args:
        settings: Which namespaces.
        tell: Called for every event.
        stop: Ends it.
        before: Tasks that kopf must not end.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.startup(registry=registry)
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings, ours)

    @kopf.on.login(registry=registry)
    def credentials(**_: Any) -> kopf.ConnectionInfo:
        return login()

    ours = settings
    for plural, (group, version) in WATCHED.items():
        _listen(registry, group, version, plural, tell)
    tasks = await kopf.spawn_tasks(
        registry=registry,
        identity=cast("Any", settings.pod_name),  # else kopf asks for the user's name: a number has none
        clusterwide=not settings.namespaces,
        namespaces=settings.namespaces,
        standalone=True,
        stop_flag=stop,
    )
    await kopf.run_tasks(tasks, ignored=before)


def _listen(registry: kopf.OperatorRegistry, group: str, version: str, plural: str, tell: Tell) -> None:
    @kopf.on.event(group, version, plural, registry=registry)
    async def changed(event: Mapping[str, Any], **_: Any) -> None:
        tell(plural, event.get("type"), event["object"])
