"""Everything beside Jobs that a migration's workers need, owned by the migration."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from typing import Any

from memferry_operator import names
from memferry_operator.names import GROUP, VERSION
from memferry_operator.observed import Command

__all__ = ["clean", "control", "document", "event", "leases", "manifest", "owner", "result", "rights"]

Object = dict[str, Any]


def owner(name: str, uid: str, kind: str = "MemoryMigration") -> Object:
    """A resource of ours as the owner of something.

    Its deletion is held up by our finalizer, not by what it owns: `blockOwnerDeletion` is a right of its own in some
    clusters (OwnerReferencesPermissionEnforcement).
    """
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": kind,
        "name": name,
        "uid": uid,
        "controller": True,
    }


def _object(
    api_version: str, kind: str, name: str, migration: str, owned_by: Object, role: str | None = None
) -> Object:
    meta = {"name": name, "labels": names.labels(migration, role), "ownerReferences": [owned_by]}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta}


def rights(migration: str, owned_by: Object, *, shards: int) -> tuple[Object, Object, Object]:
    """Account, Role and RoleBinding of the workers: exactly their own objects, by name."""
    account = names.account(migration)
    held = [names.lease(migration, role) for role in ("plan", "verify", "switch", "retire")]
    held += [names.shard(migration, index) for index in range(shards)]
    rules = [
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": held,
            "verbs": ["get", "patch"],
        },
        {"apiGroups": [""], "resources": ["secrets"], "resourceNames": [names.result(migration)], "verbs": ["patch"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": [names.control(migration)], "verbs": ["get"]},
    ]
    rbac = "rbac.authorization.k8s.io/v1"
    role = _object(rbac, "Role", account, migration, owned_by) | {"rules": rules}
    bound = _object(rbac, "RoleBinding", account, migration, owned_by) | {
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
        "subjects": [{"kind": "ServiceAccount", "name": account}],
    }
    return _object("v1", "ServiceAccount", account, migration, owned_by), role, bound


def leases(migration: str, owned_by: Object, *, shards: int) -> list[Object]:
    """Leases of all workers, made before them: their rights are by name."""
    found = []
    for role in ("plan", "verify", "switch", "retire"):
        lease = names.lease(migration, role)
        found.append(_object("coordination.k8s.io/v1", "Lease", lease, migration, owned_by, role))
    for index in range(shards):
        lease = names.shard(migration, index)
        found.append(_object("coordination.k8s.io/v1", "Lease", lease, migration, owned_by, "transfer"))
    return found


def result(migration: str, owned_by: Object) -> Object:
    """The Secret that workers leave their results in; it may hold ids, so it is one."""
    return _object("v1", "Secret", names.result(migration), migration, owned_by)


def control(migration: str, owned_by: Object, command: Command | None) -> Object:
    """The ConfigMap with the switch worker's command."""
    found = _object("v1", "ConfigMap", names.control(migration), migration, owned_by)
    if command is not None:
        said = {
            "frozenUntil" if key == "frozen_until" else key: value
            for key, value in dataclasses.asdict(command).items()
            if value is not None
        }
        found["data"] = {"command": json.dumps(said, separators=(",", ":"))}
    return found


def manifest(
    migration: Mapping[str, Any],
    backends: Mapping[str, Mapping[str, Any]],
    mapping: Mapping[str, Any] | None,
    owned_by: Object,
    attempt: int,
) -> Object:
    """The manifest of an attempt, pinned: what is edited later is for the next one."""
    name = migration["metadata"]["name"]
    parts = [clean(migration), *(clean(backends[key]) for key in sorted(backends))]
    if mapping is not None:
        parts.append({**clean(mapping), "data": mapping.get("data") or {}})
    found = _object("v1", "ConfigMap", names.manifest(name, attempt), name, owned_by)
    return found | {"data": document(parts), "immutable": True}


def document(parts: Iterable[Object]) -> dict[str, str]:
    """Resources as the file that a worker reads."""
    return {"migration.yaml": "".join(f"---\n{json.dumps(one, indent=1, ensure_ascii=False)}\n" for one in parts)}


def clean(found: Mapping[str, Any]) -> Object:
    """A resource as a file has it: without what the cluster added."""
    meta = {key: found["metadata"][key] for key in ("name", "namespace") if key in found["metadata"]}
    cleaned: Object = {
        "apiVersion": found.get("apiVersion", "v1"),
        "kind": found.get("kind", "ConfigMap"),
        "metadata": meta,
    }
    if "spec" in found:
        cleaned["spec"] = found["spec"]
    return cleaned


def event(
    about: Mapping[str, Any], kind: str, reason: str, message: str, *, reporter: str, at: str, number: str
) -> Object:
    """An Event about a resource."""
    meta = about["metadata"]
    return {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{meta['name']}.{number}", "namespace": meta["namespace"]},
        "eventTime": at.replace("Z", "000Z") if at.count(".") else at,
        "type": kind,
        "reason": reason,
        "note": message[:1024],
        "action": reason,
        "reportingController": names.MANAGER,
        "reportingInstance": reporter,
        "regarding": {
            "apiVersion": f"{GROUP}/{VERSION}",
            "kind": "MemoryMigration",
            "name": meta["name"],
            "namespace": meta["namespace"],
            "uid": meta["uid"],
        },
    }
