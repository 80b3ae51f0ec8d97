"""What goes wrong around the operator itself: kills, a stopped leader, an API server that is away."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import httpx

from support.operating import Life, Operator, standin
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.wait import until

QUICK = {"lease_duration_secs": "3", "renew_deadline_secs": "2", "retry_period_secs": "0.3"}


def test_killed_at_every_phase(life: Life, kubelet: LocalKubelet, own_operator: Operator, tmp_path: Path) -> None:
    standin(tmp_path / "standin", plan={"secs": 1}, transfer={"secs": 1.5}, verify={"secs": 1})
    life.apply()
    for phase in ("ParallelSetup", "BulkTransfer", "Validation"):
        life.until(phase, "Succeeded")
        own_operator.restart()
    status = life.until("Succeeded", secs=90)
    assert status["attempt"] == 1
    path = f"/apis/events.k8s.io/v1/namespaces/{life.namespace}/events"
    events = life.client.request("GET", path)["items"]
    jobs = [e for e in events if (e["reason"], e["regarding"]["kind"]) == ("SuccessfulCreate", "Job")]
    made = [e for e in jobs if e["regarding"]["name"].startswith("m-")]
    assert len(made) == 1 + 3 + 1, "every worker ran once"


def test_stopped_leader_is_replaced_and_ends(
    life: Life, tier: ApiTier, kubelet: LocalKubelet, namespace: str, tmp_path: Path
) -> None:
    with (
        Operator(tier, tmp_path, home=namespace, watch_namespaces=namespace, name="one", **QUICK) as one,
        Operator(tier, tmp_path, home=namespace, watch_namespaces=namespace, name="two", **QUICK) as two,
    ):
        until(
            lambda: any("leads" in o.process.log_since_start() for o in (one, two)), what="a leader", deadline_secs=30
        )
        first, second = (one, two) if "leads" in one.process.log_since_start() else (two, one)
        assert httpx.get(f"{second.url}/readyz").status_code == 200, "a standby is ready"
        standin(tmp_path / "standin", transfer={"secs": 4})
        life.apply()
        life.until("BulkTransfer")
        with first.process.stop_cont():
            second.leads()
            life.until("Validation", "Decommission", "Succeeded", secs=30)
        assert first.process.wait(deadline_secs=20) == 1, "it no longer leads, so it ends"
        assert life.until("Succeeded")["attempt"] == 1


def test_released_lead_is_taken_at_once(tier: ApiTier, namespace: str, tmp_path: Path) -> None:
    with (
        Operator(tier, tmp_path, home=namespace, watch_namespaces=namespace, name="first") as first,
    ):
        first.leads()
        with Operator(tier, tmp_path, home=namespace, watch_namespaces=namespace, name="second") as second:
            os.kill(first.process.pid, signal.SIGTERM)
            assert first.process.wait(deadline_secs=20) == 0
            second.leads()


def test_api_server_away(
    life: Life, tier: ApiTier, kubelet: LocalKubelet, own_operator: Operator, tmp_path: Path
) -> None:
    standin(tmp_path / "standin", transfer={"secs": 2})
    life.apply()
    life.until("BulkTransfer")
    with tier.outage():
        pass
    assert life.until("Succeeded", secs=110)["attempt"] == 1
