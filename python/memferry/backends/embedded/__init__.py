"""The embedded store: one SQLite file."""

from memferry.backends.embedded.source import EmbeddedSource
from memferry.backends.embedded.target import EmbeddedTarget

__all__ = ["EmbeddedSource", "EmbeddedTarget"]
