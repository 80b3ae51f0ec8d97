"""Whole lives with the real workers: Offline, from an embedded store on a claim to every kind of target."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import operating
from support.hybrid import ordinary
from support.operating import Life, Operator, embedded, secret
from support.stores import EmbeddedPlace
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.neo4j import Neo4jServer
from testbed.qdrant import QdrantServer

RECORDS = 300


@pytest.fixture
def kubelet(tier: ApiTier, namespace: str, tmp_path: Path) -> Iterator[LocalKubelet]:
    """Runs the real workers, with a source on the claim `src`."""
    with LocalKubelet(tier.client, namespace=namespace, folder=tmp_path / "node") as kubelet:
        claim = kubelet.claim_folder(namespace, "src")
        EmbeddedPlace(claim.parent, "src").make(ordinary(RECORDS))
        yield kubelet


@pytest.fixture
def hybrid(life: Life, empty_neo4j: Neo4jServer, qdrant_server: QdrantServer, qdrant_prefix: str) -> None:
    """The MemoryBackend `hybrid` over both servers."""
    life.client.apply_all(
        operating.hybrid("hybrid", empty_neo4j, qdrant_server, qdrant_prefix), namespace=life.namespace
    )


def proven(life: Life, secs: float = 110) -> dict[str, Any]:
    """The status of a migration that came to its end; says what the workers wrote where it stalls."""
    status = life.until("Succeeded", secs=secs)
    checked = status["validation"]
    assert checked["compared"] == status["plan"]["records"] > RECORDS
    assert (checked["missing"], checked["extra"], checked["different"]) == (0, 0, 0)
    assert status["progress"]["read"] == status["plan"]["records"], "the Leases told of every record"
    return status


def test_embedded_to_embedded(life: Life, kubelet: LocalKubelet, operator: Operator) -> None:
    life.client.apply_all([*embedded("file", "src"), *embedded("other", "dst")], namespace=life.namespace)
    life.apply("file", "other", transfer={"shards": 2})
    proven(life)


@pytest.mark.usefixtures("hybrid")
def test_embedded_to_hybrid_with_a_worker_killed(life: Life, kubelet: LocalKubelet, operator: Operator) -> None:
    life.client.apply_all(embedded("file", "src"), namespace=life.namespace)
    life.apply("file", "hybrid", transfer={"shards": 2, "parallelism": 2})
    life.until("BulkTransfer")
    labels = {"memferry.dev/role": "transfer", "batch.kubernetes.io/job-completion-index": "0"}
    kubelet.process(labels).kill9()
    status = proven(life)
    assert (status["attempt"], status["shards"]["succeeded"]) == (1, 2)


@pytest.mark.usefixtures("hybrid")
def test_wrong_password_is_refused_and_retried_after_rotation(
    life: Life, kubelet: LocalKubelet, operator: Operator, empty_neo4j: Neo4jServer
) -> None:
    life.client.apply(secret("neo4j", "password", "not the password"), namespace=life.namespace)
    life.client.apply_all(embedded("file", "src"), namespace=life.namespace)
    life.apply("file", "hybrid", transfer={"shards": 1})
    status = life.until("ParallelSetup", reason="PlanRefused")
    assert "not the password" not in json.dumps(status)
    life.client.apply(secret("neo4j", "password", empty_neo4j.password), namespace=life.namespace)
    life.apply("file", "hybrid", transfer={"shards": 1}, retryToken="1")
    assert proven(life)["attempt"] == 2


def test_deleted_backend_in_the_middle_of_a_retry(life: Life, kubelet: LocalKubelet, operator: Operator) -> None:
    life.client.apply_all([*embedded("file", "nothing"), *embedded("other", "dst")], namespace=life.namespace)
    life.apply("file", "other")
    status = life.until("ParallelSetup", reason="PlanRefused")
    assert "store-missing" in next(c["message"] for c in status["conditions"] if c["type"] == "Stalled")
    life.client.delete("MemoryMigration", "m", namespace=life.namespace)
    life.client.until_gone("MemoryMigration", "m", namespace=life.namespace)
    life.until_none("Job")
