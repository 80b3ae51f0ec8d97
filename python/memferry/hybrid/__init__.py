"""A hybrid store: records in a graph, their vectors in a vector store. Described in `docs/hybrid.md`.

It is made of two stores that are given to it, and knows no backend by name.
"""

from memferry.hybrid.access import HybridAccess
from memferry.hybrid.source import Half, HybridSource
from memferry.hybrid.target import HybridTarget

__all__ = ["Half", "HybridAccess", "HybridSource", "HybridTarget"]
