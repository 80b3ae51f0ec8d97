"""What an application in a cluster uses to reach its memory through a MemoryBinding; see `docs/binding.md`."""

from memferry.binding.client import BoundStore, Standing, connect
from memferry.errors import FrozenError, InDoubtError, LeaseLostError

__all__ = ["BoundStore", "FrozenError", "InDoubtError", "LeaseLostError", "Standing", "connect"]
