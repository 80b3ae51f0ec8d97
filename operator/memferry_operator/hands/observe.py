"""Reads everything of one migration, live: a cache that is behind would be a reason to do something twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from memferry.manifest import Backend, Migration
from memferry.manifest.binding import Binding
from memferry.manifest.binding_status import BindingStatus
from memferry.manifest.status import MigrationStatus
from memferry_operator import names
from memferry_operator.brain import times
from memferry_operator.brain.draft import TERMINAL
from memferry_operator.hands import read
from memferry_operator.hands.api import OURS, Api, owner, path
from memferry_operator.hands.bindings import binding_clients
from memferry_operator.observed import BindingState, Observed

__all__ = ["Seen", "observe", "observe_binding"]

_COORDINATION: Final = "coordination.k8s.io/v1"
_PLACE: Final = frozenset({"claimName", "path", "address", "collection", "database", "graphRef", "vectorsRef"})


@dataclass(frozen=True, slots=True)
class Seen:
    """What the brain sees, and what the hands need beside it.

    Attributes:
        raw: The resource as the API server gave it.
        raw_backends: The MemoryBackends as they were given, by name.
        mapping: The ConfigMap of the mapping.
        raw_binding: The MemoryBinding.
    """

    observed: Observed
    raw: Mapping[str, Any]
    raw_backends: Mapping[str, Mapping[str, Any]]
    mapping: Mapping[str, Any] | None
    raw_binding: Mapping[str, Any] | None


async def observe(api: Api, namespace: str, name: str, *, slot: bool) -> Seen | None:
    """Reads a migration and what belongs to it, None where there is none."""
    raw = await api.get(f"{OURS}/namespaces/{namespace}/memorymigrations/{name}")
    if raw is None:
        return None
    meta, told = raw["metadata"], raw.get("status") or {}
    newer = read.newer(raw)
    status = MigrationStatus() if newer else MigrationStatus.model_validate(told)
    invalid = read.problem(Migration, raw.get("spec"))
    spec = None if invalid else Migration.model_validate(raw["spec"])
    deleting = "deletionTimestamp" in meta
    bound_to = _bound_to(raw)
    if newer or (deleting and names.FINALIZER not in meta.get("finalizers", [])):
        spec, bound_to = None, ""
    backends, mapping, binding = await asyncio.gather(
        _backends(api, namespace, spec),
        _mapping(api, namespace, spec),
        _binding(api, namespace, bound_to),
    )
    # One that is over asks nothing more of its binding than to be let go.
    stopped = newer or (binding is not None and read.newer(binding[1]) and status.phase not in TERMINAL)
    # Before the finalizer and the first attempt there is nothing; a lost status has a finalizer and no phase.
    begun = names.FINALIZER in meta.get("finalizers", []) and not (status.phase == "Pending" and not status.attempt)
    owned = await _owned(api, namespace, name, meta["uid"], status, begun=begun, deleting=deleting, newer=newer)
    observed = Observed(
        name=name,
        namespace=namespace,
        uid=meta["uid"],
        generation=meta.get("generation", 0),
        resource_version=meta["resourceVersion"],
        spec=spec,
        status=status,
        invalid=invalid,
        newer_status=stopped,
        deleting=deleting,
        finalizer=names.FINALIZER in meta.get("finalizers", []),
        backends={n: Backend.model_validate(b["spec"]) for n, b in backends.items() if _valid(b)},
        unreachable={n: text for n, b in backends.items() if (text := read.unreachable(b))},
        mapping=spec is None or spec.mapping is None or _has_key(mapping, spec.mapping.config_map_ref.key),
        binding=binding[0] if binding else None,
        references=await _references(api, namespace, name, spec, status),
        slot=slot,
        ending=any(pod.deleting for pod in owned.get("pods", ())) and await api.ending(namespace),
        **owned,
    )
    return Seen(observed, raw, backends, mapping, binding[1] if binding else None)


def _valid(backend: Mapping[str, Any]) -> bool:
    return not read.problem(Backend, backend.get("spec"))


def _has_key(mapping: Mapping[str, Any] | None, key: str) -> bool:
    return mapping is not None and key in (mapping.get("data") or {})


async def _backends(api: Api, namespace: str, spec: Migration | None) -> dict[str, Mapping[str, Any]]:
    """The two ends, and the halves of those that have some."""
    found: dict[str, Mapping[str, Any]] = {}
    wanted = {spec.source.backend_ref.name, spec.target.backend_ref.name} if spec else set()
    while wanted:
        got = await asyncio.gather(*(api.get(f"{OURS}/namespaces/{namespace}/memorybackends/{n}") for n in wanted))
        found |= {one["metadata"]["name"]: one for one in got if one is not None}
        halves = [(one.get("spec") or {}).get(key) or {} for one in got if one for key in ("graphRef", "vectorsRef")]
        wanted = {half["name"] for half in halves if half.get("name")} - set(found)
    return found


async def _mapping(api: Api, namespace: str, spec: Migration | None) -> Mapping[str, Any] | None:
    if spec is None or spec.mapping is None:
        return None
    return await api.get(path("v1", "configmaps", namespace, spec.mapping.config_map_ref.name))


def _bound_to(raw: Mapping[str, Any]) -> str:
    """Name of the MemoryBinding, empty where there is none; also of a spec that nobody can read: it may have frozen."""
    part: Any = raw.get("spec")
    for key in ("cutover", "bindingRef", "name"):
        part = part.get(key) if isinstance(part, Mapping) else None
    return part if isinstance(part, str) else ""


async def _binding(api: Api, namespace: str, name: str) -> tuple[BindingState, Mapping[str, Any]] | None:
    return await observe_binding(api, namespace, name) if name else None


async def observe_binding(api: Api, namespace: str, name: str) -> tuple[BindingState, Mapping[str, Any]] | None:
    """Reads a binding and its clients."""
    raw = await api.get(f"{OURS}/namespaces/{namespace}/memorybindings/{name}")
    if raw is None or read.problem(Binding, raw.get("spec")):
        return None
    spec = Binding.model_validate(raw["spec"])
    told = BindingStatus() if read.newer(raw) else BindingStatus.model_validate(raw.get("status") or {})
    lock = told.locked_by
    state = BindingState(
        name=name,
        uid=raw["metadata"]["uid"],
        resource_version=raw["metadata"]["resourceVersion"],
        spec=spec,
        active=told.active,
        revision=told.revision,
        mode=told.mode,
        frozen_until=times.instant(told.frozen_until),
        locked_by_uid=lock.uid if lock else "",
        locked_by_name=lock.name if lock else "",
        status=raw.get("status") or {},
        clients=await binding_clients(api, namespace, name, spec, told),
    )
    return state, raw


async def _owned(
    api: Api,
    namespace: str,
    name: str,
    uid: str,
    status: MigrationStatus,
    *,
    begun: bool,
    deleting: bool,
    newer: bool,
) -> dict[str, Any]:
    """Jobs, pods, Leases, results, command; nothing where there cannot be any."""
    if newer or (not deleting and not begun):
        return {}
    by = f"{names.MIGRATION}={name}"
    # The Jobs first: what a worker said before its Job ended is read after it is seen to have ended.
    jobs = await api.list(path("batch/v1", "jobs", namespace), by)
    pods, leases, command, results = await asyncio.gather(
        api.list(path("v1", "pods", namespace), by),
        api.list(path(_COORDINATION, "leases", namespace), by),
        api.get(path("v1", "configmaps", namespace, names.control(name))),
        api.get(path("v1", "secrets", namespace, names.result(name))) if _reads_results(status) else _none(),
    )
    ours = [job for job in jobs if owner(job) == uid]
    whose = {uid, *(job["metadata"]["uid"] for job in ours)}
    return {
        "jobs": tuple(j for j in map(read.job, ours) if j),
        # A pod outlives its Job: where that was deleted by others, or a node is lost.
        "pods": tuple(p for p in map(read.pod, (pod for pod in pods if whose & {owner(pod), _said(pod)})) if p),
        "leases": {one.name: one for one in map(read.worker_lease, (one for one in leases if owner(one) == uid))},
        "command": read.command(((command or {}).get("data") or {}).get("command")) if owner(command) == uid else None,
        "results": read.results(results) if owner(results) == uid else {},
    }


def _reads_results(status: MigrationStatus) -> bool:
    return status.phase not in TERMINAL and status.phase not in {"BulkTransfer", "TrafficSwitch", "Monitoring"}


def _said(pod: Mapping[str, Any]) -> str:
    """Which migration a pod is of, as its template says."""
    return str((pod["metadata"].get("labels") or {}).get(names.UID, ""))


async def _none() -> None:
    return None


async def _references(
    api: Api,
    namespace: str,
    name: str,
    spec: Migration | None,
    status: MigrationStatus,
) -> tuple[str, ...]:
    """Who else uses the source; only asked for before something is deleted from it."""
    if spec is None or status.phase != "Decommission" or spec.decommission.policy != "Delete":
        return ()
    ours, found = f"{OURS}/namespaces/{namespace}", list[str]()
    backends = {one["metadata"]["name"]: one for one in await api.list(f"{ours}/memorybackends", "")}
    store = _of_one_store(spec.source.backend_ref.name, backends)
    for one in await api.list(f"{ours}/memorymigrations", ""):
        over = (one.get("status") or {}).get("phase") in TERMINAL
        if store & set(read.ends(one["spec"])) and one["metadata"]["name"] != name and not over:
            found.append(f"MemoryMigration {one['metadata']['name']}")
    for one in await api.list(f"{ours}/memorybindings", ""):
        # One whose status is being made again may serve from where it began.
        serves = (one.get("status") or {}).get("active") or one["spec"]["initialBackendRef"]["name"]
        if serves in store:
            found.append(f"MemoryBinding {one['metadata']['name']}")
    found += [
        f"MemoryBackend {whole}" for whole, one in backends.items() if whole not in store and store & _halves(one)
    ]
    return tuple(sorted(found))


def _of_one_store(source: str, backends: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """The MemoryBackends behind which the source is, or a half of it: two may name one store."""
    parts = [backends[name] for name in (source, *_halves(backends.get(source, {}))) if name in backends]
    wanted = {sign for one in parts for sign in _signs(one)}
    return {source, *(name for name, one in backends.items() if wanted & _signs(one))}


def _halves(backend: Mapping[str, Any]) -> set[str]:
    spec = backend.get("spec") or {}
    return {name for key in ("graphRef", "vectorsRef") if (name := (spec.get(key) or {}).get("name"))}


def _signs(backend: Mapping[str, Any]) -> set[str]:
    """What says which store it is: what its probe has found, and where it is."""
    place = {key: value for key, value in (backend.get("spec") or {}).items() if key in _PLACE}
    identity = (backend.get("status") or {}).get("storeIdentity") or ""
    return {sign for sign in (identity, json.dumps(place, sort_keys=True) if place else "") if sign}
