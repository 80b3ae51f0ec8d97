"""The loop: a key comes out of the queue, is looked at, and what the brain asks for is done."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from pydantic import ValidationError

from memferry.manifest.status import MigrationStatus, StallReason
from memferry_operator.actions import WakeAt, WriteStatus
from memferry_operator.brain import plan
from memferry_operator.brain.draft import TERMINAL
from memferry_operator.hands import read
from memferry_operator.hands.act import Hands
from memferry_operator.hands.api import OURS, Api, ApiError
from memferry_operator.hands.backends import Looked, look_at_backend
from memferry_operator.hands.bindings import look_at_binding
from memferry_operator.hands.keys import Key
from memferry_operator.hands.leader import Leader, LostError
from memferry_operator.hands.metrics import Metrics
from memferry_operator.hands.observe import Seen, observe
from memferry_operator.hands.probes import Probes
from memferry_operator.hands.queue import Queue
from memferry_operator.names import BACKEND, BINDING, MIGRATION, ROLE
from memferry_operator.observed import User
from memferry_operator.reasons import Reason
from memferry_operator.settings import Settings

__all__ = ["Key", "Reconciler"]

log = logging.getLogger(__name__)

_ACTIVE: Final = frozenset({"ParallelSetup", "BulkTransfer", "Validation", "TrafficSwitch"})
_FREEZE: Final = frozenset({Reason.FREEZING, Reason.FINAL_PASS, Reason.FLIPPING, Reason.RETURNING})
"""What clients acknowledge is waited for."""
_WAITS: Final = frozenset({StallReason.BACKEND_MISSING, StallReason.BACKEND_UNAVAILABLE})
"""What a MemoryBackend may end."""
_PROGRESS_SECS: Final = 3.0
"""Progress is not worth more than a look every so often."""
_CLIENTS_SECS: Final = 5.0
"""Clients renew their Leases all the time; the binding's count of them follows so often."""
_USERS_SECS: Final = 5.0
"""Who names a MemoryBackend follows so often."""
_AGAIN_SECS: Final = 0.05
_AFTER_SECS: Final = 5.0
"""After something was done it is looked again, whether a watch tells or not."""
_PAGE: Final = "500"


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
        self._bindings: dict[Key, frozenset[str]] = {}
        self._probes = Probes()
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
            self._tell_binding(Key("binding", namespace, meta["name"]), event, found)
        elif plural == "memorybackends":
            self._tell_backend(Key("backend", namespace, meta["name"]), event, found)
        elif BACKEND in labels:
            if plural == "jobs":
                self.queue.add(Key("backend", namespace, labels[BACKEND]))
        elif MIGRATION in labels:
            slow = plural == "leases" and labels.get(ROLE) == "transfer"
            self.queue.add(Key("migration", namespace, labels[MIGRATION]), _PROGRESS_SECS if slow else 0)
        elif BINDING in labels:
            binding = Key("binding", namespace, labels[BINDING])
            self._wake_users(binding, clients=True)
            self.queue.add(binding, _CLIENTS_SECS)

    def _tell_migration(self, key: Key, event: str | None, found: Mapping[str, Any]) -> None:
        if event == "DELETED":
            self._forget(key)
            return
        spec, told = found.get("spec") or {}, found.get("status") or {}
        ends, before = frozenset(read.ends(spec)), self._known.get(key)
        binding = ((spec.get("cutover") or {}).get("bindingRef") or {}).get("name", "")
        phase, deleting = told.get("phase") or "", "deletionTimestamp" in found["metadata"]
        settled = phase in TERMINAL and told.get("observedGeneration") == found["metadata"].get("generation")
        self._known[key] = _Known(phase, told.get("reason") or "", ends, binding, settled and not deleting)
        try:
            self._metrics.known[key.namespace, key.name] = MigrationStatus.model_validate(told)
        except ValidationError:
            log.warning("a status cannot be read", extra={"namespace": key.namespace, "migration": key.name})
        self._slot(key, phase)
        self.queue.add(key)
        if before is None or (before.phase in TERMINAL) != (phase in TERMINAL):
            self._users_changed(key.namespace, ends)

    def _tell_binding(self, key: Key, event: str | None, found: Mapping[str, Any]) -> None:
        before = self._bindings.get(key, frozenset())
        if event == "DELETED":
            self._bindings.pop(key, None)
        else:
            initial = ((found.get("spec") or {}).get("initialBackendRef") or {}).get("name")
            active = (found.get("status") or {}).get("active")
            self._bindings[key] = frozenset(name for name in (initial, active) if name)
            self.queue.add(key)
        self._users_changed(key.namespace, before ^ self._bindings.get(key, frozenset()))
        self._wake_users(key)

    def _tell_backend(self, key: Key, event: str | None, found: Mapping[str, Any]) -> None:
        halves = [((found.get("spec") or {}).get(half) or {}).get("name") for half in ("graphRef", "vectorsRef")]
        changed = self._probes.tell(key, event, found["metadata"].get("generation", 0), halves)
        if event != "DELETED":
            self.queue.add(key)
        if changed:
            # What a half is, its whole depends on; what a store is, bindings' Secrets depend on.
            for other in [
                *self._probes.wholes(key),
                *(one for one in self._bindings if one.namespace == key.namespace),
            ]:
                self.queue.add(other)
            self._users_changed(key.namespace, frozenset(name for name in halves if name))
        self._wake_waiting(key)

    def _users_changed(self, namespace: str, backends: frozenset[str]) -> None:
        """Who names a MemoryBackend stands in its status, some time later: two thousand migrations name one."""
        for name in backends:
            key = Key("backend", namespace, name)
            if key in self._probes:
                self.queue.add(key, _USERS_SECS)

    def _users(self, key: Key) -> tuple[User, ...]:
        """Who names a MemoryBackend, as far as events told."""
        found = [
            User("MemoryMigration", k.name, phase=known.phase)
            for k, known in self._known.items()
            if k.namespace == key.namespace and key.name in known.backends and known.phase not in TERMINAL
        ]
        found += [
            User("MemoryBinding", k.name)
            for k, names in self._bindings.items()
            if k.namespace == key.namespace and key.name in names
        ]
        return (*found, *(User("MemoryBackend", whole.name) for whole in self._probes.wholes(key)))

    def _forget(self, key: Key) -> None:
        gone = self._known.pop(key, None)
        if gone is not None:
            self._users_changed(key.namespace, gone.backends)
        self._metrics.known.pop((key.namespace, key.name), None)
        self.queue.forget(key)
        self._slot(key, "")

    def _wake_users(self, binding: Key, *, clients: bool = False) -> None:
        """What becomes of a binding, its migrations wait for; what clients say, only while they have to acknowledge."""
        for key, known in self._known.items():
            if key.namespace == binding.namespace and known.binding == binding.name and not known.settled:
                self.queue.add(key, _CLIENTS_SECS if clients and known.reason not in _FREEZE else 0)

    def _wake_waiting(self, backend: Key) -> None:
        """Those that cannot begin without it."""
        named = {backend.name, *(whole.name for whole in self._probes.wholes(backend))}
        for key, known in self._known.items():
            if key.namespace == backend.namespace and known.reason in _WAITS and named & known.backends:
                self.queue.add(key)

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
                # A defect that one resource brings out must not stop the others; it is logged, counted (an alert
                # watches that), and tried again ever less often.
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
            keys += self._probes.pending()
            for number, key in enumerate(keys):
                self.queue.add(key, self._settings.resync_secs * number / (2 * len(keys)))

    # one look

    async def _look(self, key: Key) -> None:
        if key.kind == "binding":
            await self._look_at_binding(key)
            return
        if key.kind == "backend":
            await self._look_at_backend(key)
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
        except Exception:
            # What is at work goes on, whether it can be looked at or not.
            phase = known.phase if (known := self._known.get(key)) else ""
            raise
        finally:
            self._slot(key, phase)

    async def _look_at_binding(self, key: Key) -> None:
        try:
            asked = await look_at_binding(self._api, key.namespace, key.name, self._leader.check)
        except ApiError as error:
            if error.status != 409:
                raise
            self.queue.add(key, _AGAIN_SECS)
            return
        if asked is None:
            self._bindings.pop(key, None)
            self.queue.forget(key)
        for backend in self._probes.ask(key, asked or {}):
            self.queue.add(backend)

    async def _look_at_backend(self, key: Key) -> None:
        looked, place = Looked(), self._probes.place(key, self._settings.max_probes)
        try:
            found = await look_at_backend(
                self._api,
                self._settings,
                key.namespace,
                key.name,
                users=self._users(key),
                asked=self._probes.asked(key),
                slot=place,
                check=self._leader.check,
            )
            if found is None:
                self.queue.forget(key)
            looked = found or looked
        except ApiError as error:
            if error.ending:
                return  # Nothing can be made in a namespace that goes, and nobody needs it.
            if error.status != 409:
                raise
            self.queue.add(key, _AGAIN_SECS)
        finally:
            following = self._probes.looked(key, probes=looked.probes, waits=looked.waits)
            if following is not None:
                self.queue.add(following)
        if looked.wake_at is not None:
            self.queue.add(key, max(0.0, (looked.wake_at - datetime.now(UTC)).total_seconds()))
        for binding in looked.answered:
            self.queue.add(Key("binding", key.namespace, binding))

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
