"""Fixtures over the testbed; load them with `pytest_plugins = ["testbed.fixtures"]`.

Servers start when the first test asks for them and serve the whole session. A test that kills one starts it again
before it ends, or uses a server of its own. Nothing here skips: what cannot run fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testbed.embeddings import EmbeddingsServer
from testbed.kubernetes.api_tier import ApiTier
from testbed.kubernetes.local_kubelet import LocalKubelet
from testbed.kubernetes.node_tier import NodeTier
from testbed.mem0 import Mem0
from testbed.neo4j import Neo4jServer
from testbed.proxy import FaultyProxy
from testbed.qdrant import QdrantServer

__all__ = [
    "api_tier",
    "bare_neo4j",
    "embeddings_server",
    "empty_neo4j",
    "kubernetes_namespace",
    "local_kubelet",
    "mem0",
    "neo4j_server",
    "node_tier",
    "proxy",
    "qdrant_prefix",
    "qdrant_server",
    "second_neo4j_server",
]


@pytest.fixture(scope="session")
def neo4j_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neo4jServer]:
    """A running Neo4j."""
    with Neo4jServer(tmp_path_factory.mktemp("neo4j")) as server:
        yield server


@pytest.fixture(scope="session")
def second_neo4j_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Neo4jServer]:
    """Another running Neo4j, for copies from one to the other: the Community edition has one database."""
    with Neo4jServer(tmp_path_factory.mktemp("neo4j-second")) as server:
        yield server


@pytest.fixture
def empty_neo4j(neo4j_server: Neo4jServer) -> Neo4jServer:
    """The session's Neo4j without data; started again if a test left it dead.

    Constraints and indexes of ours stay from test to test, others do not.
    """
    if not neo4j_server.process.is_running:
        neo4j_server.start()
    neo4j_server.wipe(keep="memferry_")
    return neo4j_server


@pytest.fixture
def bare_neo4j(empty_neo4j: Neo4jServer) -> Neo4jServer:
    """The same without any constraint or index, as it is after its installation."""
    empty_neo4j.wipe()
    return empty_neo4j


@pytest.fixture(scope="session")
def qdrant_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    """A running Qdrant: the test server, or the real one that `MEMFERRY_TEST_QDRANT_URL` names."""
    with QdrantServer(tmp_path_factory.mktemp("qdrant")) as server:
        yield server


@pytest.fixture
def qdrant_prefix(qdrant_server: QdrantServer) -> Iterator[str]:
    """A prefix for the test's collections; they are deleted in the end, and no fault stays armed."""
    if not qdrant_server.is_external and not qdrant_server.process.is_running:
        qdrant_server.start()
    with qdrant_server.collections() as prefix:
        yield prefix
        if not qdrant_server.is_external and qdrant_server.process.is_running:
            qdrant_server.faults.clear()


@pytest.fixture
def proxy() -> Iterator[Callable[[int], FaultyProxy]]:
    """Makes a proxy before the loopback port that it is given; it forwards until the test ends."""
    made: list[FaultyProxy] = []

    def make(target_port: int) -> FaultyProxy:
        made.append(FaultyProxy(target_port))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture(scope="session")
def api_tier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiTier]:
    """A running Kubernetes API without nodes, with the audit log on."""
    with ApiTier(tmp_path_factory.mktemp("kubernetes"), audit=True) as tier:
        yield tier


@pytest.fixture
def kubernetes_namespace(api_tier: ApiTier) -> Iterator[str]:
    """A namespace of the test's own; the API server is started again if a test left it dead."""
    if not api_tier.api_server.is_running:
        api_tier.start_api_server()
    with api_tier.namespace() as name:
        yield name


@pytest.fixture
def local_kubelet(api_tier: ApiTier, kubernetes_namespace: str, tmp_path: Path) -> Iterator[LocalKubelet]:
    """Runs the pods of the test's namespace as processes."""
    with LocalKubelet(api_tier.client, namespace=kubernetes_namespace, folder=tmp_path / "node") as kubelet:
        yield kubelet


@pytest.fixture(scope="session")
def node_tier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeTier]:
    """A running Kubernetes of one node, with the audit log on. Needs root."""
    with NodeTier(tmp_path_factory.mktemp("node-tier")) as tier:
        yield tier


@pytest.fixture(scope="session")
def embeddings_server() -> Iterator[EmbeddingsServer]:
    """A running OpenAI-compatible embeddings endpoint."""
    with EmbeddingsServer() as server:
        yield server


@pytest.fixture
def mem0(
    tmp_path_factory: pytest.TempPathFactory, qdrant_server: QdrantServer, embeddings_server: EmbeddingsServer
) -> Callable[[str], Mem0]:
    """Makes a Mem0 store on a collection of the session's Qdrant, to be opened by `with`."""

    def make(collection: str) -> Mem0:
        return Mem0(
            host=qdrant_server.host,
            port=qdrant_server.port,
            collection=collection,
            embeddings_url=embeddings_server.url,
            folder=tmp_path_factory.mktemp("mem0"),
            tls=qdrant_server.uses_tls,
            api_key=qdrant_server.api_key,
        )

    return make
