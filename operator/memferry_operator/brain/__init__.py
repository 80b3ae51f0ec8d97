"""`plan(observed, now)`: what is to be done, from nothing but what was seen. A module a phase."""

from memferry_operator.brain.plan import plan

__all__ = ["plan"]
