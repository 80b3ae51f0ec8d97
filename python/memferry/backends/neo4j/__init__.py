"""Neo4j: our own nodes and relationships, and any graph of others to be read. Described in `docs/neo4j.md`.

The driver is an optional package: nothing here imports it before a store is opened.
"""

from memferry.backends.neo4j.source import Neo4jSource
from memferry.backends.neo4j.target import Neo4jTarget

__all__ = ["Neo4jSource", "Neo4jTarget"]
