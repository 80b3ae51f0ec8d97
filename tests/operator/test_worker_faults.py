"""What goes wrong around the real workers: damage, an empty source, two holders of a shard, a target that is away."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.checker import differences
from support.hybrid import ordinary
from support.operating import Life, embedded, resource
from support.stores import EmbeddedPlace
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.proxy import FaultyProxy
from testbed.qdrant import QdrantServer
from testbed.wait import until

pytestmark = [pytest.mark.fault, pytest.mark.usefixtures("operator")]

RECORDS = 100
TRANSFER = {"memferry.dev/role": "transfer"}


@pytest.fixture
def kubelet(tier: ApiTier, namespace: str, tmp_path: Path) -> Iterator[LocalKubelet]:
    """Runs the real workers."""
    with LocalKubelet(tier.client, namespace=namespace, folder=tmp_path / "node") as kubelet:
        yield kubelet


@pytest.fixture
def source(kubelet: LocalKubelet, life: Life) -> EmbeddedPlace:
    """The MemoryBackend `file` on the claim `src`; `other` on the claim `dst` is nothing yet."""
    place = EmbeddedPlace(kubelet.claim_folder(life.namespace, "src").parent, "src")
    place.make(ordinary(RECORDS))
    life.client.apply_all([*embedded("file", "src"), *embedded("other", "dst")], namespace=life.namespace)
    return place


@pytest.fixture
def target(kubelet: LocalKubelet, life: Life) -> EmbeddedPlace:
    """What is on the claim `dst`."""
    return EmbeddedPlace(kubelet.claim_folder(life.namespace, "dst").parent, "dst")


def stalled(found: dict[str, Any]) -> str:
    """Why it is stalled."""
    return str(next(c["message"] for c in found["conditions"] if c["type"] == "Stalled"))


def test_damage_in_the_target_stops_the_validation(
    life: Life, kubelet: LocalKubelet, source: EmbeddedPlace, target: EmbeddedPlace
) -> None:
    life.apply("file", "other", transfer={"shards": 1})
    kubelet.process(TRANSFER)
    with kubelet.holding_starts():
        life.until("Validation")
        target.change(("memory", "m0042"), "damaged")
    status = life.until("Validation", reason="ValidationFailed")
    assert (status["validation"]["different"], status["validation"]["missing"]) == (1, 0)
    assert "damaged" not in str(status)


def test_empty_source_deletes_nothing(
    life: Life, kubelet: LocalKubelet, source: EmbeddedPlace, target: EmbeddedPlace
) -> None:
    binding = resource("MemoryBinding", "memory", {"initialBackendRef": {"name": "file"}})
    life.client.apply(binding, namespace=life.namespace)
    spec = {"strategy": "Online", "transfer": {"shards": 1}, "cutover": {"bindingRef": {"name": "memory"}}}
    life.apply("file", "other", **spec)
    life.until("TrafficSwitch", reason="ApprovalRequired")
    source.remove(source.read().records)
    status = life.until("TrafficSwitch", reason="PassFailed")
    assert stalled(status).startswith("max-deletes: ")
    assert len(target.read().records) == 4 * RECORDS
    found = life.client.get("MemoryBinding", "memory", namespace=life.namespace)["status"]
    assert (found["active"], found["mode"], found["revision"]) == ("file", "Serving", 1)


def test_two_holders_of_a_shard(
    life: Life, tier: ApiTier, kubelet: LocalKubelet, source: EmbeddedPlace, target: EmbeddedPlace
) -> None:
    """A node is cut off and given up, as a human may declare it; its process goes on when another one had the shard."""
    life.apply("file", "other", transfer={"shards": 1, "maxRecordsPerSecond": 40})
    first = kubelet.process(TRANSFER)
    until(lambda: target.path.exists() and target.read().records, what="records")
    with first.stop_cont(), kubelet.silent():
        name = next(pod["metadata"]["name"] for pod in life.objects("Pod") if "-transfer-" in pod["metadata"]["name"])
        failed = {"status": {"phase": "Failed"}}
        life.client.patch("Pod", name, failed, namespace=life.namespace, subresource="status")
        life.client.delete("Pod", name, namespace=life.namespace, grace_secs=0)
        with LocalKubelet(tier.client, namespace=life.namespace, folder=kubelet.folder, node="second"):
            status = life.until("Succeeded", secs=120)
            copied = target.read()
            os.kill(first.pid, signal.SIGCONT)
            assert first.wait(deadline_secs=60) in {0, 3}, "it sees that it is done, or that it is fenced"
    assert (status["validation"]["missing"], status["validation"]["different"]) == (0, 0)
    assert not differences(copied, target.read(), markers=True)


@pytest.mark.slow_cluster
@pytest.mark.timeout(1500)
def test_target_that_is_away_until_nothing_is_tried_again(
    life: Life,
    source: EmbeddedPlace,
    qdrant_server: QdrantServer,
    qdrant_prefix: str,
    proxy: Callable[[int], FaultyProxy],
) -> None:
    network = proxy(qdrant_server.port)
    spec = {"backend": "qdrant", "address": network.address, "collection": f"{qdrant_prefix}m", "distance": "dot"}
    life.client.apply(resource("MemoryBackend", "vectors", spec), namespace=life.namespace)
    transfer = {"shards": 1, "maxRecordsPerSecond": 40}
    life.apply("file", "vectors", transfer=transfer)
    life.until("BulkTransfer", secs=120)
    until(lambda: life.until("BulkTransfer").get("progress", {}).get("read"), what="records")
    network.refuse(cut=True)
    life.until_told("Reconciling", "error[unavailable]", secs=240)  # two minutes of the worker's own tries
    life.until("BulkTransfer", reason="BackendUnavailable", secs=1000)  # five such workers, and the Job's pauses
    network.resume()
    life.apply("file", "vectors", transfer=transfer, retryToken="1")
    status = life.until("Succeeded", secs=240)
    assert (status["attempt"], status["validation"]["missing"], status["validation"]["different"]) == (2, 0, 0)
