"""Gathering: a source whose observations are brought to their entities, for targets that keep them inside."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Final

from memferry._native import Batch, Keys, Mapper, Spill
from memferry.backends.api import Foreign, Reader, Source, Target, as_foreign
from memferry.model import Limits, Page, Quarantined, Range, Stream, inverted, rows_of
from memferry.phases.reading import read_stream

__all__ = ["Gathered", "gathered_source"]

SPILL_BYTES: Final = 64 << 20
"""Memory of the sort; what is beyond it lies in the state directory."""
_LIMITS: Final = Limits()
_OWNERS: Final = {"entity", "observation"}


def gathered_source(source: Source, target: Target) -> Source:
    """The source as `target` wants to read it."""
    folder: Path | None = getattr(target, "gathers", None)
    foreign = as_foreign(target)
    return source if folder is None or foreign is None else Gathered(source, target, foreign, folder)


def _observations(records: Batch) -> bytes:
    return rows_of(records, ["observation"])


class Gathered:
    """Entities come with their observations; those without an entity are quarantined where they are read.

    Attributes:
        gaps: What the observations have that the target has no place for.
    """

    def __init__(self, source: Source, target: Target, foreign: Foreign, folder: Path) -> None:
        self._source = source
        self._target = target
        self._foreign = foreign
        self._folder = folder
        self._gathered = False
        self._lock = threading.Lock()
        self.gaps: list[tuple[str, int, str]] = []
        self.backend = source.backend
        self.profile = source.profile
        self.native = source.native
        self.identity = source.identity

    def gather(self) -> None:
        """Reads the observations; again, for a proof that does not rest on what was read for the copy."""
        self.gaps = []
        self._spill = Spill(self._folder, SPILL_BYTES)
        self._entities = Keys()
        for stream in self._source.streams():
            if _OWNERS.isdisjoint(stream.kinds):
                continue
            for page in read_stream(self._source, stream.name, _LIMITS):
                mask = _observations(page.records)
                self._entities.add(page.records.filter(inverted(mask)))
                observations = page.records.filter(mask)
                self.gaps += self._target.gaps(observations)
                self._spill.add(observations.filter(self._held(observations)[0]))
        displaced = self._spill.displaced()
        if displaced is not None:
            self.gaps.append(("ids", *displaced))
        self._gathered = True

    def _held(self, observations: Batch) -> tuple[bytes, list[Quarantined]]:
        """Those that the target has a place for, and the others."""
        _, bad = self._foreign.fit(observations)
        if not bad:
            return b"\1" * len(observations), []
        keys = Keys()
        keys.add_identities([(row.kind or "", row.id or "") for row in bad])
        return inverted(keys.contains(observations)), bad

    def streams(self) -> list[Stream]:
        """See `memferry.backends.api.Source`."""
        return self._source.streams()

    def split(self, stream: Stream, parts: int) -> list[tuple[str | None, str | None]]:
        """See `memferry.backends.api.Source`."""
        return self._source.split(stream, parts)

    def reader(self) -> Reader:
        """See `memferry.backends.api.Source`."""
        with self._lock:
            if not self._gathered:
                self.gather()
        return _GatheredReader(self._source.reader(), self)

    def page(self, page: Page) -> Page:
        """A page with its observations taken out and those of its entities brought in."""
        mask = _observations(page.records)
        observations = page.records.filter(mask)
        held, bad = self._held(observations)
        # An observation that does not fit is told once, with its reason.
        orphans = observations.filter(held)
        orphans = orphans.filter(inverted(self._entities.contains_owners(orphans)))
        lost = Mapper.quarantine(orphans, "missing-end", "its owner is no entity of the source")
        records, nested = self._spill.attach(page.records.filter(inverted(mask)))
        quarantined = [*page.quarantined, *bad, *(Quarantined(*row) for row in lost)]
        return Page(records, quarantined, page.read, page.exploded, page.next, nested)

    def witness(self) -> str | None:
        """See `memferry.backends.api.Source`."""
        return self._source.witness()

    def close(self) -> None:
        """See `memferry.backends.api.Source`."""
        self._source.close()


class _GatheredReader:
    def __init__(self, reader: Reader, gathered: Gathered) -> None:
        self._reader = reader
        self._gathered = gathered

    def read(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        """See `memferry.backends.api.Reader`."""
        return self._gathered.page(self._reader.read(part, cursor, limits))
