"""Looks at a MemoryBinding, and does what `memferry_operator.binding` asks for."""

from __future__ import annotations

import asyncio
import base64
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final, Literal

from memferry.manifest import Backend
from memferry.manifest.binding import Binding
from memferry.manifest.binding_status import BindingStatus
from memferry.manifest.protocol import binding_secret_name
from memferry_operator import names
from memferry_operator.actions import AddFinalizer, FlagNewerStatus, RemoveFinalizer
from memferry_operator.backend import Ask, answered
from memferry_operator.binding import (
    BindingAction,
    BindingSeen,
    Journal,
    ReadJournal,
    Restart,
    Unread,
    WriteBindingStatus,
    WriteSecret,
    plan_binding,
)
from memferry_operator.clients import RESTARTED_FOR, clients
from memferry_operator.hands import read
from memferry_operator.hands.api import OURS, Api, path
from memferry_operator.hands.backends import probed
from memferry_operator.objects.references import references
from memferry_operator.observed import User

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
    started = {key: await api.list(path("v1", "pods", namespace), _selector(one)) for key, one in there.items()}
    return clients(spec, pods, leases, datetime.now(UTC), there, started, status)


def _selector(workload: _Object) -> str:
    """The selector of a workload, as a query has it."""
    selector = workload["spec"]["selector"]
    found = [f"{key}={value}" for key, value in (selector.get("matchLabels") or {}).items()]
    for one in selector.get("matchExpressions") or []:
        key, values = one["key"], ",".join(one.get("values") or [])
        words = {
            "Exists": key,
            "DoesNotExist": f"!{key}",
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
        }
        found.append(words[one["operator"]])
    return ",".join(found)


async def look_at_binding(api: Api, namespace: str, name: str, check: Callable[[], None]) -> dict[str, Ask] | None:
    """One look; the MemoryBackends whose journal it waits for, None where there is no such binding.

    Args:
        api: The API server.
        namespace: Where.
        name: The binding.
        check: Called before every write; raises where another operator may lead.

    Raises:
        ApiError: Something could not be done; 409 where what was seen no longer stands.
    """
    raw = await api.get(f"{OURS}/namespaces/{namespace}/memorybindings/{name}")
    if raw is None:
        return None
    if problem := read.problem(Binding, raw.get("spec")):
        log.warning("a MemoryBinding cannot be read: %s", problem, extra={"namespace": namespace, "binding": name})
        return {}
    seen, texts, secret = await _see(api, namespace, name, raw)
    asked: dict[str, Ask] = {}
    for action in await _planned(api, namespace, seen, texts):
        if isinstance(action, ReadJournal):
            asked[action.backend] = Ask(action.since, action.state_claim)
        else:
            check()
            await _do(api, namespace, raw, seen, secret, action)
    return asked


async def _planned(api: Api, namespace: str, seen: BindingSeen, texts: _Texts) -> list[BindingAction]:
    """What is to be done, with the journals that probes have read meanwhile: one may lead to the next."""
    while True:
        actions = plan_binding(seen, texts, datetime.now(UTC))
        found: dict[str, Journal | Unread | None] = {}
        for action in actions:
            if isinstance(action, ReadJournal) and action.backend not in seen.journals:
                told = answered(await probed(api, namespace, action.backend), seen.name, action.since)
                if told is not None:
                    found[action.backend] = _journal(told)
        if not found:
            return actions
        seen = replace(seen, journals={**seen.journals, **found})


def _journal(told: _Object) -> Journal | Unread | None:
    """What a probe said of a journal."""
    if error := told.get("error"):
        return Unread(f"{error.get('code')}: {error.get('message')}")
    entry = told.get("journal")
    if entry is None:
        return None
    mode: Literal["Serving", "Frozen"] = "Frozen" if entry["mode"] == "Frozen" else "Serving"
    return Journal(str(entry["active"]), int(entry["revision"]), mode, entry.get("frozenUntil"))


async def _see(api: Api, namespace: str, name: str, raw: _Object) -> tuple[BindingSeen, _Texts, _Object | None]:
    """Everything of a binding, what its backends refer to, and its Secret."""
    meta, spec, told = raw["metadata"], Binding.model_validate(raw["spec"]), raw.get("status") or {}
    status = BindingStatus() if read.newer(raw) else BindingStatus.model_validate(told)
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
        newer_status=read.newer(raw),
        deleting="deletionTimestamp" in meta,
        finalizer=names.FINALIZER in meta.get("finalizers", []),
        backends=known,
        migrations=tuple(_user(one) for one in migrations if _names(one, name)),
        clients=expected,
        secret=None if secret is None else data,
        workloads=there,
    )
    return seen, texts, secret


def _broken(backend: _Object) -> bool:
    return bool(read.problem(Backend, backend.get("spec")))


def _names(migration: _Object, binding: str) -> bool:
    reference = ((migration.get("spec") or {}).get("cutover") or {}).get("bindingRef") or {}
    return bool(reference.get("name") == binding)


def _user(migration: _Object) -> User:
    meta, spec = migration["metadata"], migration.get("spec") or {}
    return User(
        "MemoryMigration",
        meta["name"],
        meta["uid"],
        (migration.get("status") or {}).get("phase") or "",
        read.ends(spec),
        (spec.get("transfer") or {}).get("stateClaimName") or "",
    )


async def _texts(api: Api, namespace: str, known: Mapping[str, Backend], active: str) -> _Texts:
    """Everything the active backend refers to, by name."""
    texts, backend = _Texts(), known.get(active)
    refs = [backend.graph_ref, backend.vectors_ref] if backend else []
    parts = [backend, *(known.get(ref.name) for ref in refs if ref)]
    wanted = {(one.kind, one.name) for one in references(part for part in parts if part is not None)}
    for kind, name in wanted:
        found = await api.get(path("v1", "secrets" if kind == "Secret" else "configmaps", namespace, name))
        texts.found[kind, name] = (found or {}).get("data") or {}
    return texts


async def _do(
    api: Api, namespace: str, raw: _Object, seen: BindingSeen, secret: _Object | None, action: BindingAction
) -> None:
    meta = raw["metadata"]
    where = f"{OURS}/namespaces/{namespace}/memorybindings/{meta['name']}"
    match action:
        case AddFinalizer():
            await _finalizers(api, where, meta, [*meta.get("finalizers", []), names.FINALIZER])
        case RemoveFinalizer():
            left = [one for one in meta.get("finalizers", []) if one != names.FINALIZER]
            await _finalizers(api, where, meta, left)
        case WriteBindingStatus(status):
            await api.put_status("memorybindings", raw, status.to_json())
        case WriteSecret(data):
            await _secret(api, namespace, meta["name"], secret, data)
        case Restart(kind, workload, revision):
            template = {"metadata": {"annotations": {RESTARTED_FOR: str(revision)}}}
            version = seen.workloads[kind, workload]["metadata"]["resourceVersion"]
            body = {"metadata": {"resourceVersion": version}, "spec": {"template": template}}
            await api.merge(path("apps/v1", _PLURALS[kind], namespace, workload), body)
        case FlagNewerStatus() | ReadJournal():
            log.warning(
                "left alone: %s", type(action).__name__, extra={"namespace": namespace, "binding": meta["name"]}
            )


async def _finalizers(api: Api, where: str, meta: _Object, wanted: list[str]) -> None:
    await api.merge(where, {"metadata": {"finalizers": wanted, "resourceVersion": meta["resourceVersion"]}})


async def _secret(api: Api, namespace: str, binding: str, found: _Object | None, data: Mapping[str, str]) -> None:
    """By compare-and-swap: an operator that was stopped writes nothing over what the next one wrote meanwhile.

    Owned by nobody: an application that was started with it outlives the binding.
    """
    name = binding_secret_name(binding)
    meta = {"name": name, "labels": {names.MANAGED_BY: names.MANAGER, names.BINDING: binding}}
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    if found is None:
        made = {"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": encoded}
        await api.request("POST", path("v1", "secrets", namespace), made)
        return
    gone = dict.fromkeys(set(found.get("data") or {}) - set(data))
    body = {
        "metadata": {**meta, "resourceVersion": found["metadata"]["resourceVersion"]},
        "data": {**gone, **encoded},
    }
    await api.merge(path("v1", "secrets", namespace, name), body)
