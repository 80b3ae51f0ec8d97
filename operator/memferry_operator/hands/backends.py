"""Looks at a MemoryBackend, and does what `memferry_operator.backend` asks for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from memferry.manifest import Backend
from memferry.manifest.backend_status import BackendStatus
from memferry_operator import names
from memferry_operator.actions import WakeAt
from memferry_operator.backend import (
    Ask,
    BackendSeen,
    EndProbe,
    Probe,
    StartProbe,
    WaitForProbe,
    WriteBackendStatus,
    plan_backend,
)
from memferry_operator.hands import read
from memferry_operator.hands.api import OURS, Api, path
from memferry_operator.objects import owned, probes
from memferry_operator.objects.references import references
from memferry_operator.observed import User
from memferry_operator.settings import Settings

__all__ = ["Looked", "look_at_backend", "probed"]

log = logging.getLogger(__name__)

_Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Looked:
    """What came of a look.

    Attributes:
        wake_at: When to look again.
        probes: Whether a probe runs now.
        waits: Whether one is due and may not run yet.
        answered: Bindings that a probe has answered.
    """

    wake_at: datetime | None = None
    probes: bool = False
    waits: bool = False
    answered: tuple[str, ...] = ()


async def look_at_backend(
    api: Api,
    settings: Settings,
    namespace: str,
    name: str,
    *,
    users: tuple[User, ...],
    asked: Mapping[str, Ask],
    slot: bool,
    check: Callable[[], None],
) -> Looked | None:
    """One look; None where there is no such MemoryBackend.

    Args:
        api: The API server.
        settings: Of the operator.
        namespace: Where.
        name: The MemoryBackend.
        users: Who names it.
        asked: Bindings that ask for its journal.
        slot: Whether it may be probed now.
        check: Called before every write; raises where another operator may lead.

    Raises:
        ApiError: Something could not be done; 409 where what was seen no longer stands.
    """
    raw = await api.get(f"{OURS}/namespaces/{namespace}/memorybackends/{name}")
    if raw is None:
        return None
    parts, missing = await _parts(api, namespace, raw)
    problem = next((text for one in parts if (text := read.problem(Backend, one.get("spec")))), "")
    lacking = () if problem else await _lacking(api, namespace, parts)
    found = await api.list(path("batch/v1", "jobs", namespace), f"{names.BACKEND}={name}")
    ours = [job for job in found if _owned_by(job, raw["metadata"]["uid"])]
    probe = _probe(ours[0]) if ours else None
    said = await probed(api, namespace, name) if asked or (probe and probe.ended) else {}
    told = raw.get("status") or {}
    newer = read.newer(raw)
    seen = BackendSeen(
        name=name,
        generation=raw["metadata"].get("generation", 0),
        status=BackendStatus() if newer else BackendStatus.model_validate(told),
        problem=problem,
        missing=missing,
        lacking=lacking,
        newer_status=newer,
        deleting="deletionTimestamp" in raw["metadata"],
        users=users,
        probe=probe,
        said=said,
        asked=asked,
        slot=slot,
    )
    wake_at, probes_now, waits = None, probe is not None, False
    for action in plan_backend(seen, datetime.now(UTC), timedelta(seconds=settings.probe_secs)):
        match action:
            case WakeAt(at):
                wake_at = at
            case WaitForProbe():
                waits = True
            case WriteBackendStatus(status):
                check()
                await api.put_status("memorybackends", raw, status.to_json())
            case EndProbe(job):
                check()
                await api.delete(path("batch/v1", "jobs", namespace, job))
            case StartProbe():
                check()
                await _start(api, settings, parts, action)
                probes_now = True
    answered = tuple(said.get("journals") or {}) if probe is not None and probe.ended else ()
    return Looked(wake_at, probes_now, waits, answered)


async def probed(api: Api, namespace: str, backend: str) -> dict[str, Any]:
    """What the last probe of a MemoryBackend said; nothing where there was none."""
    secret = await api.get(path("v1", "secrets", namespace, names.probe(backend)))
    return dict(read.results(secret).get(probes.KEY.removesuffix(".json"), {}))


async def _parts(api: Api, namespace: str, raw: _Object) -> tuple[list[_Object], tuple[str, ...]]:
    """The MemoryBackend and its halves, and the names of those that are not there."""
    spec, parts, missing = raw.get("spec") or {}, [raw], list[str]()
    for half in (spec.get("graphRef"), spec.get("vectorsRef")):
        if half:
            found = await api.get(f"{OURS}/namespaces/{namespace}/memorybackends/{half['name']}")
            missing += [half["name"]] if found is None else []
            parts += [found] if found is not None else []
    return parts, tuple(missing)


async def _lacking(api: Api, namespace: str, parts: list[_Object]) -> tuple[str, ...]:
    """Keys that are referenced and not there: a pod that mounts them never starts, and does not say why."""
    lacking: list[str] = []
    keys = references(Backend.model_validate(part["spec"]) for part in parts)
    for (kind, name), some in groupby(keys, key=lambda one: (one.kind, one.name)):
        found = await api.get(path("v1", "secrets" if kind == "Secret" else "configmaps", namespace, name))
        if found is None:
            lacking.append(f"{kind} {name} is not there")
            continue
        held = {*(found.get("data") or {}), *(found.get("binaryData") or {})}
        lacking += [f"{kind} {name} has no key {one.key}" for one in some if one.key not in held]
    return tuple(lacking)


def _owned_by(found: _Object, uid: str) -> bool:
    owners = found["metadata"].get("ownerReferences") or []
    return any(one.get("uid") == uid for one in owners)


def _probe(job: _Object) -> Probe:
    meta = job["metadata"]
    conditions = (job.get("status") or {}).get("conditions") or []
    true = {c["type"]: c for c in conditions if c.get("status") == "True"}
    number = (meta.get("annotations") or {}).get(names.PROBE, "0-0")
    return Probe(
        name=meta["name"],
        number=number,
        generation=int(number.partition("-")[0]),
        ended=bool({"Complete", "Failed"} & set(true)),
        deleting="deletionTimestamp" in meta,
        message=(true.get("Failed") or {}).get("message") or "",
    )


async def _start(api: Api, settings: Settings, parts: list[_Object], action: StartProbe) -> None:
    meta = parts[0]["metadata"]
    namespace, backend = meta["namespace"], meta["name"]
    by, name = owned.owner(backend, meta["uid"], "MemoryBackend"), names.probe(backend)
    account, role, bound = probes.rights(backend, by)
    rbac = "rbac.authorization.k8s.io/v1"
    await api.apply(path("v1", "serviceaccounts", namespace, name), account)
    await api.apply(path(rbac, "roles", namespace, name), role)
    await api.apply(path(rbac, "rolebindings", namespace, name), bound)
    # Not applied: that would take away what a probe has written.
    await api.create(path("v1", "secrets", namespace), probes.result(backend, by))
    await api.apply(path("v1", "configmaps", namespace, name), probes.manifest(backend, parts, by))
    backends = [Backend.model_validate(part["spec"]) for part in parts]
    job = probes.job(backend, action, backends=backends, owned_by=by, settings=settings)
    await api.create(path("batch/v1", "jobs", namespace), job)
