"""Applications and a human, as far as the operator can tell them from real ones: one thread for a whole namespace."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

import httpx

from memferry.manifest import protocol
from testbed.kubernetes.client import ApiError, KubernetesClient

__all__ = ["StandinClients", "Told"]

_PERIOD_SECS = 0.2
_RENEW_SECS = 1.0
_FIELDS = {"Cutover": ("cutover", "approve"), "Decommission": ("decommission", "confirm")}


@dataclass(frozen=True)
class Told:
    """What a binding said."""

    revision: int
    mode: str
    active: str


@dataclass
class StandinClients:
    """Acknowledges for clients of every MemoryBinding of a namespace, and approves every migration.

    Attributes:
        names: Of the clients.
        silent: Those that neither renew their Lease nor acknowledge.
        deaf: Those that renew and acknowledge nothing new.
        approves: Whether migrations are approved.
        told: What each binding has said, one after the other.
    """

    client: KubernetesClient
    namespace: str
    names: tuple[str, ...] = ("app-0",)
    lease_secs: int = 3
    silent: set[str] = field(default_factory=set)
    deaf: set[str] = field(default_factory=set)
    approves: bool = True
    told: dict[str, list[Told]] = field(default_factory=dict)
    _said: dict[tuple[str, str], tuple[Told, float]] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run, name=f"clients-{self.namespace}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def problems(self) -> list[str]:
        """What no binding may ever say: a revision that goes back or means two things, a side that serves unasked."""
        found = []
        for binding, told in self.told.items():
            serving = told[0].active
            for before, now in pairwise(told):
                if now.revision <= before.revision:
                    found.append(f"{binding}: {now} after {before}")
                asked = before.mode == "Frozen" and before.active == now.active
                if now.mode == "Serving" and now.active != serving and not asked:
                    found.append(f"{binding}: {now} after {before}, and nobody was asked")
                serving = now.active if now.mode == "Serving" else serving
        return found

    def _run(self) -> None:
        while not self._ended.wait(_PERIOD_SECS):
            with suppress(httpx.TransportError, ApiError):
                for binding in self.client.objects("MemoryBinding", namespace=self.namespace):
                    self._hear(binding)
                if self.approves:
                    for migration in self.client.objects("MemoryMigration", namespace=self.namespace):
                        self._approve(migration)

    def _hear(self, binding: dict[str, Any]) -> None:
        name, status = binding["metadata"]["name"], binding.get("status") or {}
        if not status.get("revision"):
            return
        now = Told(status["revision"], status["mode"], status["active"])
        told = self.told.setdefault(name, [])
        if not told or told[-1] != now:
            told.append(now)
        for client in self.names:
            said, at = self._said.get((name, client), (None, 0.0))
            says = said if client in self.deaf and said else now
            if client in self.silent or (says == said and time.monotonic() - at < _RENEW_SECS):
                continue
            self._renew(name, client, says)
            self._said[name, client] = says, time.monotonic()

    def _renew(self, binding: str, client: str, says: Told) -> None:
        notes = {protocol.REVISION: str(says.revision), protocol.MODE: says.mode, protocol.ACTIVE: says.active}
        labels = {"app.kubernetes.io/managed-by": "memferry-client", protocol.BINDING_LABEL: binding}
        at = datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {
                "name": protocol.client_lease_name(binding, client),
                "labels": labels,
                "annotations": notes,
            },
            "spec": {"holderIdentity": client, "renewTime": at, "leaseDurationSeconds": self.lease_secs},
        }
        self.client.apply(lease, namespace=self.namespace, manager="memferry-client")

    def _approve(self, migration: dict[str, Any]) -> None:
        asked = (migration.get("status") or {}).get("approval") or {}
        if not asked:
            return
        part, key = _FIELDS[asked["for"]]
        if migration["spec"].get(part, {}).get(key) != asked["token"]:
            change = {"spec": {part: {key: asked["token"]}}}
            self.client.patch("MemoryMigration", migration["metadata"]["name"], change, namespace=self.namespace)
