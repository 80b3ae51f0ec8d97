"""Reading a range page by page, kinds apart where the target wants them one after another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, wait
from typing import Final

from memferry.backends.api import Reader, Source
from memferry.model import Limits, Page, Range, rows_of
from memferry.retry import retrying

__all__ = [
    "LOOK_UP_SECS",
    "OwnCount",
    "all_done",
    "read_page",
    "read_pages",
    "read_stream",
]

LOOK_UP_SECS: Final = 0.5
"""How long a wait of the main thread may keep a signal from being seen."""


def read_page(reader: Reader, part: Range, cursor: str | None, limits: Limits) -> Page:
    """Reads one page of a range, and leaves out the kinds it is not for.

    Rows that could not be decoded belong to no kind: the range for entities, the first, has them.
    """
    page = reader.read(part, cursor, limits)
    if part.kinds is None:
        return page
    mask = rows_of(page.records, part.kinds)
    first = "entity" in part.kinds
    quarantined = [row for row in page.quarantined if (row.kind in part.kinds if row.kind else first)]
    exploded = page.exploded if "observation" in part.kinds else 0
    records = page.records.filter(mask)
    return Page(records, quarantined, len(records) - exploded + len(quarantined), exploded, page.next)


def read_pages(source: Source, part: Range, limits: Limits) -> Iterator[Page]:
    """All pages of a range."""
    reader, cursor = source.reader(), None
    while True:
        page = retrying(lambda at=cursor: read_page(reader, part, at, limits))  # type: ignore[misc]
        yield page
        cursor = page.next
        if cursor is None:
            return


def read_stream(source: Source, stream: str, limits: Limits) -> Iterator[Page]:
    """All pages of a stream."""
    return read_pages(source, Range(0, stream, None, None), limits)


class OwnCount:
    """What a store says it holds, asked before it is read and after, against the rows that were read."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._before = self._rows()

    def _rows(self) -> dict[str, int]:
        """Rows by stream, of streams that can tell."""
        return {stream.name: stream.rows for stream in retrying(self._source.streams) if stream.rows is not None}

    def unread(self, read: Mapping[str, int]) -> int:
        """How far what was read, by stream, is from the count; 0 where a store that is in use may have had as many."""
        after = self._rows()
        apart = 0
        for name, rows in self._before.items():
            fewest, most = sorted((rows, after.get(name, rows)))
            got = read.get(name, 0)
            apart += max(fewest - got, got - most, 0)
        return apart


def all_done(work: Iterable[Future[None]]) -> None:
    """Waits for all of `work` and raises what the first of it raised.

    It looks up now and then: a signal that comes just as a wait begins would be handled only when that ends.
    """
    futures = list(work)
    pending = set(futures)
    while pending:
        _, pending = wait(pending, timeout=LOOK_UP_SECS)
    for future in futures:
        future.result()
