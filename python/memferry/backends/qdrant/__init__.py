"""Qdrant collections over gRPC, by the official Rust client."""

from memferry.backends.qdrant.source import QdrantSource
from memferry.backends.qdrant.target import QdrantTarget

__all__ = ["QdrantSource", "QdrantTarget"]
