"""Gathering: observations are brought to their entities, for targets that keep them inside."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Final, Protocol

from memferry._native import Batch, Keys, Mapper, Spill
from memferry.backends.api import Foreign, Source, Target, as_foreign
from memferry.model import Limits, Quarantined, inverted, rows_of
from memferry.phases.reading import read_stream
from memferry.phases.transform import Applied, Transform

__all__ = ["Applies", "Gathering", "owners", "with_gathering"]

SPILL_BYTES: Final = 64 << 20
"""Memory of the sort; what is beyond it lies in the state directory."""
_LIMITS: Final = Limits()
_OWNERS: Final = {"entity", "observation"}


class Applies(Protocol):
    """What is done with a batch between reading and writing."""

    def apply(self, batch: Batch) -> Applied:
        """Runs over a batch."""
        ...


def with_gathering(transform: Transform, source: Source, target: Target) -> Applies:
    """The transform, and after it what `target` wants of the records."""
    folder: Path | None = getattr(target, "gathers", None)
    foreign = as_foreign(target)
    return transform if folder is None or foreign is None else Gathering(transform, source, foreign, folder)


def owners(records: Batch, target: Target) -> Batch:
    """The records that are filed in `target`, without those that it keeps inside others."""
    return records if getattr(target, "gathers", None) is None else records.filter(inverted(_observations(records)))


def _observations(records: Batch) -> bytes:
    return rows_of(records, ["observation"])


class Gathering:
    """Brings observations to the entities that they belong to after map, filter and dedup. Threads may share it.

    Those whose entity is not moved stay behind with it; those whose entity is nowhere are quarantined.
    """

    def __init__(self, transform: Transform, source: Source, foreign: Foreign, folder: Path) -> None:
        self._transform = transform
        self._source = source
        self._foreign = foreign
        self._folder = folder
        self._lock = threading.Lock()
        self._gathered: tuple[Spill, Keys, Keys] | None = None

    def displaced(self) -> tuple[int, str] | None:
        """How many observations do not get the place that their id says, and the id of one; None where all do."""
        return self._gather()[0].displaced()

    def _gather(self) -> tuple[Spill, Keys, Keys]:
        """Reads the observations, once: them, the entities there are, and those that stay behind."""
        with self._lock:
            if self._gathered is None:
                spill, there, behind = Spill(self._folder, SPILL_BYTES), Keys(), Keys()
                for stream in self._source.streams():
                    if _OWNERS.isdisjoint(stream.kinds):
                        continue
                    for page in read_stream(self._source, stream.name, _LIMITS):
                        applied = self._transform.apply(page.records)
                        mask = _observations(applied.records)
                        there.add(applied.records.filter(inverted(mask)))
                        behind.add(_filtered(applied))
                        observations = applied.records.filter(mask)
                        spill.add(observations.filter(self._held(observations)[0]))
                self._gathered = spill, there, behind
            return self._gathered

    def _held(self, observations: Batch) -> tuple[bytes, list[Quarantined]]:
        """Those that the target has a place for, and the others."""
        _, bad = self._foreign.fit(observations)
        return inverted(_keys(bad).contains(observations)), bad

    def apply(self, batch: Batch) -> Applied:
        """The records with their observations inside them, and what becomes of those that have no place."""
        spill, there, behind = self._gather()
        applied = self._transform.apply(batch)
        mask = _observations(applied.records)
        observations = applied.records.filter(mask)
        held, bad = self._held(observations)
        # An observation that does not fit is told once, with its reason.
        fitting = observations.filter(held)
        orphans = fitting.filter(inverted(there.contains_owners(fitting)))
        stays = behind.contains_owners(orphans)
        filtered = len(orphans.filter(stays))
        lost = Mapper.quarantine(orphans.filter(inverted(stays)), "missing-end", "its owner is no entity of the source")
        records, nested = spill.attach(applied.records.filter(inverted(mask)))
        return replace(
            applied,
            records=records,
            filtered=(*applied.filtered, ("observation", filtered)),
            quarantined=(*applied.quarantined, *bad, *(Quarantined(*row) for row in lost)),
            taken=len(fitting) - len(orphans),
            nested=nested,
        )


def _filtered(applied: Applied) -> Batch:
    """Records that were left out, but for those that are quarantined."""
    if applied.left_out is None:
        return Batch.concat([])
    return applied.left_out.filter(inverted(_keys(applied.quarantined).contains(applied.left_out)))


def _keys(rows: list[Quarantined] | tuple[Quarantined, ...]) -> Keys:
    keys = Keys()
    keys.add_identities([(row.kind, row.id) for row in rows if row.kind is not None and row.id is not None])
    return keys
