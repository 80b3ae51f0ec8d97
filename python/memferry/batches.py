"""Records of an application to and from canonical batches.

The codec is the native mapper's: a record becomes a native document, and nothing else is ever made of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from memferry._native import Batch, Mapper
from memferry.errors import RefusedError, StoreError
from memferry.profiles import load_mapper
from memferry.records import Record
from memferry.values import invalid

__all__ = ["from_batch", "to_batch"]


@cache
def _mapper() -> Mapper:
    return load_mapper("native", "document")


def to_batch(records: Iterable[Record]) -> Batch:
    """Records as a canonical batch, through the mapper.

    Raises:
        RefusedError: `invalid` for a record that cannot be held; `repeated-id` for two of one kind and id.
    """
    whole = list(records)
    seen: set[tuple[str, str]] = set()
    for record in whole:
        if record.identity in seen:
            raise RefusedError("repeated-id", f"{record.kind} {record.id!r} is given twice")
        seen.add(record.identity)
    raw = Batch.from_rows([("", record.to_json().encode(), []) for record in whole])
    batch, bad, _ = _mapper().decode(raw)
    if bad:
        _, kind, identity, reason, message, _ = bad[0]
        raise invalid(f"record {kind} {identity!r}: {message} ({reason})")
    if any(batch.markers()):
        raise invalid("record: `_memferry` is set by migrations only")
    return batch


def from_batch(batch: Batch) -> list[Record]:
    """A canonical batch as records.

    Raises:
        StoreError: `store-corrupt` for a record that no document can say.
    """
    raw, _, bad, _ = _mapper().encode(batch)
    if bad:
        _, kind, identity, reason, message, _ = bad[0]
        raise StoreError("store-corrupt", f"{kind} {identity!r}: {message} ({reason})")
    return [Record.from_json(body) for _, body, _ in raw.rows()]
