"""The operator as a process against a real API server; workers are stand-ins that keep the contract."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.operating import Operator, migration, server, standin
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.local_kubelet import LocalKubelet


@pytest.fixture(scope="module")
def tier(api_tier: ApiTier) -> ApiTier:
    for one in yaml.safe_load_all(Path("/tmp/crds.yaml").read_text()):
        api_tier.client.apply(one)
    return api_tier


@pytest.fixture
def namespace(tier: ApiTier) -> Iterator[str]:
    with tier.namespace() as name:
        tier.client.apply_all([server("a"), server("b")], namespace=name)
        yield name


@pytest.fixture
def kubelet(tier: ApiTier, namespace: str, tmp_path: Path) -> Iterator[LocalKubelet]:
    env = standin(tmp_path / "standin")
    with LocalKubelet(tier.client, namespace=namespace, folder=tmp_path / "node", env=env) as kubelet:
        yield kubelet


def phase(*names: str) -> Any:
    return lambda found: found.get("status", {}).get("phase") in names


def test_offline(tier: ApiTier, namespace: str, kubelet: LocalKubelet, tmp_path: Path) -> None:
    with Operator(tier, tmp_path, namespace=namespace) as operator:
        tier.client.apply(migration("m"), namespace=namespace)
        found = tier.client.until("MemoryMigration", "m", phase("Succeeded"), namespace=namespace, deadline_secs=60)
        assert found["status"]["progress"]["percent"] == 100
        assert not operator.logged("error")
