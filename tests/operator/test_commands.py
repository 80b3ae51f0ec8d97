"""The table of commands against a real API server: every state of a migration at once, in one namespace.

The same table is in `test_brain.py`, in seconds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.operating import SWITCHED, Life, Strikes, migration, resource, server, standin
from support.standin_clients import StandinClients
from testbed.kubernetes.client import KubernetesObject
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.wait import until

HOLD = {"hold": True}
STATES: dict[str, tuple[str, str]] = {
    "pending": ("Pending", ""),
    "setup": ("ParallelSetup", "plan"),
    "transfer": ("BulkTransfer", "transfer"),
    "validation": ("Validation", "verify"),
    "passes": ("TrafficSwitch", "Pass"),
    "freezing": ("TrafficSwitch", "Journal Frozen a"),
    "final": ("TrafficSwitch", "FinalPass"),
    "flipping": ("TrafficSwitch", "Journal Frozen b"),
    "serving": ("TrafficSwitch", "Journal Serving b"),
    "monitoring": ("Monitoring", ""),
    "decommission": ("Decommission", "retire"),
    "succeeded": ("Succeeded", ""),
}
"""The phase of a state, and what keeps a migration there."""
STEPS = {"freezing": "Freezing", "final": "FinalPass", "flipping": "Flipping", "serving": "Serving"}
LATER = {"serving", "monitoring", "decommission", "succeeded"}
"""The target serves, or will."""
EFFECTS = {
    "delete": dict.fromkeys(STATES, "gone"),
    "Abort": {state: "refused" if state in LATER else "Aborted" for state in STATES},
    "SwitchBack": {state: "SwitchedBack" if state == "monitoring" else "refused" for state in STATES},
    "suspend": dict.fromkeys(STATES, "goes on"),
    "retry": dict.fromkeys(STATES, "goes on"),
    "edit": dict.fromkeys(STATES, "goes on"),
}
CHANGES: dict[str, dict[str, Any]] = {
    "Abort": {"operation": "Abort", "operationToken": "1"},
    "SwitchBack": {"operation": "SwitchBack", "operationToken": "1"},
    "suspend": {"suspend": True},
    "retry": {"retryToken": "1"},
    "edit": {"transfer": {"parallelism": 2}},
}


def source_of(name: str) -> str:
    """One that comes late, one that is deleted, or the one of all others."""
    return {"pending": "late", "decommission": "deleted"}.get(name, "a")


class Lives:
    """A migration for each state, each with a binding of its own."""

    def __init__(self, life: Life, folder: Path) -> None:
        self.client, self.namespace, self.folder = life.client, life.namespace, folder

    def begin(self) -> None:
        """Begins them all, each to be held in its state."""
        standin(self.folder, **{f"{name}/{held}": HOLD for name, (_, held) in STATES.items() if held})
        self.client.apply(server("deleted"), namespace=self.namespace)
        for name in STATES:
            source = source_of(name)
            binding = resource("MemoryBinding", name, {"initialBackendRef": {"name": source}})
            self.client.apply(binding, namespace=self.namespace)
            cutover = {"bindingRef": {"name": name}, "maxWriteFreeze": "1h", "ackTimeout": "1h"}
            spec = SWITCHED | {"cutover": cutover}
            if name == "monitoring":
                spec["monitoring"] = {"duration": "1h", "interval": "1s"}
            if name == "decommission":
                spec["decommission"] = {"policy": "Delete"}
            self.client.apply(migration(name, source, "b", **spec), namespace=self.namespace)
        self.until("their states", self._is_held)

    def release(self) -> None:
        """Nothing holds them any more."""
        standin(self.folder)
        self.client.apply(server("late"), namespace=self.namespace)
        self.change("monitoring", {"monitoring": {"duration": "1s"}})

    def change(self, name: str, spec: dict[str, Any]) -> None:
        """Edits a migration, if it is still there."""
        if name in self.seen():
            self.client.patch("MemoryMigration", name, {"spec": spec}, namespace=self.namespace)

    def seen(self) -> dict[str, KubernetesObject]:
        """Every migration that is there."""
        return {m["metadata"]["name"]: m for m in self.client.objects("MemoryMigration", namespace=self.namespace)}

    def until(self, what: str, check: Any) -> None:
        """Waits until `check` of each state, its migration and its status is true."""
        late: list[str] = []

        def all_of_them() -> bool:
            seen = self.seen()
            late[:] = [name for name in STATES if not check(name, seen.get(name))]
            return not late

        try:
            until(all_of_them, what=what, deadline_secs=200)
        except Exception as error:
            seen = self.seen()
            told = {name: (seen.get(name) or {}).get("status", {}) for name in late}
            short = {name: (s.get("phase"), s.get("reason"), s.get("traffic")) for name, s in told.items()}
            raise AssertionError(f"{what}: {short}") from error

    @staticmethod
    def _is_held(name: str, found: KubernetesObject | None) -> bool:
        status = (found or {}).get("status", {})
        step = (status.get("traffic") or {}).get("step")
        return bool(status.get("phase") == STATES[name][0] and (name not in STEPS or step == STEPS[name]))


def condition(found: KubernetesObject | None, kind: str) -> bool:
    """Whether a condition is True."""
    conditions = (found or {}).get("status", {}).get("conditions", [])
    return any(c["type"] == kind and c["status"] == "True" for c in conditions)


@pytest.mark.fault
@pytest.mark.slow_cluster
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("operator")
@pytest.mark.parametrize("command", ["delete", *CHANGES])
def test_command_in_every_state(
    command: str, life: Life, kubelet: LocalKubelet, clients: StandinClients, tmp_path: Path, strikes: Strikes
) -> None:
    lives, effects = Lives(life, tmp_path / "standin"), EFFECTS[command]
    lives.begin()
    for name in STATES:
        strikes()
        if command == "delete":
            life.client.delete("MemoryMigration", name, namespace=life.namespace)
        else:
            lives.change(name, CHANGES[command])

    def taken(name: str, found: KubernetesObject | None) -> bool:
        if effects[name] == "refused":
            return condition(found, "OperationRefused")
        return command != "suspend" or name == "succeeded" or condition(found, "Suspended")

    if command != "delete":
        lives.until("the command taken", taken)
    lives.release()
    if command == "suspend":
        for name in STATES:
            lives.change(name, {"suspend": False})

    def over(name: str, found: KubernetesObject | None) -> bool:
        if effects[name] == "gone":
            return found is None
        wanted = {"refused": "Succeeded", "goes on": "Succeeded"}.get(effects[name], effects[name])
        return found is not None and found["status"].get("phase") == wanted

    lives.until("their ends", over)
    for name, effect in effects.items():
        home = effect in {"Aborted", "SwitchedBack"} or (effect == "gone" and name not in LATER)
        active = source_of(name) if home else "b"
        life.client.until(
            "MemoryBinding",
            name,
            lambda b, active=active: (
                (b["status"]["active"], b["status"]["mode"], b["status"].get("lockedBy"))  # type: ignore[misc]
                == (active, "Serving", None)
            ),
            namespace=life.namespace,
            what=f"{name} at rest on {active}",
        )
    until(lambda: not running(life), what="no worker")


def running(life: Life) -> list[str]:
    """Workers that have not ended."""
    pods = life.client.objects("Pod", namespace=life.namespace)
    return [pod["metadata"]["name"] for pod in pods if pod["status"].get("phase") not in {"Succeeded", "Failed"}]
