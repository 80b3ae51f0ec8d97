"""JSONL files, plain or compressed."""

from memferry.backends.jsonl.foreign import ForeignJsonlTarget
from memferry.backends.jsonl.source import JsonlSource
from memferry.backends.jsonl.target import JsonlTarget

__all__ = ["ForeignJsonlTarget", "JsonlSource", "JsonlTarget"]
