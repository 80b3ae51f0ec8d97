"""The whole Online life with the real workers and an application that writes all the time: nothing is lost."""

from __future__ import annotations

import copy
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import memferry
from support.hybrid import ordinary
from support.operating import Life, Operator, embedded, resource
from support.stores import EmbeddedPlace
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.process import ManagedProcess
from testbed.wait import until

EXAMPLE = Path(__file__).parents[2] / "examples" / "application_in_cluster.py"
ONLINE: dict[str, Any] = {
    "strategy": "Online",
    "transfer": {"shards": 1},
    "cutover": {"bindingRef": {"name": "memory"}},
    "monitoring": {"duration": "1m", "interval": "5s"},
}


@pytest.fixture
def claims(tier: ApiTier, namespace: str, tmp_path: Path) -> Iterator[Path]:
    """Where claims are, with a source on `src`; the real workers run."""
    with LocalKubelet(tier.client, namespace=namespace, folder=tmp_path / "node") as kubelet:
        folder = kubelet.claim_folder(namespace, "src").parent
        kubelet.claim_folder(namespace, "dst")
        EmbeddedPlace(folder, "src").make(ordinary(100))
        yield folder


class Application:
    """The example application, as a process outside of the cluster."""

    def __init__(self, tier: ApiTier, namespace: str, claims: Path, log: Path) -> None:
        arguments = ["memory", "--namespace", namespace, "--pod", "app", "--interval-secs", "0.05"]
        self.log = log
        self.process = ManagedProcess(
            "application",
            [sys.executable, str(EXAMPLE), *arguments, "--kubeconfig", str(tier.kubeconfig), "--lease-secs", "6"],
            log_path=log,
            ready=lambda: '"connected"' in self.process.log_since_start(),
            ready_deadline_secs=60,
            env={"MEMFERRY_CLAIMS": str(claims)},
        )

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines() if line.startswith("{")]

    def written(self) -> list[dict[str, Any]]:
        """Every write that was acknowledged."""
        return [line for line in self.lines() if line["event"] == "written"]


@pytest.fixture
def application(
    life: Life, tier: ApiTier, namespace: str, claims: Path, operator: Operator, tmp_path: Path
) -> Iterator[Application]:
    """Connected and writing to the source."""
    binding = resource("MemoryBinding", "memory", {"initialBackendRef": {"name": "file"}})
    life.client.apply_all([*embedded("file", "src"), *embedded("other", "dst"), binding], namespace=namespace)
    life.client.until(
        "MemoryBinding", "memory", lambda b: b.get("status", {}).get("active") == "file", namespace=namespace
    )
    app = Application(tier, namespace, claims, tmp_path / "application.log")
    app.process.start()
    until(app.written, what="a write", deadline_secs=60)
    yield app
    app.process.kill9()


def switch(life: Life, spec: dict[str, Any]) -> dict[str, Any]:
    """Runs a migration until the target serves."""
    life.apply("file", "other", **spec)
    asked = life.until("TrafficSwitch", reason="ApprovalRequired", secs=300)
    cutover = spec["cutover"]
    cutover["approve"] = asked["approval"]["token"]
    life.apply("file", "other", **spec)
    return life.until("Monitoring", secs=120)


def ids(path: Path) -> set[str]:
    with memferry.open(str(path)) as store:
        return {record.id for record in store.list(kind="memory")}


@pytest.mark.timeout(600)
def test_no_write_is_lost(
    life: Life, claims: Path, application: Application, record_property: Callable[[str, object], None]
) -> None:
    status = switch(life, copy.deepcopy(ONLINE))
    assert status["traffic"]["active"] == "other"
    until(lambda: [w for w in application.written() if w["active"] == "other"], what="a write there", deadline_secs=60)
    os.kill(application.process.pid, 15)
    application.process.wait(deadline_secs=60)
    written = application.written()
    lost = {w["id"] for w in written} - ids(claims / "dst" / "agents.db")
    record_property("write freeze millis", status["traffic"]["writeFreezeMillis"])
    record_property("longest write millis", max(w["millis"] for w in written))
    assert not lost
    assert len({w["active"] for w in written}) == 2


@pytest.mark.timeout(600)
def test_switch_back_carries_the_writes_home(
    life: Life, claims: Path, application: Application, record_property: Callable[[str, object], None]
) -> None:
    spec = copy.deepcopy(ONLINE) | {"monitoring": {"duration": "1h", "interval": "5s"}}
    switch(life, spec)
    until(lambda: [w for w in application.written() if w["active"] == "other"], what="a write there", deadline_secs=60)
    life.apply("file", "other", **spec, operation="SwitchBack", operationToken="1")
    status = life.until("SwitchedBack", secs=300)
    assert status["traffic"]["active"] == "file"
    before = len(application.written())
    until(lambda: len(application.written()) > before, what="a write at home", deadline_secs=60)
    os.kill(application.process.pid, 15)
    application.process.wait(deadline_secs=30)
    written = application.written()
    record_property("write freeze millis, back", status["traffic"]["writeFreezeMillis"])
    assert [w["active"] for w in written][-1] == "file"
    assert "other" in {w["active"] for w in written}
    assert not {w["id"] for w in written} - ids(claims / "src" / "agents.db")


@pytest.mark.timeout(600)
def test_offline_freezes_for_the_whole_copy(life: Life, claims: Path, application: Application) -> None:
    spec = copy.deepcopy(ONLINE) | {"strategy": "Offline"}
    status = switch(life, spec)
    assert status["validation"]["missing"] == status["validation"]["different"] == 0
    until(lambda: [w for w in application.written() if w["active"] == "other"], what="a write there", deadline_secs=60)
    os.kill(application.process.pid, 15)
    application.process.wait(deadline_secs=30)
    written = application.written()
    assert max(w["millis"] for w in written) > 1000, "a write has waited"
    assert not {w["id"] for w in written} - ids(claims / "dst" / "agents.db")
