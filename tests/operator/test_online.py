"""The whole Online life with the real workers and an application that writes all the time: nothing is lost."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support import operating
from support.bound import Application, graph_notes, lost, notes
from support.hybrid import ordinary
from support.operating import Life, Operator, embedded, resource
from support.stores import EmbeddedPlace
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.neo4j import Neo4jServer
from testbed.proxy import FaultyProxy
from testbed.qdrant import QdrantServer
from testbed.wait import until

ONLINE: dict[str, Any] = {
    "strategy": "Online",
    "transfer": {"shards": 1},
    "cutover": {"bindingRef": {"name": "memory"}},
    "monitoring": {"duration": "1h", "interval": "5s"},
}
LEASE_SECS = 4


@pytest.fixture
def claims(tier: ApiTier, namespace: str, tmp_path: Path) -> Iterator[Path]:
    """Where claims are, with a source on `src`; the real workers run."""
    with LocalKubelet(tier.client, namespace=namespace, folder=tmp_path / "node") as kubelet:
        folder = kubelet.claim_folder(namespace, "src").parent
        kubelet.claim_folder(namespace, "dst")
        EmbeddedPlace(folder, "src").make(ordinary(100))
        yield folder


@dataclass
class Memory:
    """The MemoryBinding `memory`."""

    kubeconfig: Path
    binding: str = "memory"


@pytest.fixture
def network(tier: ApiTier, proxy: Callable[[int], FaultyProxy]) -> FaultyProxy:
    """Between the application and the API server."""
    return proxy(tier.port)


@pytest.fixture
def application(
    life: Life,
    tier: ApiTier,
    namespace: str,
    claims: Path,
    network: FaultyProxy,
    operator: Operator,
    tmp_path: Path,
) -> Iterator[Application]:
    """Connected and writing to the source."""
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(tier.kubeconfig.read_text().replace(f"127.0.0.1:{tier.port}", network.address))
    binding = resource("MemoryBinding", "memory", {"initialBackendRef": {"name": "file"}})
    life.client.apply_all([*embedded("file", "src"), *embedded("other", "dst"), binding], namespace=namespace)
    life.client.until(
        "MemoryBinding",
        "memory",
        lambda b: b.get("status", {}).get("active") == "file",
        namespace=namespace,
        deadline_secs=110,
    )
    chosen = {"namespace": namespace, "interval-secs": 0.02, "lease-secs": LEASE_SECS, "freeze-wait-secs": 60}
    env = {"MEMFERRY_CLAIMS": str(claims)}
    with Application(Memory(kubeconfig), tmp_path, "app", env=env, **chosen) as app:
        app.goes_on()
        yield app


def approve(life: Life, target: str, spec: dict[str, Any], before: Callable[[], None] = lambda: None) -> None:
    """Runs a migration until it asks, and approves it."""
    spec = copy.deepcopy(spec)
    life.apply("file", target, **spec)
    asked = life.until("TrafficSwitch", reason="ApprovalRequired", secs=300)
    spec["cutover"]["approve"] = asked["approval"]["token"]
    before()
    life.apply("file", target, **spec)


def switch(life: Life, application: Application, target: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Runs a migration until the target serves and the application writes there."""
    approve(life, target, spec)
    status = life.until("Monitoring", secs=120)
    assert status["traffic"]["active"] == target
    on(application, target)
    return status


def switch_back(life: Life, application: Application, target: str, spec: dict[str, Any]) -> dict[str, Any]:
    """Asks for the way home and waits until the application writes there."""
    life.apply("file", target, **spec, operation="SwitchBack", operationToken="1")
    status = life.until("SwitchedBack", secs=300)
    assert status["traffic"]["active"] == "file"
    on(application, "file")
    return status


def on(application: Application, side: str) -> None:
    """Waits until the newest acknowledged write is on this side, and goes on."""
    until(lambda: application.lines("written")[-1]["active"] == side, what=f"a write to {side}")
    application.goes_on()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("rounds", [1, pytest.param(10, marks=pytest.mark.slow_cluster)])
def test_no_write_is_lost_there_and_back(
    rounds: int,
    life: Life,
    claims: Path,
    application: Application,
    empty_neo4j: Neo4jServer,
    qdrant_server: QdrantServer,
    qdrant_prefix: str,
    record_property: Callable[[str, object], None],
) -> None:
    told = []
    for number in range(rounds):
        # What an earlier migration left in a target is somebody else's to a new one: each has stores of its own.
        empty_neo4j.wipe()
        target = f"hybrid-{number}"
        stores = operating.hybrid(target, empty_neo4j, qdrant_server, f"{qdrant_prefix}{number}")
        life.client.apply_all(stores, namespace=life.namespace)
        told.append(switch(life, application, target, ONLINE))
        acknowledged = application.acknowledged()
        assert not lost(acknowledged, graph_notes(empty_neo4j))
        told.append(switch_back(life, application, target, ONLINE))
        acknowledged = application.acknowledged()
        assert not lost(acknowledged, notes(claims / "src" / "agents.db"))
        life.client.delete("MemoryMigration", "m", namespace=life.namespace)
        life.client.until_gone("MemoryMigration", "m", namespace=life.namespace)
    application.process.stop()
    missing = lost(application.acknowledged(), notes(claims / "src" / "agents.db"))
    seen = application.switches()
    assert len(seen) == len(told) == 2 * rounds
    for secs, status in zip(seen, told, strict=True):
        record_property("switch", (secs, status["traffic"]["writeFreezeMillis"] / 1000))
    record_property("lost writes", len(missing))
    assert not missing


@pytest.mark.fault
def test_client_that_is_cut_off_writes_to_no_side(
    life: Life, claims: Path, application: Application, network: FaultyProxy
) -> None:
    """It does not hear of the freeze and stops by itself, which is waited for; then it goes on at the target."""
    spec = ONLINE | {"cutover": ONLINE["cutover"] | {"maxWriteFreeze": "90s"}}
    approve(life, "other", spec, before=network.stall)
    status = life.until("Monitoring", secs=120)
    assert application.lines("written")[-1]["active"] == "file"
    codes = {line["code"] for line in application.lines("again")}
    # One that was under way when the Lease ran out is in doubt, and done again.
    assert "lease-lost" in codes <= {"lease-lost", "in-doubt"}
    assert status["traffic"]["writeFreezeMillis"] > 1000 * LEASE_SECS
    network.resume()
    on(application, "other")
    application.process.stop()
    assert not lost(application.acknowledged(), notes(claims / "dst" / "agents.db"))


@pytest.mark.timeout(600)
def test_offline_freezes_for_the_whole_copy(life: Life, claims: Path, application: Application) -> None:
    status = switch(life, application, "other", ONLINE | {"strategy": "Offline"})
    assert status["validation"]["missing"] == status["validation"]["different"] == 0
    application.process.stop()
    assert max(line["millis"] for line in application.lines("written")) > 1000, "a write has waited"
    assert not lost(application.acknowledged(), notes(claims / "dst" / "agents.db"))
