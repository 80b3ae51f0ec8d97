"""Does what the brain asks for."""

from __future__ import annotations

import asyncio
import logging
import uuid
from datetime import UTC, datetime
from typing import Final

from memferry.manifest.status import StallReason
from memferry_operator import names
from memferry_operator.actions import (
    Action,
    AddFinalizer,
    CreateJob,
    DeleteJob,
    DeletePod,
    Emit,
    ExpireJob,
    FlagNewerStatus,
    PatchJob,
    Prepare,
    RemoveFinalizer,
    SendCommand,
    WakeAt,
    WriteBinding,
    WriteStatus,
)
from memferry_operator.brain import times
from memferry_operator.hands import read
from memferry_operator.hands.api import OURS, Api, ApiError, path
from memferry_operator.hands.observe import Seen
from memferry_operator.objects import owned, pods
from memferry_operator.settings import Settings

__all__ = ["Hands"]

log = logging.getLogger(__name__)

_KEEP_JOBS_SECS: Final = 3600
_AT_ONCE: Final = 16


class Hands:
    """One set of hands for all migrations."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self._api = api
        self._settings = settings

    async def do(self, action: Action, seen: Seen) -> None:  # noqa: C901, PLR0912 - a case an action
        """Does one action.

        Raises:
            ApiError: It could not be done; 409 where what was seen no longer stands.
        """
        observed = seen.observed
        match action:
            case AddFinalizer():
                await self._finalizers(seen, [*seen.raw["metadata"].get("finalizers", []), names.FINALIZER])
            case RemoveFinalizer():
                left = [f for f in seen.raw["metadata"].get("finalizers", []) if f != names.FINALIZER]
                await self._finalizers(seen, left)
            case WriteStatus():
                await self._api.put_status("memorymigrations", seen.raw, action.status.to_json())
            case FlagNewerStatus():
                await self._flag(seen)
            case Emit():
                await self._emit(action, seen)
            case Prepare():
                await self._prepare(action, seen)
            case CreateJob():
                await self._create_job(action, seen)
            case PatchJob():
                body = {"spec": {"parallelism": action.parallelism, "suspend": action.suspend}}
                await self._api.merge(path("batch/v1", "jobs", observed.namespace, action.name), body)
            case ExpireJob():
                body = {"spec": {"ttlSecondsAfterFinished": _KEEP_JOBS_SECS}}
                await self._api.merge(path("batch/v1", "jobs", observed.namespace, action.name), body)
            case DeleteJob():
                # What comes next waits for its pods, of which one may be on a node that is lost.
                await self._api.delete(path("batch/v1", "jobs", observed.namespace, action.name), last=True)
            case DeletePod():
                await self._api.delete(path("v1", "pods", observed.namespace, action.name))
            case SendCommand():
                control = owned.control(observed.name, owned.owner(observed.name, observed.uid), action.command)
                await self._api.apply(
                    path("v1", "configmaps", observed.namespace, names.control(observed.name)), control
                )
            case WriteBinding():
                await self._write_binding(action, seen)
            case WakeAt():
                pass

    async def _finalizers(self, seen: Seen, wanted: list[str]) -> None:
        meta = {"finalizers": wanted, "resourceVersion": seen.observed.resource_version}
        where = f"{OURS}/namespaces/{seen.observed.namespace}/memorymigrations/{seen.observed.name}"
        await self._api.merge(where, {"metadata": meta})

    async def _flag(self, seen: Seen) -> None:
        """Only a condition is added; what the newer operator wrote stays to the letter."""
        status = dict(seen.raw.get("status") or {})
        old = status.get("conditions") or []
        reason = str(StallReason.NEWER_STATUS)
        if any(c.get("type") == "Stalled" and c.get("reason") == reason for c in old):
            return
        whose = "" if read.newer(seen.raw) or seen.raw_binding is None else " of its MemoryBinding"
        stalled = {
            "type": "Stalled",
            "status": "True",
            "reason": reason,
            "message": f"the status{whose} was written by a newer operator, which this one leaves alone",
            "lastTransitionTime": times.text(datetime.now(UTC)),
        }
        status["conditions"] = [*(c for c in old if c.get("type") != "Stalled"), stalled]
        await self._api.put_status("memorymigrations", seen.raw, status)

    async def _emit(self, action: Emit, seen: Seen) -> None:
        """An Event that cannot be written stops nothing."""
        number = uuid.uuid4().hex[:16]
        at, reporter = times.text(datetime.now(UTC)), self._settings.pod_name
        body = owned.event(
            seen.raw, action.type, action.reason, action.message, reporter=reporter, at=at, number=number
        )
        extra = {"migration": seen.observed.name, "namespace": seen.observed.namespace, "reason": action.reason}
        log.log(logging.WARNING if action.type == "Warning" else logging.INFO, action.message, extra=extra)
        try:
            await self._api.create(path("events.k8s.io/v1", "events", seen.observed.namespace), body)
        except ApiError as error:
            log.warning("an Event was not written: %s", error)

    async def _prepare(self, action: Prepare, seen: Seen) -> None:
        observed, api = seen.observed, self._api
        namespace, name = observed.namespace, observed.name
        by = owned.owner(name, observed.uid)
        account, role, bound = owned.rights(name, by, shards=action.shards)
        rbac = "rbac.authorization.k8s.io/v1"
        await api.apply(path("v1", "serviceaccounts", namespace, names.account(name)), account)
        await api.apply(path(rbac, "roles", namespace, names.account(name)), role)
        await api.apply(path(rbac, "rolebindings", namespace, names.account(name)), bound)
        await api.create(path("v1", "secrets", namespace), owned.result(name, by))
        await api.create(path("v1", "configmaps", namespace), owned.control(name, by, None))
        pinned = owned.manifest(seen.raw, seen.raw_backends, seen.mapping, by, action.attempt)
        await api.create(path("v1", "configmaps", namespace), pinned)
        missing = [
            one
            for one in owned.leases(name, by, shards=action.shards)
            if one["metadata"]["name"] not in observed.leases
        ]
        where = path("coordination.k8s.io/v1", "leases", namespace)
        for begin in range(0, len(missing), _AT_ONCE):
            await asyncio.gather(*(api.create(where, one) for one in missing[begin : begin + _AT_ONCE]))

    async def _create_job(self, action: CreateJob, seen: Seen) -> None:
        observed = seen.observed
        if observed.spec is None:
            return
        body = pods.job(
            action,
            name=observed.name,
            uid=observed.uid,
            spec=observed.spec,
            backends=observed.backends,
            owner=owned.owner(observed.name, observed.uid),
            settings=self._settings,
        )
        await self._api.create(path("batch/v1", "jobs", observed.namespace), body)

    async def _write_binding(self, action: WriteBinding, seen: Seen) -> None:
        if seen.raw_binding is None:
            return
        if read.newer(seen.raw_binding):
            raise ApiError(0, "the status of the MemoryBinding was written by a newer operator")
        status = dict(seen.raw_binding.get("status") or {})
        status |= {"statusVersion": 1, "active": action.active, "revision": action.revision, "mode": action.mode}
        status.pop("frozenUntil", None)
        status.pop("lockedBy", None)
        if action.frozen_until is not None:
            status["frozenUntil"] = times.text(action.frozen_until)
        if action.locked:
            status["lockedBy"] = {"uid": seen.observed.uid, "name": seen.observed.name}
        await self._api.put_status("memorybindings", seen.raw_binding, status)
