"""Who is expected to acknowledge."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memferry.manifest.clients import expected_clients

NOW = datetime(2026, 1, 31, 22, 0, tzinfo=UTC)
APP = {"app": "agents"}


def pod(name: str, phase: str = "Running", *, uid: str = "u1", labels: dict[str, str] | None = None) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "labels": labels or APP}, "status": {"phase": phase}}


def lease(
    name: str, *, age_secs: float = 1, uid: str = "u1", client: str = "", released: bool = False
) -> dict[str, Any]:
    said = {"revision": "4", "mode": "Frozen", "active": "a", "errors": "2", "pod-uid": uid}
    return {
        "metadata": {
            "name": f"memferry-client-memory-{name}{client}",
            "labels": {"memferry.dev/binding": "memory"},
            "annotations": {f"memferry.dev/{key}": value for key, value in said.items()},
        },
        "spec": {
            "holderIdentity": "" if released else name,
            "leaseDurationSeconds": 15,
            "renewTime": (NOW - timedelta(seconds=age_secs)).isoformat().replace("+00:00", "Z"),
        },
    }


@pytest.mark.parametrize(
    ("pods", "leases", "expected"),
    [
        pytest.param([pod("p")], [], {"p": False}, id="a pod that runs may be about to write"),
        pytest.param([pod("p")], [lease("p")], {"memferry-client-memory-p": True}, id="it acknowledged"),
        pytest.param([pod("p")], [lease("p", age_secs=999)], {"memferry-client-memory-p": True}, id="and went silent"),
        pytest.param([pod("p")], [lease("p", released=True)], {}, id="it gave its Lease back"),
        pytest.param([pod("p", uid="u2")], [lease("p", age_secs=99)], {"p": False}, id="Lease of an earlier pod"),
        pytest.param([pod("p", "Pending")], [], {}, id="nothing runs yet"),
        pytest.param([pod("p", "Succeeded")], [lease("p")], {}, id="its process has ended for certain"),
        pytest.param([pod("p", labels={"app": "other"})], [], {}, id="a pod of others"),
        pytest.param(
            [], [lease("p", age_secs=45)], {"memferry-client-memory-p": True}, id="alive until three durations"
        ),
        pytest.param([], [lease("p", age_secs=45.1)], {}, id="it has stopped writing by itself"),
        pytest.param(
            [pod("p")],
            [lease("p", client=".1"), lease("p", client=".2")],
            {"memferry-client-memory-p.1": True, "memferry-client-memory-p.2": True},
            id="several clients of a pod",
        ),
        pytest.param(
            [pod("p")],
            [lease("p", client=".1", released=True), lease("p", client=".2")],
            {"memferry-client-memory-p.2": True},
            id="one of them has ended",
        ),
    ],
)
def test_expected(pods: list[dict[str, Any]], leases: list[dict[str, Any]], expected: dict[str, bool]) -> None:
    if any(one["spec"]["holderIdentity"] == "" for one in leases):
        for one in leases:
            one["metadata"]["ownerReferences"] = [{"kind": "Pod", "name": "p"}]
    found = expected_clients(APP, pods, leases, NOW)
    assert {client.name: client.acknowledged(4, "Frozen", "a") for client in found} == expected


def test_a_lease_is_read_whatever_stands_in_it() -> None:
    odd = lease("p")
    odd["metadata"]["annotations"] |= {"memferry.dev/revision": "-1", "memferry.dev/errors": "²", "x": "y"}
    odd["spec"] = {"holderIdentity": "p", "renewTime": "yesterday"}
    (found,) = expected_clients(APP, [pod("p")], [odd], NOW)
    assert (found.revision, found.errors, found.heard_at, found.live) == (0, 0, None, False)


def test_an_empty_selector_selects_no_pod() -> None:
    assert expected_clients({}, [pod("p")], [], NOW) == ()
