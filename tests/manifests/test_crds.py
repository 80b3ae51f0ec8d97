"""The definitions: files and models agree, everything is bounded, and a status comes back as it was written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from memferry.manifest.backend_status import BackendStatus
from memferry.manifest.binding_status import BindingStatus
from memferry.manifest.crd import crds
from memferry.manifest.status import MigrationStatus
from support.chart_files import CRD_FILES
from support.cli import memferry
from support.definitions import served
from support.manifest_table import backend, binding, migration
from testbed.kubernetes.api_tier import ApiTier

NOW = "2026-01-31T22:00:00Z"
CONDITION = {"type": "Ready", "status": "False", "reason": "Copying", "message": "m", "lastTransitionTime": NOW}

MIGRATION_STATUS: dict[str, Any] = {
    "observedGeneration": 2,
    "statusVersion": 1,
    "phase": "TrafficSwitch",
    "reason": "Freezing",
    "attempt": 1,
    "startedAt": NOW,
    "completedAt": NOW,
    "plan": {
        "hash": "blake3:ab",
        "secretRef": {"name": "m-result", "key": "plan.json"},
        "records": 1 << 40,
        "sizeBytes": 5,
        "shards": 3,
        "changes": "log",
        "wayBack": True,
    },
    "approval": {"token": "t", "for": "Cutover"},
    "progress": {"read": 5, "written": 4, "quarantined": 1, "total": 9, "percent": 55, "recordsPerSecond": 7}
    | {"etaSecs": 9, "summary": "55 %"},
    "shards": {"total": 3, "succeeded": 1, "active": 1, "failed": 0, "replaced": 1},
    "sync": {"pass": 2, "direction": "Forward", "changed": 3, "deleted": 1, "passSecs": 0.5, "verifySecs": 1.25}
    | {"predictedFreezeSecs": 2.5, "growing": 0},
    "traffic": {"active": "a", "revision": 3, "mode": "Frozen", "step": "Freezing", "direction": "Back", "sequence": 4}
    | {"command": "FinalPass", "acked": 1, "expected": 2, "frozenUntil": NOW, "frozenAt": NOW, "switchedAt": NOW}
    | {"writeFreezeMillis": 900, "returns": 1, "returnedAt": NOW, "stepAt": NOW, "home": "a", "heard": NOW},
    "validation": {"compared": 9, "missing": 0, "extra": 0, "different": 0, "foreign": 2}
    | {"reportRef": {"name": "m-result", "key": "verify.json"}},
    "monitoring": {"failures": 1, "checkedAt": NOW, "strayWrites": 0, "clientErrors": 2, "recall": 0.9, "problem": ""},
    "handled": {"retryToken": "1", "operationToken": "2", "suspended": False},
    "history": [{"phase": "Pending", "startedAt": NOW, "completedAt": NOW, "attempt": 1, "message": "planned"}],
    "conditions": [CONDITION | {"observedGeneration": 2}],
}
BACKEND_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "statusVersion": 1,
    "reachable": True,
    "serverVersion": "5.26",
    "storeIdentity": "id",
    "records": 4,
    "counts": {"entity": 1, "memory": 1, "observation": 1, "relation": 1},
    "changes": "scan",
    "capabilities": ["write", "vector-search"],
    "users": [{"kind": "MemoryMigration", "name": "m"}, {"kind": "MemoryBinding", "name": "m"}],
    "checkedAt": NOW,
    "failures": 0,
    "conditions": [CONDITION],
}
BINDING_STATUS: dict[str, Any] = {
    "observedGeneration": 1,
    "statusVersion": 1,
    "active": "a",
    "revision": 7,
    "mode": "Frozen",
    "frozenUntil": NOW,
    "lockedBy": {"uid": "u", "name": "m"},
    "binding": {"name": "memferry-binding-row"},
    "clients": {"expected": 2, "acknowledged": 1},
    "conditions": [CONDITION],
}
STATUSES: dict[str, tuple[dict[str, Any], dict[str, Any], type[MigrationStatus | BackendStatus | BindingStatus]]] = {
    "MemoryMigration": (migration(), MIGRATION_STATUS, MigrationStatus),
    "MemoryBackend": (backend("embedded, path: a.db"), BACKEND_STATUS, BackendStatus),
    "MemoryBinding": (binding(), BINDING_STATUS, BindingStatus),
}


def test_the_files_of_the_chart_are_what_the_models_say(tmp_path: Path) -> None:
    for path, content in CRD_FILES.items():
        assert path.read_text("utf-8") == content, "run `python tests/support/chart_files.py`"
    assert set(next(iter(CRD_FILES)).parent.iterdir()) == set(CRD_FILES)
    done = memferry(tmp_path, "manifest", "crds")
    assert done.returncode == 0
    assert list(yaml.safe_load_all(done.stdout)) == crds()


def _schemas(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, one in schema.get("properties", {}).items():
        yield from _schemas(one, f"{path}.{name}")
    for name in ("items", "additionalProperties"):
        if name in schema:
            yield from _schemas(schema[name], f"{path}.{name}")


@pytest.mark.parametrize("definition", crds(), ids=lambda one: str(one["spec"]["names"]["kind"]))
def test_everything_is_bounded(definition: dict[str, Any]) -> None:
    [version] = definition["spec"]["versions"]
    root = version["schema"]["openAPIV3Schema"]
    assert "preserve-unknown-fields" not in json.dumps(root)
    for end in ("spec", "status"):
        for path, schema in _schemas(root["properties"][end], end):
            kind = schema["type"]
            assert "description" in schema or path.endswith(("items", "additionalProperties")), path
            if kind == "string":
                assert {"maxLength", "enum"} & set(schema), path
            elif kind == "array":
                assert {"maxItems", "x-kubernetes-list-type"} <= set(schema), path
            elif kind == "object":
                assert {"properties", "maxProperties"} & set(schema), path
            elif kind != "boolean":
                assert {"minimum", "maximum"} <= set(schema), path
    columns = version["additionalPrinterColumns"]
    assert len([column for column in columns if not column.get("priority")]) <= 8
    size = len(json.dumps(definition))
    assert size < 262_144, "kubectl apply keeps the whole of it in an annotation"


@pytest.mark.parametrize("kind", STATUSES)
def test_a_status_comes_back_as_it_was_written(api_tier: ApiTier, kubernetes_namespace: str, kind: str) -> None:
    resource, status, model = STATUSES[kind]
    client = api_tier.client
    served(api_tier)
    made = client.create({**resource, "metadata": {"name": "row", "namespace": kubernetes_namespace}})
    assert "status" not in made
    done = client.replace({**made, "status": status}, subresource="status")
    assert done["status"] == status
    assert model.model_validate(done["status"]).to_json() == status
    assert set(model.model_json_schema()["properties"]) == set(status), "every field is tried"


@pytest.mark.parametrize("kind", STATUSES)
def test_the_least_status_is_taken(api_tier: ApiTier, kubernetes_namespace: str, kind: str) -> None:
    resource, _, model = STATUSES[kind]
    client = api_tier.client
    served(api_tier)
    made = client.create({**resource, "metadata": {"name": "row", "namespace": kubernetes_namespace}})
    done = client.replace({**made, "status": model().to_json()}, subresource="status")
    assert done["status"]["statusVersion"] == 1


def test_what_a_table_shows(api_tier: ApiTier, kubernetes_namespace: str) -> None:
    client = api_tier.client
    served(api_tier)
    made = client.create({**migration(), "metadata": {"name": "row", "namespace": kubernetes_namespace}})
    client.replace({**made, "status": MIGRATION_STATUS}, subresource="status")
    shown = api_tier.kubectl("get", "memmig", "-n", kubernetes_namespace)
    assert shown.split()[:8] == ["NAME", "PHASE", "REASON", "PERCENT", "RATE", "ETA", "ACTIVE", "AGE"]
    assert shown.split()[8:15] == ["row", "TrafficSwitch", "Freezing", "55", "7", "9", "a"]
    assert "memorymigration.memferry.dev/row" in api_tier.kubectl("get", "memory", "-n", kubernetes_namespace, "-oname")
    selector = "status.phase=TrafficSwitch,spec.source.backendRef.name=a"
    found = api_tier.kubectl("get", "memmig", "-n", kubernetes_namespace, "--field-selector", selector, "-oname")
    assert found.strip() == "memorymigration.memferry.dev/row"


def test_a_message_is_cut_and_a_newer_field_left_out() -> None:
    read = MigrationStatus.model_validate({"reason": "x", "newer": 1, "progress": {"summary": "y" * 5000}})
    assert read.progress is not None
    assert len(read.progress.summary) == 1024
