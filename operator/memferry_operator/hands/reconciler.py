"""The loop: a key comes out of the queue, is looked at, and what the brain asks for is done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from memferry.manifest.status import MigrationStatus
from memferry_operator.actions import WakeAt, WriteStatus
from memferry_operator.brain import plan
from memferry_operator.brain.draft import TERMINAL
from memferry_operator.hands.act import Hands
from memferry_operator.hands.api import OURS, Api, ApiError
from memferry_operator.hands.bindings import look_at_binding
from memferry_operator.hands.leader import Leader, LostError
from memferry_operator.hands.metrics import Metrics
from memferry_operator.hands.observe import Seen, observe
from memferry_operator.hands.queue import Queue
from memferry_operator.names import BINDING, MIGRATION, ROLE
from memferry_operator.reasons import Reason
from memferry_operator.settings import Settings

__all__ = ["Key", "Reconciler"]

log = logging.getLogger(__name__)

_ACTIVE: Final = frozenset({"ParallelSetup", "BulkTransfer", "Validation", "TrafficSwitch"})
_FREEZE: Final = frozenset({Reason.FREEZING, Reason.FINAL_PASS, Reason.FLIPPING, Reason.RETURNING})
"""What clients acknowledge is waited for."""
_PROGRESS_SECS: Final = 3.0
"""Progress is not worth more than a look every so often."""
_CLIENTS_SECS: Final = 5.0
"""Clients renew their Leases all the time; the binding's count of them follows so often."""
_AGAIN_SECS: Final = 0.05
_AFTER_SECS: Final = 5.0
"""After something was done it is looked again, whether a watch tells or not."""
_PAGE: Final = "500"


class Key(NamedTuple):
    """What is looked at."""

    kind: str
    namespace: str
    name: str


class _Known(NamedTuple):
    """What events told of a migration: enough to know whom to wake."""

    phase: str
    reason: str
    backends: frozenset[str]
    binding: str
    settled: bool


class Reconciler:
    """Keys in, actions out."""

    def __init__(self, api: Api, settings: Settings, leader: Leader, metrics: Metrics) -> None:
        self._api, self._settings, self._leader, self._metrics = api, settings, leader, metrics
        self._hands = Hands(api, settings)
        self._known: dict[Key, _Known] = {}
        self._slots: set[Key] = set()
        self._bindings: set[Key] = set()
        self.queue: Queue[Key] = Queue()
        metrics.queue_depth.set_function(self.queue.ready)

    # events

    def tell(self, plural: str, event: str | None, found: Mapping[str, Any]) -> None:
        """Takes in an event of a watch."""
        meta = found["metadata"]
        namespace, labels = meta.get("namespace", ""), meta.get("labels") or {}
        if plural == "memorymigrations":
            self._tell_migration(Key("migration", namespace, meta["name"]), event, found)
        elif plural == "memorybindings":
            key = Key("binding", namespace, meta["name"])
            if event == "DELETED":
                self._bindings.discard(key)
            else:
                self._bindings.add(key)
                self.queue.add(key)
            self._wake_users(plural, namespace, meta["name"])
        elif plural == "memorybackends":
            self._wake_users(plural, namespace, meta["name"])
            for key in self._bindings:
                if key.namespace == namespace:
                    self.queue.add(key)
        elif MIGRATION in labels:
            slow = plural == "leases" and labels.get(ROLE) == "transfer"
            self.queue.add(Key("migration", namespace, labels[MIGRATION]), _PROGRESS_SECS if slow else 0)
        elif BINDING in labels:
            self._wake_users("clients", namespace, labels[BINDING])
            self.queue.add(Key("binding", namespace, labels[BINDING]), _CLIENTS_SECS)

    def _tell_migration(self, key: Key, event: str | None, found: Mapping[str, Any]) -> None:
        if event == "DELETED":
            self._forget(key)
            return
        spec, told = found.get("spec") or {}, found.get("status") or {}
        ends = [((spec.get(end) or {}).get("backendRef") or {}).get("name", "") for end in ("source", "target")]
        binding = ((spec.get("cutover") or {}).get("bindingRef") or {}).get("name", "")
        phase, deleting = told.get("phase") or "", "deletionTimestamp" in found["metadata"]
        settled = phase in TERMINAL and told.get("observedGeneration") == found["metadata"].get("generation")
        self._known[key] = _Known(phase, told.get("reason") or "", frozenset(ends), binding, settled and not deleting)
        try:
            self._metrics.known[key.namespace, key.name] = MigrationStatus.model_validate(told)
        except ValidationError:
            log.warning("a status cannot be read", extra={"namespace": key.namespace, "migration": key.name})
        self._slot(key, phase)
        self.queue.add(key)

    def _forget(self, key: Key) -> None:
        self._known.pop(key, None)
        self._metrics.known.pop((key.namespace, key.name), None)
        self.queue.forget(key)
        self._slot(key, "")

    def _wake_users(self, plural: str, namespace: str, name: str) -> None:
        for key, known in self._known.items():
            if key.namespace != namespace or known.settled:
                continue
            if plural == "memorybackends" and known.phase in {"", "Pending"}:
                self.queue.add(key)
            elif plural != "memorybackends" and known.binding == name:
                waits = plural == "memorybindings" or known.reason in _FREEZE
                self.queue.add(key, 0 if waits else _CLIENTS_SECS)

    def _slot(self, key: Key, phase: str) -> None:
        """Takes or gives back a place; whoever waits for one is told."""
        if phase in _ACTIVE:
            self._slots.add(key)
        elif key in self._slots:
            self._slots.discard(key)
            waits = next((k for k, known in self._known.items() if known.reason == Reason.QUEUED and k != key), None)
            if waits is not None:
                self.queue.add(waits)

    # loops

    async def begin(self) -> None:
        """Lists every migration once, so that all places that are taken are known before one is given."""
        for namespace in self._settings.namespaces or [""]:
            where = f"{OURS}/namespaces/{namespace}/memorymigrations" if namespace else f"{OURS}/memorymigrations"
            following = ""
            while True:
                page = await self._api.request("GET", where, params={"limit": _PAGE, "continue": following})
                for found in page.get("items") or []:
                    self._tell_migration(
                        Key("migration", found["metadata"]["namespace"], found["metadata"]["name"]), None, found
                    )
                following = (page.get("metadata") or {}).get("continue") or ""
                if not following:
                    break

    async def work(self) -> None:
        """Looks at one key after another."""
        while True:
            key = await self.queue.get()
            begun = time.monotonic()
            try:
                await self._look(key)
            except ApiError as error:
                wait = self.queue.failed(key)
                self._metrics.reconciles.labels(key.kind, "error").inc()
                extra = {"namespace": key.namespace, "migration": key.name, "again_secs": wait}
                log.warning("a look failed: %s", error, extra=extra)
            except LostError:
                self.queue.done(key)
                raise
            except Exception:
                self.queue.failed(key)
                self._metrics.reconciles.labels(key.kind, "defect").inc()
                log.exception("a look failed", extra={"namespace": key.namespace, "migration": key.name})
            else:
                self.queue.done(key)
                self._metrics.reconciles.labels(key.kind, "ok").inc()
            self._metrics.reconcile_secs.labels(key.kind).observe(time.monotonic() - begun)

    async def resync(self) -> None:
        """Looks again at everything that is not over; those who wait for a place are told when there is one."""
        while True:
            await asyncio.sleep(self._settings.resync_secs)
            keys = [k for k, known in self._known.items() if not known.settled and known.reason != Reason.QUEUED]
            keys += self._bindings
            for number, key in enumerate(keys):
                self.queue.add(key, self._settings.resync_secs * number / (2 * len(keys)))

    # one look

    async def _look(self, key: Key) -> None:
        if key.kind == "binding":
            await self._look_at_binding(key)
            return
        slot = key in self._slots or len(self._slots) < self._settings.max_active
        if slot:
            self._slots.add(key)
        phase = ""
        try:
            seen = await observe(self._api, key.namespace, key.name, slot=slot)
            if seen is None:
                self._forget(key)
                return
            phase = await self._act(key, seen)
        finally:
            self._slot(key, phase)

    async def _look_at_binding(self, key: Key) -> None:
        self._leader.check()
        try:
            if not await look_at_binding(self._api, key.namespace, key.name):
                self._bindings.discard(key)
                self.queue.forget(key)
        except ApiError as error:
            if error.status != 409:
                raise
            self.queue.add(key, _AGAIN_SECS)

    async def _act(self, key: Key, seen: Seen) -> str:
        """Does what the brain asks for; the phase the migration is in then."""
        phase: str = seen.observed.status.phase or ""
        now, did = datetime.now(UTC), False
        for action in plan(seen.observed, now):
            if isinstance(action, WakeAt):
                self.queue.add(key, max(0.0, (action.at - now).total_seconds()))
                continue
            self._leader.check()
            try:
                await self._hands.do(action, seen)
            except ApiError as error:
                if error.ending:
                    continue  # What was to be made there is not needed any more.
                if error.status != 409:
                    raise
                log.debug("something changed meanwhile, looks again: %s", error)
                self.queue.add(key, _AGAIN_SECS)
                return phase
            did = True
            self._metrics.actions.labels(type(action).__name__).inc()
            if isinstance(action, WriteStatus):
                phase = self._wrote(seen, action.status)
        if did and phase not in TERMINAL:
            self.queue.add(key, _AFTER_SECS)
        return phase

    def _wrote(self, seen: Seen, status: MigrationStatus) -> str:
        old = seen.observed.status.traffic
        new = status.traffic
        if new and new.write_freeze_millis is not None and (not old or old.switched_at != new.switched_at):
            self._metrics.write_freeze_secs.observe(new.write_freeze_millis / 1000)
        return status.phase or ""
