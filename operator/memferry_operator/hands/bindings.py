"""Looks at a MemoryBinding, and does what `memferry_operator.bindings` asks for."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from memferry.manifest import Backend
from memferry.manifest.model import Binding
from memferry.manifest.protocol import binding_secret_name
from memferry.manifest.status import STATUS_VERSION, BindingStatus
from memferry_operator import names
from memferry_operator.bindings import (
    RESTARTED_FOR,
    BindingAction,
    BindingSeen,
    FlagNewerBinding,
    HoldBinding,
    Journal,
    ReadJournal,
    ReleaseBinding,
    Restart,
    User,
    WriteBindingStatus,
    WriteSecret,
    clients,
    plan_binding,
)
from memferry_operator.hands import read
from memferry_operator.hands.api import OURS, Api, path
from memferry_operator.names import GROUP, VERSION

__all__ = ["Workloads", "binding_clients", "look_at_binding"]

log = logging.getLogger(__name__)

_PLURALS: Final = {"Deployment": "deployments", "StatefulSet": "statefulsets", "DaemonSet": "daemonsets"}
Workloads = Mapping[tuple[str, str], Mapping[str, Any]]
_Object = Mapping[str, Any]


@dataclass
class _Texts:
    """Secrets and ConfigMaps that were read by name, for `Lookup`."""

    found: dict[tuple[str, str], Mapping[str, str]] = field(default_factory=dict)

    def __call__(self, kind: Literal["Secret", "ConfigMap"], name: str, key: str) -> str | None:
        text = self.found.get((kind, name), {}).get(key)
        return base64.b64decode(text).decode() if text is not None and kind == "Secret" else text


async def workloads(api: Api, namespace: str, spec: Binding) -> dict[tuple[str, str], _Object]:
    """What `spec.restart` names, as far as it is there."""
    found: dict[tuple[str, str], _Object] = {}
    for one in spec.restart:
        got = await api.get(path("apps/v1", _PLURALS[one.kind], namespace, one.name))
        if got is not None:
            found[one.kind, one.name] = got
    return found


async def binding_clients(api: Api, namespace: str, name: str, spec: Binding, status: BindingStatus) -> Any:
    """Who has to acknowledge; read after the binding."""
    selector = ",".join(f"{key}={value}" for key, value in spec.clients.selector.items())
    leases = await api.list(path("coordination.k8s.io/v1", "leases", namespace), f"{names.BINDING}={name}")
    pods = await api.list(path("v1", "pods", namespace), selector) if selector else []
    there = await workloads(api, namespace, spec)
    return clients(spec, pods, leases, datetime.now(UTC), there, status)


async def look_at_binding(api: Api, namespace: str, name: str) -> bool:
    """One look; whether the binding is there.

    Raises:
        ApiError: Something could not be done; 409 where what was seen no longer stands.
    """
    raw = await api.get(f"{OURS}/namespaces/{namespace}/memorybindings/{name}")
    if raw is None:
        return False
    if problem := read.problem(Binding, raw.get("spec")):
        log.warning("a MemoryBinding cannot be read: %s", problem, extra={"namespace": namespace, "binding": name})
        return True
    seen, texts = await _see(api, namespace, name, raw)
    for action in plan_binding(seen, texts, datetime.now(UTC)):
        await _do(api, namespace, raw, action)
    return True


async def _see(api: Api, namespace: str, name: str, raw: _Object) -> tuple[BindingSeen, _Texts]:
    meta, spec, told = raw["metadata"], Binding.model_validate(raw["spec"]), raw.get("status") or {}
    status = BindingStatus.model_validate(told)
    ours = f"{OURS}/namespaces/{namespace}"
    backends, migrations, secret, expected, there = await asyncio.gather(
        api.list(f"{ours}/memorybackends", ""),
        api.list(f"{ours}/memorymigrations", ""),
        api.get(path("v1", "secrets", namespace, binding_secret_name(name))),
        binding_clients(api, namespace, name, spec, status),
        workloads(api, namespace, spec),
    )
    known = {b["metadata"]["name"]: Backend.model_validate(b["spec"]) for b in backends if not _broken(b)}
    texts = await _texts(api, namespace, known, status.active)
    data = {key: base64.b64decode(text).decode() for key, text in (secret or {}).get("data", {}).items()}
    seen = BindingSeen(
        name=name,
        generation=meta.get("generation", 0),
        spec=spec,
        status=status,
        newer_status=int(told.get("statusVersion") or 0) > STATUS_VERSION,
        deleting="deletionTimestamp" in meta,
        finalizer=names.FINALIZER in meta.get("finalizers", []),
        backends=known,
        journals=_journals(known, data),
        migrations=tuple(_user(one) for one in migrations if _names(one, name)),
        clients=expected,
        secret=None if secret is None else data,
        workloads=there,
    )
    return seen, texts


def _broken(backend: _Object) -> bool:
    return bool(read.problem(Backend, backend.get("spec")))


def _names(migration: _Object, binding: str) -> bool:
    reference = ((migration.get("spec") or {}).get("cutover") or {}).get("bindingRef") or {}
    return bool(reference.get("name") == binding)


def _user(migration: _Object) -> User:
    meta, phase = migration["metadata"], (migration.get("status") or {}).get("phase") or ""
    return User("MemoryMigration", meta["name"], meta["uid"], phase, meta.get("creationTimestamp", ""))


def _journals(known: Mapping[str, Backend], secret: Mapping[str, str]) -> dict[str, Journal | None]:
    """What is known of changes made before this binding had a status: its Secret is never collected and says so.

    In a cluster in which the Secret is not, the binding begins at `spec.initialBackendRef`.
    """
    journals: dict[str, Journal | None] = dict.fromkeys(known)
    active, revision, mode = secret.get("active", ""), secret.get("revision", ""), secret.get("mode")
    if active and revision.isdigit():
        said = Journal(active, int(revision), "Frozen" if mode == "Frozen" else "Serving")
        journals |= dict.fromkeys(known, said)
    return journals


async def _texts(api: Api, namespace: str, known: Mapping[str, Backend], active: str) -> _Texts:
    """Everything the active backend refers to, by name."""
    texts, wanted = _Texts(), set[tuple[Literal["Secret", "ConfigMap"], str]]()
    backend = known.get(active)
    parts = [backend, *(known.get(r.name) for r in (backend.graph_ref, backend.vectors_ref) if r)] if backend else []
    for part in parts:
        if part is None:
            continue
        wanted |= {("Secret", c.secret_ref.name) for c in (part.api_key, part.password) if c and c.secret_ref}
        authority = part.tls.ca if part.tls else None
        if authority and authority.secret_ref:
            wanted.add(("Secret", authority.secret_ref.name))
        if authority and authority.config_map_ref:
            wanted.add(("ConfigMap", authority.config_map_ref.name))
    for kind, name in wanted:
        found = await api.get(path("v1", "secrets" if kind == "Secret" else "configmaps", namespace, name))
        texts.found[kind, name] = (found or {}).get("data") or {}
    return texts


async def _do(api: Api, namespace: str, raw: _Object, action: BindingAction) -> None:
    meta = raw["metadata"]
    where = f"{OURS}/namespaces/{namespace}/memorybindings/{meta['name']}"
    match action:
        case HoldBinding():
            await _finalizers(api, where, meta, [*meta.get("finalizers", []), names.FINALIZER])
        case ReleaseBinding():
            left = [one for one in meta.get("finalizers", []) if one != names.FINALIZER]
            await _finalizers(api, where, meta, left)
        case WriteBindingStatus(status):
            await _put(api, where, raw, status.to_json())
        case WriteSecret(data):
            await _secret(api, namespace, meta["name"], data)
        case Restart(kind, workload, revision):
            template = {"metadata": {"annotations": {RESTARTED_FOR: str(revision)}}}
            body = {"spec": {"template": template}}
            await api.merge(path("apps/v1", _PLURALS[kind], namespace, workload), body)
        case FlagNewerBinding() | ReadJournal():
            log.warning(
                "left alone: %s", type(action).__name__, extra={"namespace": namespace, "binding": meta["name"]}
            )


async def _finalizers(api: Api, where: str, meta: _Object, wanted: list[str]) -> None:
    await api.merge(where, {"metadata": {"finalizers": wanted, "resourceVersion": meta["resourceVersion"]}})


async def _put(api: Api, where: str, raw: _Object, status: dict[str, Any]) -> None:
    meta = {key: raw["metadata"][key] for key in ("name", "namespace", "uid", "resourceVersion")}
    head = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "MemoryBinding", "metadata": meta, "spec": raw["spec"]}
    await api.request("PUT", f"{where}/status", {**head, "status": status}, params={"fieldManager": names.MANAGER})


async def _secret(api: Api, namespace: str, binding: str, data: Mapping[str, str]) -> None:
    """Owned by nobody: an application that was started with it outlives the binding."""
    name = binding_secret_name(binding)
    labels = {names.MANAGED_BY: names.MANAGER, names.BINDING: binding}
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": labels},
        "data": {key: base64.b64encode(text.encode()).decode() for key, text in data.items()},
    }
    await api.apply(path("v1", "secrets", namespace, name), body)
