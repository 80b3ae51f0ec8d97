"""Resources that are made again, or whose status is gone, while the stores are as they were: nothing runs backwards."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.hybrid import ordinary
from support.operating import Life, Operator, embedded, resource
from support.stores import EmbeddedPlace
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.local_kubelet import LocalKubelet

SPEC: dict[str, Any] = {
    "transfer": {"shards": 1},
    "cutover": {"bindingRef": {"name": "memory"}},
    "monitoring": {"duration": "0s"},
}
BINDING = resource("MemoryBinding", "memory", {"initialBackendRef": {"name": "file"}})


@pytest.fixture
def claims(tier: ApiTier, namespace: str, tmp_path: Path) -> Iterator[Path]:
    """Where claims are, with a source on `src`; the real workers run."""
    with LocalKubelet(tier.client, namespace=namespace, folder=tmp_path / "node") as kubelet:
        folder = kubelet.claim_folder(namespace, "src").parent
        kubelet.claim_folder(namespace, "dst")
        EmbeddedPlace(folder, "src").make(ordinary(50))
        yield folder


def switched(life: Life) -> dict[str, Any]:
    """Moves the application to `other`; the spec of the migration as it stands in Git by then."""
    life.client.apply_all([*embedded("file", "src"), *embedded("other", "dst"), BINDING], namespace=life.namespace)
    spec = copy.deepcopy(SPEC)
    life.apply("file", "other", **spec)
    asked = life.until("TrafficSwitch", reason="ApprovalRequired", secs=300)
    spec["cutover"]["approve"] = asked["approval"]["token"]
    life.apply("file", "other", **spec)
    life.until("Succeeded", secs=120)
    assert serves(life) == ("other", 4)
    return spec


def serves(life: Life) -> tuple[str, int]:
    """Which side the binding says serves, since which revision; waits until it says one."""
    found = life.client.until(
        "MemoryBinding",
        "memory",
        lambda b: bool((b.get("status") or {}).get("active")),
        namespace=life.namespace,
        deadline_secs=120,
    )
    status = found["status"]
    assert status["mode"] == "Serving"
    return status["active"], status["revision"]


def records(claims: Path) -> list[str]:
    """Digests of both files."""
    return [hashlib.sha256((claims / claim / "agents.db").read_bytes()).hexdigest() for claim in ("src", "dst")]


@pytest.mark.timeout(600)
def test_nothing_runs_backwards(life: Life, claims: Path, operator: Operator) -> None:
    spec = switched(life)
    before, jobs = records(claims), {job["metadata"]["uid"] for job in life.objects("Job")}
    for kind, name in (("MemoryBinding", "memory"), ("MemoryMigration", "m"), ("MemoryBackend", "file")):
        life.client.patch(kind, name, {"status": None}, namespace=life.namespace, subresource="status")
    assert serves(life) == ("other", 4), "not what spec.initialBackendRef says"
    life.until("Succeeded")
    assert {job["metadata"]["uid"] for job in life.objects("Job")} <= jobs, "nothing ran again"

    for kind, name in (
        ("MemoryMigration", "m"),
        ("MemoryBinding", "memory"),
        ("Secret", "memferry-binding-memory"),
        ("MemoryBackend", "file"),
        ("MemoryBackend", "other"),
    ):
        life.client.delete(kind, name, namespace=life.namespace)
        life.client.until_gone(kind, name, namespace=life.namespace)
    life.until_none("Job")
    life.client.apply_all([*embedded("file", "src"), *embedded("other", "dst"), BINDING], namespace=life.namespace)
    life.apply("file", "other", **spec)
    assert serves(life) == ("other", 4), "as in a new cluster: only the stores know"
    status = life.until("Pending", reason="SourceNotActive")
    assert status["attempt"] == 0
    assert not life.objects("Job"), "nothing is copied, least of all over what serves"
    assert records(claims) == before
