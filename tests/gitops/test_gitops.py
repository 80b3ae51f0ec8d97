"""Argo CD and Flux: what they say of a resource, and what their actions ask for is taken by the API server."""

from __future__ import annotations

import copy
from typing import Any, Final

import celpy
import celpy.adapter
import lupa.lua51
import pytest
import yaml

from memferry.manifest import Migration
from support.gitops_files import ARGOCD, CONFIG, GITOPS, config_text
from support.manifest_table import backend, binding, migration

NOW: Final = "2026-01-31T22:00:00Z"


def _condition(kind: str, reason: str, message: str = "", status: str = "True") -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": NOW}


def _migration(phase: str | None, *conditions: dict[str, Any], seen: int = 2, **status: Any) -> dict[str, Any]:
    found = migration("cutover: {bindingRef: {name: x}}")
    found["metadata"]["generation"] = 2
    if phase is not None:
        found["status"] = {"phase": phase, "observedGeneration": seen, "conditions": list(conditions), **status}
    return found


def _with_status(resource: dict[str, Any], **status: Any) -> dict[str, Any]:
    resource["metadata"]["generation"] = 1
    return {**resource, "status": status} if status else resource


COPYING: Final = _condition("Reconciling", "Copying")
APPROVAL: Final = _condition("ApprovalRequired", "Cutover", "spec.cutover.approve must be t1")
TOKEN: Final = {"token": "t1", "for": "Cutover"}
STALLED: Final = _condition("Stalled", "NoProgress", "pod a: no progress")

# resource, Argo CD's word and message, Flux's word
HEALTH: Final[list[tuple[dict[str, Any], str, str, str]]] = [
    (_migration(None), "Progressing", "waits for the operator", "InProgress"),
    (_migration("Pending", seen=1), "Progressing", "to read the change", "InProgress"),
    (_migration("Succeeded", _condition("Ready", "Succeeded"), seen=1), "Progressing", "to read", "InProgress"),
    (
        _migration("BulkTransfer", COPYING, reason="Copying", progress={"percent": 42}),
        "Progressing",
        "BulkTransfer: Copying, 42 %",
        "InProgress",
    ),
    (_migration("BulkTransfer", STALLED), "Degraded", "BulkTransfer: NoProgress: pod a: no progress", "Failed"),
    (_migration("TrafficSwitch", COPYING, APPROVAL), "Suspended", "spec.cutover.approve must be t1", "InProgress"),
    (
        _migration("BulkTransfer", COPYING, _condition("Suspended", "Suspended", "nothing is begun")),
        "Suspended",
        "nothing is begun",
        "InProgress",
    ),
    (_migration("Succeeded", _condition("Ready", "Succeeded", "a is kept")), "Healthy", "a is kept", "Current"),
    (_migration("Aborted", _condition("Stalled", "Aborted", "as asked")), "Degraded", "Aborted: as asked", "Failed"),
    (_migration("SwitchedBack", _condition("Stalled", "SwitchedBack")), "Degraded", "SwitchedBack", "Failed"),
    (_with_status(backend("embedded, path: a")), "Healthy", "not asked yet", "Current"),
    (_with_status(backend("embedded, path: a"), reachable=True, serverVersion="5.26"), "Healthy", "5.26", "Current"),
    (
        _with_status(
            backend("embedded, path: a"), reachable=False, conditions=[_condition("Stalled", "x", "no route")]
        ),
        "Degraded",
        "no route",
        "Failed",
    ),
    (_with_status(backend("embedded, path: a"), reachable=False), "Degraded", "not reachable", "Failed"),
    (
        _with_status(backend("embedded, path: a"), conditions=[_condition("Stalled", "KeyMissing", "no key x")]),
        "Degraded",
        "KeyMissing: no key x",
        "Failed",
    ),
    (
        _with_status(
            backend("embedded, path: a"), reachable=True, conditions=[_condition("Stalled", "IdentityChanged")]
        ),
        "Degraded",
        "IdentityChanged",
        "Failed",
    ),
    (
        _with_status(
            backend("embedded, path: a"),
            reachable=True,
            conditions=[_condition("Stalled", "Reachable", status="False"), _condition("Ready", "Reachable")],
        ),
        "Healthy",
        "reachable",
        "Current",
    ),
    (_with_status(binding()), "Progressing", "waits", "InProgress"),
    (_with_status(binding(), active="a", mode="Serving"), "Healthy", "a serves", "Current"),
    (
        _with_status(binding(), active="a", mode="Frozen", lockedBy={"uid": "u", "name": "m"}),
        "Progressing",
        "frozen by m",
        "InProgress",
    ),
    (
        _with_status(
            binding(), active="a", mode="Serving", conditions=[_condition("Stalled", "SecretNotWritten", "no key x")]
        ),
        "Degraded",
        "SecretNotWritten: no key x",
        "Failed",
    ),
    (
        _with_status(binding(), conditions=[_condition("Stalled", "BackendMissing", "a is not there")]),
        "Degraded",
        "BackendMissing: a is not there",
        "Failed",
    ),
    (
        _with_status(binding(), conditions=[_condition("Reconciling", "ReadingJournal")]),
        "Progressing",
        "waits",
        "InProgress",
    ),
]


def _run(script: str, resource: dict[str, Any]) -> Any:
    """Runs a script as Argo CD does: Lua 5.1, the resource as `obj`."""
    lua = lupa.lua51.LuaRuntime(unpack_returned_tuples=True, register_eval=False)
    lua.globals().obj = lua.table_from(copy.deepcopy(resource), recursive=True)
    return _plain(lua.execute(script))


def _plain(value: Any) -> Any:
    if lupa.lua51.lua_type(value) != "table":
        return value
    items = {key: _plain(one) for key, one in value.items()}
    return list(items.values()) if items and set(items) == set(range(1, len(items) + 1)) else items


def _config() -> dict[str, str]:
    data: dict[str, str] = yaml.safe_load(CONFIG.read_text("utf-8"))["data"]
    return data


def _actions() -> tuple[str, dict[str, str]]:
    found = yaml.safe_load(_config()["resource.customizations.actions.memferry.dev_MemoryMigration"])
    return found["discovery.lua"], {one["name"]: one["action.lua"] for one in found["definitions"]}


def test_the_config_map_is_made_of_the_scripts() -> None:
    assert CONFIG.read_text("utf-8") == config_text(), "run `python tests/support/gitops_files.py`"


@pytest.mark.parametrize(("resource", "word", "message", "flux"), HEALTH)
def test_health(resource: dict[str, Any], word: str, message: str, flux: str) -> None:
    script = _config()[f"resource.customizations.health.memferry.dev_{resource['kind']}"]
    said = _run(script, resource)
    assert said["status"] == word
    assert message in said["message"]
    assert _flux(resource) == flux


def _flux(resource: dict[str, Any]) -> str:
    """In the order of Flux's evaluator: in progress, failed, current."""
    checks = yaml.safe_load((GITOPS / "flux" / "kustomization.yaml").read_text("utf-8"))["spec"]["healthCheckExprs"]
    [check] = [one for one in checks if (one["apiVersion"], one["kind"]) == (resource["apiVersion"], resource["kind"])]
    environment = celpy.Environment()
    activation = {name: celpy.adapter.json_to_cel(one) for name, one in resource.items()}
    for field, word in (("inProgress", "InProgress"), ("failed", "Failed"), ("current", "Current")):
        if field in check:
            program = environment.program(environment.compile(check[field]))
            if program.evaluate(activation):
                return word
    return "InProgress"


@pytest.mark.parametrize(
    ("resource", "possible"),
    [
        (_migration(None), {"suspend", "abort"}),
        (_migration("BulkTransfer", COPYING), {"suspend", "abort"}),
        (_migration("BulkTransfer", STALLED), {"suspend", "abort", "retry"}),
        (_migration("TrafficSwitch", APPROVAL, approval=TOKEN), {"suspend", "abort", "approve"}),
        (_migration("TrafficSwitch", traffic={"step": "Serving", "direction": "Forward"}), {"suspend"}),
        (_migration("TrafficSwitch", traffic={"step": "Freezing", "direction": "Back"}), {"suspend"}),
        (_migration("Monitoring", plan={"wayBack": True}), {"suspend", "switch-back"}),
        (_migration("Monitoring", plan={"wayBack": False}), {"suspend"}),
        (_migration("Succeeded", _condition("Ready", "Succeeded")), set()),
        (_migration("Aborted", _condition("Stalled", "Aborted")), set()),
    ],
)
def test_actions_that_are_offered(resource: dict[str, Any], possible: set[str]) -> None:
    discovery, definitions = _actions()
    offered = _run(discovery, resource)
    assert set(offered) == set(definitions)
    assert {name for name, action in offered.items() if not action["disabled"]} == possible


@pytest.mark.parametrize(
    ("action", "changed"),
    [
        ("suspend", {"suspend": True}),
        ("resume", {"suspend": False}),
        ("approve", {"cutover": {"bindingRef": {"name": "x"}, "approve": "t1"}}),
        ("abort", {"operation": "Abort"}),
        ("switch-back", {"operation": "SwitchBack"}),
        ("retry", {}),
    ],
)
def test_an_action_asks_for_what_it_says(action: str, changed: dict[str, Any]) -> None:
    resource = _migration("TrafficSwitch", APPROVAL, approval=TOKEN)
    spec = _run(_actions()[1][action], resource)["spec"]
    Migration.model_validate(spec)
    tokens = {key: spec.pop(key) for key in ("operationToken", "retryToken") if key in spec}
    assert spec == {**resource["spec"], **changed}
    needed = {"abort": {"operationToken"}, "switch-back": {"operationToken"}, "retry": {"retryToken"}}
    assert set(tokens) == needed.get(action, set())


def test_a_deletion_is_confirmed_by_a_field_of_its_own() -> None:
    resource = _migration("Decommission", approval={"token": "t2", "for": "Decommission"})
    spec = _run(_actions()[1]["approve"], resource)["spec"]
    assert spec["decommission"] == {"confirm": "t2"}
    assert "approve" not in spec["cutover"]


def test_what_actions_write_is_left_out_of_the_comparison() -> None:
    application = yaml.safe_load((ARGOCD / "application.yaml").read_text("utf-8"))
    [ignored] = application["spec"]["ignoreDifferences"]
    written = {"suspend", "cutover/approve", "decommission/confirm", "operation", "operationToken", "retryToken"}
    assert {pointer.removeprefix("/spec/") for pointer in ignored["jsonPointers"]} == written
    assert "RespectIgnoreDifferences=true" in application["spec"]["syncPolicy"]["syncOptions"]
