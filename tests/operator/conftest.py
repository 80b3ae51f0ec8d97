"""One operator a module, every test in a namespace of its own under restricted pod security."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from memferry.manifest.crd import crds
from support.definitions import let_go
from support.operating import Life, Operator, Strikes, resource, server, standin
from support.standin_clients import StandinClients
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.local_kubelet import LocalKubelet

RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@pytest.fixture(scope="session")
def tier(api_tier: ApiTier) -> ApiTier:
    """The API tier with our kinds."""
    api_tier.client.apply_all(crds())
    return api_tier


@pytest.fixture
def namespace(request: pytest.FixtureRequest, tier: ApiTier) -> Iterator[str]:
    """Of the test's own; the API server is started again if a test left it dead."""
    if not tier.api_server.is_running:
        tier.start_api_server()
    with tier.namespace(labels=RESTRICTED) as name:
        yield name
    if "shared_operator" not in request.fixturenames:
        let_go(tier.client)


@pytest.fixture
def kubelet(tier: ApiTier, namespace: str, tmp_path: Path) -> Iterator[LocalKubelet]:
    """Runs stand-in workers; with the MemoryBackends `a` and `b`, to which nobody connects."""
    tier.client.apply_all([server("a"), server("b")], namespace=namespace)
    env = standin(tmp_path / "standin")
    with LocalKubelet(tier.client, namespace=namespace, folder=tmp_path / "node", env=env) as kubelet:
        yield kubelet


@pytest.fixture(scope="module")
def shared_operator(tier: ApiTier, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Operator]:
    """Serves every namespace while the tests of a module run."""
    with tier.namespace("operator") as home, Operator(tier, tmp_path_factory.mktemp("operator"), home=home) as operator:
        operator.leads()
        yield operator
    let_go(tier.client)


@pytest.fixture
def operator(shared_operator: Operator) -> Iterator[Operator]:
    """The module's operator; a test in which it has a defect fails."""
    before = len(shared_operator.errors())
    yield shared_operator
    assert not shared_operator.errors()[before:]


@pytest.fixture
def own_operator(tier: ApiTier, namespace: str, tmp_path: Path) -> Iterator[Operator]:
    """One for this test alone, which may kill it; only where no shared one runs."""
    with Operator(tier, tmp_path, home=namespace, watch_namespaces=namespace) as operator:
        operator.leads()
        yield operator
        assert not operator.errors()


@pytest.fixture
def life(tier: ApiTier, namespace: str) -> Life:
    """The migration `m` of the test."""
    return Life(tier.client, namespace)


@pytest.fixture
def clients(tier: ApiTier, namespace: str) -> Iterator[StandinClients]:
    """Of the MemoryBinding `memory`, which is on `a`; they see that it never says what it may not."""
    tier.client.apply(resource("MemoryBinding", "memory", {"initialBackendRef": {"name": "a"}}), namespace=namespace)
    with StandinClients(tier.client, namespace) as clients:
        yield clients
    assert not clients.problems()


@pytest.fixture
def strikes(record_property: Callable[[str, object], None]) -> Strikes:
    """Counts the faults of a test that has several."""
    return lambda: record_property("fault", 1)
