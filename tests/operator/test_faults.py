"""What goes wrong around the operator itself: kills, a stopped leader, an API server that is away."""


def test_killed_at_every_phase(life: Life, kubelet: LocalKubelet, operator: Operator, tmp_path: Path) -> None:
    standin(tmp_path / "standin", plan={"secs": 1}, transfer={"secs": 1.5}, verify={"secs": 1})
    life.apply()
    for phase in ("ParallelSetup", "BulkTransfer", "Validation"):
        life.until(phase, "Succeeded")
        operator.restart()
    status = life.until("Succeeded", secs=90)
    assert status["attempt"] == 1
    uids = [
        e["regarding"]["uid"]
        for e in life.client.request("GET", f"/apis/events.k8s.io/v1/namespaces/{life.namespace}/events")["items"]
        if e["reason"] == "SuccessfulCreate" and e["regarding"]["kind"] == "Job"
    ]
    assert len(uids) == 1 + 3 + 1, "every worker ran once"


def test_stopped_leader_is_replaced_and_ends(
    life: Life, tier: ApiTier, kubelet: LocalKubelet, namespace: str, tmp_path: Path
) -> None:
    with (
        Operator(tier, tmp_path, namespace=namespace, name="first", **QUICK) as first,
        Operator(tier, tmp_path, namespace=namespace, name="second", **QUICK) as second,
    ):
        first.leads()
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
        Operator(tier, tmp_path, namespace=namespace, name="first") as first,
        Operator(tier, tmp_path, namespace=namespace, name="second") as second,
    ):
        until(
            lambda: '"leads"' in first.log_path.read_text() + second.log_path.read_text(),
            what="a leader",
            deadline_secs=30,
        )
        one, other = (first, second) if '"leads"' in first.log_path.read_text() else (second, first)
        assert one.process.terminate() == 0
        other.leads()


def test_api_server_away(life: Life, tier: ApiTier, kubelet: LocalKubelet, operator: Operator, tmp_path: Path) -> None:
    standin(tmp_path / "standin", transfer={"secs": 2})
    life.apply()
    life.until("BulkTransfer")
    with tier.outage():
        pass
    assert life.until("Succeeded", secs=110)["attempt"] == 1
