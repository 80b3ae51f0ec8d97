"""Listing a store page by page, with cursors that another process can go on at."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass

from memferry.backends.api import Source
from memferry.batches import from_batch
from memferry.errors import RefusedError, StoreError
from memferry.model import Limits, Quarantined, Range, rows_of
from memferry.records import Record

__all__ = ["RecordPage", "pages", "read_cursor"]


@dataclass(frozen=True)
class RecordPage:
    """A page of a listing.

    Attributes:
        records: Those of the rows read that were asked for; there may be none.
        cursor: Where the next page begins, None after the last.
        unreadable: Rows that are no records, with the reason.
    """

    records: list[Record]
    cursor: str | None
    unreadable: list[Quarantined]

    def readable(self) -> list[Record]:
        """The records.

        Raises:
            StoreError: `store-corrupt` where a row is no record.
        """
        for row in self.unreadable:
            raise StoreError("store-corrupt", f"row {row.key}: {row.message} ({row.reason})")
        return self.records


def pages(
    source: Source,
    kinds: tuple[str, ...],
    scope: dict[str, str],
    limits: Limits,
    stream_name: str | None,
    at: str | None,
) -> Iterator[RecordPage]:
    """Pages of a store.

    Args:
        source: The store, to be read.
        kinds: Records that are asked for.
        scope: Parts of a scope that they have.
        limits: Of one page.
        stream_name: Where to begin, of `read_cursor`.
        at: And at what in that stream.

    Raises:
        RefusedError: `invalid`, the place to begin at is none of this store.
    """
    streams = [stream for stream in source.streams() if set(stream.kinds) & set(kinds)]
    names = [stream.name for stream in streams]
    if stream_name is not None:
        if stream_name not in names:
            raise RefusedError("invalid", "pages: the cursor is of another store or another kind")
        names = names[names.index(stream_name) :]
    reader = source.reader()
    given = at
    for number, name in enumerate(names):
        part, going = Range(0, name, None, None), True
        while going:
            try:
                page = reader.read(part, at, limits)
            except (ValueError, OverflowError):
                if at is None or at != given:
                    raise
                raise RefusedError("invalid", "pages: that is no cursor") from None
            at, going = page.next, page.next is not None
            batch = page.records.filter(rows_of(page.records, kinds))
            records = [r for r in from_batch(batch) if _in_scope(r, scope)]
            following = (name, at) if going else (names[number + 1], None) if number + 1 < len(names) else None
            yield RecordPage(records, _write_cursor(following), page.quarantined)


def read_cursor(cursor: str | None) -> tuple[str | None, str | None]:
    """The stream and the place in it where a listing goes on.

    Raises:
        RefusedError: `invalid`, that is no cursor.
    """
    if cursor is None:
        return None, None
    try:
        name, at = json.loads(base64.urlsafe_b64decode(cursor))
    except (ValueError, TypeError):
        name, at = None, None
    if not isinstance(name, str) or not isinstance(at, str | None):
        raise RefusedError("invalid", "pages: that is no cursor")
    return name, at


def _in_scope(record: Record, scope: dict[str, str]) -> bool:
    return not scope or all(getattr(record.scope, part) == value for part, value in scope.items())


def _write_cursor(following: tuple[str, str | None] | None) -> str | None:
    if following is None:
        return None
    return base64.urlsafe_b64encode(json.dumps(following).encode()).decode("ascii")
