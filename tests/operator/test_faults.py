"""What goes wrong around the operator itself: kills, a stopped leader, an API server that is away."""

from __future__ import annotations

import os
import signal
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.operating import SWITCHED, Life, Operator, Strikes, resource, secret, standin
from support.standin_clients import StandinClients
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.wait import until

pytestmark = pytest.mark.fault

QUICK = {"lease_duration_secs": "3", "renew_deadline_secs": "2", "retry_period_secs": "0.3"}
HOLD = {"hold": True}
STEPS: dict[str, dict[str, Any]] = {
    "Freezing": {"Journal Frozen a": HOLD},
    "FinalPass": {"FinalPass": HOLD},
    "Flipping": {"Journal Frozen b": HOLD},
    "Serving": {"Journal Serving b": HOLD},
}
"""What keeps a switch at a step."""
PODS = ["m-plan-1", *["m-transfer-1"] * 3, "m-verify-1", "m-switch-1"]
"""A life in which every worker ran once."""


def test_killed_at_every_phase(
    life: Life, kubelet: LocalKubelet, own_operator: Operator, clients: StandinClients, tmp_path: Path, strikes: Strikes
) -> None:
    phases = ["ParallelSetup", "BulkTransfer", "Validation", "TrafficSwitch", "Monitoring", "Decommission"]
    slow = {verb: {"secs": 1} for verb in ("plan", "transfer", "verify", "retire")}
    standin(tmp_path / "standin", **slow)
    life.apply(**SWITCHED, decommission={"policy": "Delete"})
    for number in range(len(phases)):
        life.until(*phases[number:], "Succeeded")
        own_operator.restart()
        strikes()
    status = life.until("Succeeded")
    assert [entry["phase"] for entry in status["history"]] == ["Pending", *phases, "Succeeded"]
    assert life.jobs_made() == sorted([*PODS, "m-retire-1"])
    life.at_rest("b", revision=4)


def test_killed_at_every_step_of_the_freeze(
    life: Life, kubelet: LocalKubelet, own_operator: Operator, clients: StandinClients, tmp_path: Path, strikes: Strikes
) -> None:
    held = dict(STEPS)
    standin(tmp_path / "standin", **{verb: hold for step in held.values() for verb, hold in step.items()})
    life.apply(**SWITCHED)
    for step in STEPS:
        life.until_step(step)
        own_operator.restart()
        strikes()
        assert life.until_step(step)["traffic"]["step"] == step
        del held[step]
        standin(tmp_path / "standin", **{verb: hold for left in held.values() for verb, hold in left.items()})
    assert life.until("Succeeded")["attempt"] == 1
    assert life.jobs_made() == sorted(PODS)
    life.at_rest("b", revision=4)


def test_killed_while_it_returns(
    life: Life, kubelet: LocalKubelet, own_operator: Operator, clients: StandinClients, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", FinalPass={"fail": "not-proven"}, **{"Journal Serving a": HOLD})
    life.apply(**SWITCHED)
    life.until_step("Returning", "Settled")
    own_operator.restart()
    standin(tmp_path / "standin")
    life.until("TrafficSwitch", reason="Syncing")
    life.apply(**SWITCHED, operation="Abort", operationToken="1")
    life.until("Aborted")
    life.at_rest("a", revision=3)


def test_nobody_leads_until_the_freeze_is_over(
    life: Life, kubelet: LocalKubelet, own_operator: Operator, clients: StandinClients, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", **STEPS["FinalPass"])
    cutover = SWITCHED["cutover"] | {"maxWriteFreeze": "10s"}
    life.apply(**SWITCHED | {"cutover": cutover})
    frozen_until = life.until_step("FinalPass")["traffic"]["frozenUntil"]
    own_operator.process.kill9()
    until(lambda: time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) > frozen_until, what="its end")
    own_operator.process.start()
    life.until("TrafficSwitch", reason="Syncing")
    until(lambda: clients.told["memory"][-1].mode == "Serving", what="the old side back")
    assert clients.told["memory"][-1].active == "a"


def test_stopped_leader_is_replaced_and_does_nothing_twice(
    life: Life, tier: ApiTier, kubelet: LocalKubelet, clients: StandinClients, namespace: str, tmp_path: Path
) -> None:
    with (
        Operator(tier, tmp_path, home=namespace, watch_namespaces=namespace, name="one", **QUICK) as one,
        Operator(tier, tmp_path, home=namespace, watch_namespaces=namespace, name="two", **QUICK) as two,
    ):
        until(lambda: any("leads" in o.process.log_since_start() for o in (one, two)), what="a leader")
        first, second = (one, two) if "leads" in one.process.log_since_start() else (two, one)
        assert httpx.get(f"{second.url}/readyz").status_code == 200, "a standby is ready"
        standin(tmp_path / "standin", **STEPS["FinalPass"])
        life.apply(**SWITCHED)
        life.until_step("FinalPass")
        with first.process.stop_cont():
            second.leads()
            standin(tmp_path / "standin")
            life.until_step("Settled")
        assert first.process.wait(deadline_secs=60) == 1, "it no longer leads, so it ends"
        assert '"no longer leads, ends"' in first.process.log_since_start()
        assert life.until("Succeeded")["attempt"] == 1
        assert life.jobs_made() == sorted(PODS)
        life.at_rest("b", revision=4)


def test_released_lead_is_taken_at_once(tier: ApiTier, namespace: str, tmp_path: Path) -> None:
    with Operator(tier, tmp_path, home=namespace, watch_namespaces=namespace, name="first") as first:
        first.leads()
        with Operator(tier, tmp_path, home=namespace, watch_namespaces=namespace, name="second") as second:
            os.kill(first.process.pid, signal.SIGTERM)
            assert first.process.wait(deadline_secs=60) == 0
            second.leads()


@pytest.mark.timeout(700)
@pytest.mark.parametrize("secs", [0, pytest.param(60, marks=pytest.mark.slow_cluster)])
def test_api_server_away_in_the_copy_and_in_the_freeze(
    secs: float,
    life: Life,
    tier: ApiTier,
    kubelet: LocalKubelet,
    own_operator: Operator,
    clients: StandinClients,
    tmp_path: Path,
    strikes: Strikes,
) -> None:
    def outage() -> None:
        strikes()
        with tier.outage():
            time.sleep(secs)  # the fault itself
        own_operator.restart_ended()

    standin(tmp_path / "standin", transfer=HOLD, **STEPS["FinalPass"])
    life.apply(**SWITCHED)
    life.until("BulkTransfer")
    outage()
    standin(tmp_path / "standin", **STEPS["FinalPass"])
    life.until_step("FinalPass", secs=200)  # the controllers of the cluster wait for longer and longer, too
    outage()
    standin(tmp_path / "standin")
    assert life.until("Succeeded", secs=200)["attempt"] == 1
    life.at_rest("b")


def test_secret_that_is_rotated_reaches_the_applications(
    life: Life, tier: ApiTier, kubelet: LocalKubelet, namespace: str, tmp_path: Path
) -> None:
    """While the binding serves: nobody touches a resource of ours."""

    def password() -> str:
        found = life.client.find("Secret", "memferry-binding-memory", namespace=namespace) or {}
        return b64decode(found.get("data", {}).get("password", "")).decode()

    graph = {"backend": "neo4j", "address": "graph:7687", "password": {"secretRef": {"name": "graph", "key": "word"}}}
    made = [secret("graph", "word", "first"), resource("MemoryBackend", "graph", graph)]
    binding = resource("MemoryBinding", "memory", {"initialBackendRef": {"name": "graph"}})
    life.client.apply_all([*made, binding], namespace=namespace)
    with Operator(tier, tmp_path, home=namespace, watch_namespaces=namespace, resync_secs="1") as operator:
        until(lambda: password() == "first", what="the Secret of the binding")
        life.client.apply(secret("graph", "word", "second"), namespace=namespace)
        until(lambda: password() == "second", what="the new password")
        assert "second" not in operator.process.log_since_start()
        assert not operator.errors()
