"""The installed chart on a real node, and a namespace with the example application."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import image
from support.on_node import RESTRICTED, SYSTEM, Agents, Servers, install
from testbed.kubernetes.node_tier import NodeTier
from testbed.neo4j import Neo4jServer
from testbed.qdrant import QdrantServer


@pytest.fixture(scope="session")
def node(node_tier: NodeTier) -> NodeTier:
    """The node tier with our image and our chart, both namespaces under restricted pod security."""
    node_tier.load_image(image.archive())
    metadata = {"name": SYSTEM, "labels": RESTRICTED}
    node_tier.client.create({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
    install(node_tier)
    return node_tier


@pytest.fixture(scope="session")
def locked_qdrant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    """A Qdrant with an API key."""
    with QdrantServer(tmp_path_factory.mktemp("locked-qdrant"), api_key="key-of-the-node-tests") as server:
        yield server


@pytest.fixture(scope="module")
def servers(node: NodeTier, neo4j_server: Neo4jServer, locked_qdrant: QdrantServer) -> Servers:
    """Neo4j and Qdrant, reachable from pods."""
    return Servers(node, neo4j_server, locked_qdrant)


@pytest.fixture
def agents(node: NodeTier, servers: Servers, tmp_path: Path) -> Iterator[Agents]:
    """The example application, writing to its embedded store on a claim; the graph is empty."""
    servers.neo4j.wipe()
    with Agents.started(node, servers, tmp_path) as application:
        yield application
