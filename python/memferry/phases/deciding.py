"""What the plan decides of records while it scans the source: which go on, which say the same."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from memferry._native import Batch, DedupKeys, Keys, Sample
from memferry.backends.api import Source
from memferry.endpoint import EndpointSettings
from memferry.errors import RefusedError
from memferry.model import Limits, Range
from memferry.phases.embedding import reached
from memferry.phases.reading import read_pages
from memferry.phases.transform import EXAMPLES, MAX_LIMIT, Applied, Decisions, Duplicates, Transform

__all__ = ["Deciding"]

_EXAMPLE_IDS: Final = 3
_NONE: Final = "0" * 32
"""The sample of a source without records."""


class Deciding:
    """Collects, while the plan scans the source, what its decisions need."""

    def __init__(self, asked: Decisions, endpoint: EndpointSettings | None = None) -> None:
        """Checks what was asked; an endpoint for embeddings has to answer.

        Args:
            asked: The user's.
            endpoint: How it is asked.

        Raises:
            RefusedError: `invalid`, `where`, `profile`, `unauthorized`.
            StoreError: The endpoint failed.
        """
        asked.check()
        sample = None
        if asked.embedding is not None:
            embedding, sample = reached(asked.embedding, endpoint or EndpointSettings())
            asked = replace(asked, embedding=embedding)
        self._asked = asked
        self.transform = Transform(asked, sample=sample)
        self.embedded = self.embedded_bytes = 0
        self._keys = None if asked.dedup == "off" else DedupKeys(exact=asked.dedup == "exact")
        self._sample = None if asked.sample is None else Sample(asked.sample)
        self._firsts: dict[int, list[tuple[str, str]]] = {}
        self._lock = threading.Lock()
        self.passing = 0

    def see(self, part: Range, batch: Batch) -> Applied:
        """Takes a batch in; what the decisions known so far make of it."""
        applied = self.transform.apply(batch)
        if self._keys is not None:
            self._keys.add(applied.records)
        if self._sample is not None:
            self._sample.add(applied.records)
        with self._lock:
            self.embedded += applied.embedded
            self.embedded_bytes += applied.embedded_bytes
            self.passing += len(applied.records)
            if self._asked.limit is not None:
                self._first(part.number, applied.records, self._asked.limit)
        return applied

    def _first(self, number: int, records: Batch, limit: int) -> None:
        mine = self._firsts.setdefault(number, [])
        # All of the ranges before this one come first, however far they are.
        before = sum(len(ids) for other, ids in self._firsts.items() if other < number)
        room = limit - before - len(mine)
        if room > 0:
            mine += records.take(list(range(min(room, len(records))))).identities()

    def decide(
        self, source: Source, ranges: Iterable[Range], keys: Keys, limits: Limits
    ) -> tuple[Decisions, Duplicates]:
        """The decisions, and what was found of records that say the same.

        Args:
            source: Read again where there are such records.
            ranges: The plan's, in the order of the source.
            keys: Kind and id of every record that was seen.
            limits: Bounds of a page.
        """
        decided = self._asked
        if self._sample is not None:
            decided = replace(decided, largest=self._sample.largest() or _NONE)
        if decided.limit is not None:
            firsts = [identity for number in sorted(self._firsts) for identity in self._firsts[number]]
            decided = replace(decided, kept=tuple(firsts[: decided.limit]))
        if self._keys is None:
            return decided, Duplicates()
        repeated, records = self._keys.repeated()
        self._keys = None
        if not len(repeated):
            return decided, Duplicates()
        exact = decided.dedup == "exact"
        groups, merged = self._again(source, ranges, repeated, keys.repeated(), limits, exact=exact)
        examples = [group for group in groups.values() if len(group) > 2][:EXAMPLES]  # the kind and two ids
        found = Duplicates(len(repeated), records, tuple(tuple(group) for group in examples))
        return replace(decided, merged=_resolvable(merged, keys)), found

    def _again(
        self, source: Source, ranges: Iterable[Range], repeated: DedupKeys, twice: Keys, limits: Limits, *, exact: bool
    ) -> tuple[dict[str, list[str]], list[tuple[str, str, str]]]:
        """Reads those records again, in the order of the source, so that the first of a group is its winner.

        Without `exact` only until there are examples.
        """
        groups: dict[str, list[str]] = {}
        merged: list[tuple[str, str, str]] = []
        complete = 0
        for part in ranges:
            for page in read_pages(source, part, limits):
                records = self.transform.apply(page.records).records
                members = repeated.members(records)
                chosen = records.take([row for row, _ in members])
                # An id that stands twice names no record that others could be merged into.
                known = zip(members, chosen.identities(), twice.contains(chosen), strict=True)
                for (_, key), (kind, identity), unclear in known:
                    if unclear:
                        continue
                    group = groups.setdefault(key, [kind])
                    if exact and len(group) > 1:
                        merged.append((kind, identity, group[1]))
                        if len(merged) > MAX_LIMIT:
                            raise RefusedError("invalid", f"dedup `exact` would merge more than {MAX_LIMIT} records")
                    if len(group) <= _EXAMPLE_IDS:
                        group.append(identity)
                        complete += len(group) == 3  # the kind and two ids
                if not exact and complete >= EXAMPLES:
                    return groups, merged
        return groups, merged


def _resolvable(merged: list[tuple[str, str, str]], keys: Keys) -> tuple[tuple[str, str, str], ...]:
    """Without memories that have the id of an entity: an end of a relation with that id is the entity."""
    there = keys.contains_identities([("entity", loser) for _, loser, _ in merged])
    return tuple(one for one, clash in zip(merged, there, strict=True) if one[0] != "memory" or not clash)
