"""A source every page of which somebody sees on its way."""

from __future__ import annotations

from abc import ABC, abstractmethod

from memferry.backends.api import Reader, Source
from memferry.model import Limits, Page, Range, Stream

__all__ = ["SeenSource"]


class SeenSource(ABC):
    """A `memferry.backends.api.Source` in front of another: the same streams, and pages as `see` gives them on."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.backend = source.backend
        self.profile = source.profile
        self.native = source.native
        self.identity = source.identity

    @abstractmethod
    def see(self, part: Range, cursor: str | None, page: Page) -> Page:
        """A page that was read of `part` after `cursor`, as it goes on; called by several threads."""

    def streams(self) -> list[Stream]:
        """See `memferry.backends.api.Source`."""
        return self._source.streams()

    def split(self, stream: Stream, parts: int) -> list[tuple[str | None, str | None]]:
        """See `memferry.backends.api.Source`."""
        return self._source.split(stream, parts)

    def reader(self) -> Reader:
        """See `memferry.backends.api.Source`."""
        return _SeenReader(self._source.reader(), self)

    def witness(self) -> str | None:
        """See `memferry.backends.api.Source`."""
        return self._source.witness()

    def close(self) -> None:
        """See `memferry.backends.api.Source`."""
        self._source.close()


class _SeenReader:
    def __init__(self, reader: Reader, source: SeenSource) -> None:
        self._reader = reader
        self._source = source

    def read(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        """See `memferry.backends.api.Reader`."""
        return self._source.see(part, cursor, self._reader.read(part, cursor, limits))
