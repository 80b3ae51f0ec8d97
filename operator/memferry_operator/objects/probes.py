"""Everything that a MemoryBackend is probed with, owned by it: account, rights, result, manifest, Job."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from memferry.manifest import Backend
from memferry_operator import names
from memferry_operator.backend import PROBE_SECS, StartProbe
from memferry_operator.objects import owned, pods
from memferry_operator.settings import Settings

__all__ = ["KEY", "job", "manifest", "result", "rights"]

Object = dict[str, Any]

KEY = "probe.json"
"""In the result Secret."""


def _object(api_version: str, kind: str, backend: str, owned_by: Object) -> Object:
    meta = {"name": names.probe(backend), "labels": _labels(backend), "ownerReferences": [owned_by]}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta}


def _labels(backend: str) -> dict[str, str]:
    return {names.MANAGED_BY: names.MANAGER, names.ROLE: "probe", names.BACKEND: backend}


def rights(backend: str, owned_by: Object) -> tuple[Object, Object, Object]:
    """Account, Role and RoleBinding: a probe writes its result, and nothing else."""
    name, rbac = names.probe(backend), "rbac.authorization.k8s.io/v1"
    rule = {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["patch"]}
    role = _object(rbac, "Role", backend, owned_by) | {"rules": [rule]}
    bound = _object(rbac, "RoleBinding", backend, owned_by) | {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name}],
    }
    return _object("v1", "ServiceAccount", backend, owned_by), role, bound


def result(backend: str, owned_by: Object) -> Object:
    """The Secret that a probe leaves its result in."""
    return _object("v1", "Secret", backend, owned_by)


def manifest(backend: str, parts: Iterable[Mapping[str, Any]], owned_by: Object) -> Object:
    """The MemoryBackend and what it is made of, as a probe reads them."""
    data = owned.document([owned.clean(part) for part in parts])
    return _object("v1", "ConfigMap", backend, owned_by) | {"data": data}


def job(
    backend: str, action: StartProbe, *, backends: Collection[Backend], owned_by: Object, settings: Settings
) -> Object:
    """The Job of a probe: one pod, one try; the next one is the operator's to make."""
    labels, name = _labels(backend), names.probe(backend)
    found = _object("batch/v1", "Job", backend, owned_by)
    found["metadata"]["annotations"] = {names.PROBE: action.number}
    claims = [ask.state_claim for ask in action.asked.values() if ask.state_claim]
    asked = {binding: ask.since for binding, ask in action.asked.items()}
    environment = {
        "MEMFERRY_RESULT": name,
        "MEMFERRY_PROBE": action.number,
        "MEMFERRY_JOURNALS": json.dumps(asked, sort_keys=True),
    }
    pod = pods.pod(
        "probe",
        account=name,
        manifest=name,
        backends=backends,
        state_claim=claims[0] if claims else None,
        environment=environment,
        settings=settings,
    )
    spec = {"backoffLimit": 0, "activeDeadlineSeconds": PROBE_SECS, "template": {"metadata": {"labels": labels}}}
    spec["template"]["spec"] = pod  # type: ignore[index]
    return found | {"spec": spec}
