"""Files with one JSON document a line."""

from memferry.backends.jsonl.source import JsonlSource
from memferry.backends.jsonl.target import JsonlTarget

__all__ = ["JsonlSource", "JsonlTarget"]
