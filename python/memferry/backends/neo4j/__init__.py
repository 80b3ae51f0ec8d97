"""Neo4j: our own nodes and relationships, and any graph of others. Described in `docs/neo4j.md`.

The driver is an optional package: nothing here imports it before a store is opened.
"""

from memferry.backends.neo4j.plain_target import Neo4jPlainTarget
from memferry.backends.neo4j.source import Neo4jSource
from memferry.backends.neo4j.target import Neo4jTarget

__all__ = ["Neo4jPlainTarget", "Neo4jSource", "Neo4jTarget"]
