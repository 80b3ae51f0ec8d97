"""Sync passes of a migration that is carried out while its source is written: each a whole, three-way comparison.

No backend tells what changed since: a pass reads everything, writes what differs, and deletes what the source no
longer has. What passes wrote is noted, and the last pass before a switch is followed by one that must find nothing: it
compares every record, so it verifies what was noted, and it keeps what the source is like (`docs/adr/0007`).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Final, Protocol, runtime_checkable

from memferry._native import Batch, Keys, blake3_hex
from memferry.backends.api import Source, Target
from memferry.backends.seen import SeenSource
from memferry.errors import NotProvenError, RefusedError
from memferry.ledger import Ledger
from memferry.model import Page, Range
from memferry.phases import stages
from memferry.phases.copy import Observer
from memferry.phases.deletions import Present, delete_gone, named, refuse_unreadable
from memferry.phases.plan import Plan
from memferry.phases.stages import Run
from memferry.retry import retrying

__all__ = ["Baseline", "Passed", "Passes", "Seeing", "Settled", "allowed_deletes", "settled"]

FEWEST_DELETES: Final = 100
SHOWN: Final = 100
_HASH: Final = 8
"""Bytes of the hash of an identity."""
_ENTRY: Final = _HASH + 16
_HINT: Final = "look at the source first; spec.transfer.maxDeletes raises the limit"


def allowed_deletes(chosen: int | None, ours: int) -> float:
    """How many of so many records a pass may delete: what was chosen, else the larger of 100 and one per cent."""
    return max(FEWEST_DELETES, ours // 100) if chosen is None else chosen


@runtime_checkable
class Versioned(Protocol):
    """A source that tells whether anything at all was written to it."""

    def version(self) -> int:
        """Another number after every write of somebody else, while the source is open."""


@dataclass(frozen=True)
class Passed:
    """What a pass did.

    Attributes:
        changed: Records written.
        deleted: Records deleted.
        conflicts: Records that were left alone, because somebody else changed them.
        pass_secs: How long a whole pass takes, as last measured.
        verify_secs: How long the comparison after the last pass takes.
        complete: The source was read completely, so deletions were carried.
        listed: Kind and id of some of those left alone.
    """

    changed: int
    deleted: int
    conflicts: int
    pass_secs: float
    verify_secs: float
    complete: bool
    listed: tuple[tuple[str, str], ...] = ()

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        return self.complete and not (self.changed or self.deleted or self.conflicts)


@dataclass(frozen=True)
class Settled:
    """What the last pass and the comparison after it came to.

    Attributes:
        changed: Records that the pass wrote or deleted.
        verified: Touched records that are as they should be.
        missing: Touched records that are not in the target.
        different: Touched records that are there and should not be, or are different.
    """

    changed: int
    verified: int
    missing: int
    different: int


class Seeing(Observer):
    """Notes what is written, and keeps what is seen."""

    def __init__(self, ledger: Ledger, number: int, touched: Keys | None, *, keep: bool) -> None:
        self._ledger = ledger
        self._number = number
        self._touched = touched
        self._keep = keep
        self.confirmed = Keys()

    def seen(self, part: Range, page: int, records: Batch) -> None:
        """See `Observer`."""
        if self._keep and len(records):
            self._ledger.save_baseline(part.number, page, Baseline.packed(records))

    def unchanged(self, images: Batch) -> None:
        """See `Observer`."""
        if self._touched is not None:
            self.confirmed.add(images.filter(self._touched.contains(images)))

    def written(self, part: Range, page: int, images: Batch) -> None:
        """See `Observer`."""
        self._ledger.touch(self._number, part.number, page, images.identities())


class _Watched(SeenSource):
    """A source that remembers what was read of it."""

    def __init__(self, source: Source, plan: Plan, target: Target) -> None:
        super().__init__(source)
        self.present = Present(plan, target)

    def see(self, part: Range, cursor: str | None, page: Page) -> Page:  # noqa: ARG002 - what a source sees
        """Remembers a page."""
        self.present.see(page)
        return page


class Baseline:
    """What the source was like at the switch: a part of a hash of each identity, and its digest."""

    def __init__(self, ledger: Ledger) -> None:
        self._known, self._as_was = Keys(), Keys()
        self.records = 0
        for packed in ledger.baseline():
            entries = [packed[at : at + _ENTRY].hex() for at in range(0, len(packed), _ENTRY)]
            self.records += len(entries)
            self._known.add_identities([("memory", entry[: 2 * _HASH]) for entry in entries])
            self._as_was.add_identities([("memory", entry) for entry in entries])

    @staticmethod
    def _entries(records: Batch) -> list[str]:
        identities = records.identities()
        hashes = (
            blake3_hex(f"{kind}\0{one}".encode("utf-8", "surrogatepass"))[: 2 * _HASH] for kind, one in identities
        )
        return [hashed + digest for hashed, digest in zip(hashes, records.digests(), strict=True)]

    @classmethod
    def packed(cls, records: Batch) -> bytes:
        """Records of the source in the form they are kept in."""
        return bytes.fromhex("".join(cls._entries(records)))

    def known(self, records: Batch) -> bytes:
        """One byte a record: 1 where the source had its kind and id."""
        return self._known.contains_identities([("memory", entry[: 2 * _HASH]) for entry in self._entries(records)])

    def as_was(self, records: Batch) -> bytes:
        """One byte a record: 1 where the source had it as it is."""
        return self._as_was.contains_identities([("memory", entry) for entry in self._entries(records)])


class Passes:
    """Forward passes of one migration, by a process that keeps both ends open.

    Args:
        run: The migration, under its one lock.
        max_deletes: How many records a pass may delete; None for the larger of 100 and one per cent.

    Raises:
        RefusedError: `unsupported`.
    """

    def __init__(self, run: Run, max_deletes: int | None = None) -> None:
        if getattr(run.target, "gathers", None) is not None:
            raise RefusedError(
                "unsupported",
                f"profile `{run.target.profile}` keeps observations inside their entities, and takes no passes",
                hint="strategy Offline copies it while nobody writes",
            )
        self._run = run
        self._max_deletes = max_deletes
        self._plan = stages.bound_plan(run, copied=True)
        self._last_secs = 0.0
        self._seen_version: int | None = None

    def forward(self, number: int, *, touched: Keys | None = None, keep: bool = False) -> tuple[Passed, Keys]:
        """One pass.

        Args:
            number: Its number.
            touched: Records whose state is asked for.
            keep: Whether the source is kept as it is now, to know later what was written to it.

        Returns:
            What it did, and those of `touched` that the target has as they should be.

        Raises:
            RefusedError: `max-deletes`.
        """
        run, began = self._run, time.monotonic()
        version = run.source.version() if isinstance(run.source, Versioned) else None
        if touched is None and version is not None and version == self._seen_version:
            # Nobody wrote to the source since the last pass began to read it.
            return Passed(0, 0, 0, self._last_secs, self._last_secs, complete=True), Keys()
        plan = self._plan
        if plan.source.get("witness") != run.source.witness():
            plan = replace(plan, ranges=stages.whole(run.source))
        before = _counted(run.source)

        def begin() -> None:
            with run.target.transaction():
                run.ledger.check()
                run.ledger.start_run(self._plan.to_json(), at_pass=number)
                if keep:
                    run.ledger.forget_baseline()

        retrying(begin)
        watched = _Watched(run.source, plan, run.target)
        seeing = Seeing(run.ledger, number, touched, keep=keep)
        reading = replace(run, source=watched)
        retrying(lambda: run.target.prepare(plan.migration, plan.vectors))
        stages.transfer(reading, plan, resumed=True, observer=seeing)
        books = retrying(run.ledger.books)
        complete = before is None or before == _counted(run.source) == books.total("read")
        deleted = 0
        if complete:
            refuse_unreadable(run.ledger)
            deleted = delete_gone(
                plan.migration,
                run.target,
                run.ledger,
                watched.present.keys,
                lambda ours: allowed_deletes(self._max_deletes, ours),
                run.options,
                run.stop,
                hint=_HINT,
                touching=number,
            )
        retrying(lambda: run.target.finish(plan.migration, list(plan.ranges)))
        stages.settle(run, state="done")
        self._last_secs = time.monotonic() - began
        self._seen_version = version if complete else None
        listed = tuple((c["kind"], c["id"]) for c in retrying(lambda: list(run.ledger.conflicts())))
        done = Passed(
            books.total("written"), deleted, len(listed), self._last_secs, self._last_secs, complete, listed[:SHOWN]
        )
        return done, seeing.confirmed

    def final(self, number: int) -> Settled:
        """The last pass while nobody writes, and the comparison that must find nothing to do.

        Raises:
            NotProvenError: It found something.
        """
        first, _ = self.forward(number)
        touched = Keys()
        for some in retrying(lambda: list(self._run.ledger.touched())):
            touched.add_identities(some)
        second, confirmed = self.forward(number + 1, touched=touched, keep=True)
        return settled(self._run, first, second, confirmed)


def settled(run: Run, first: Passed, second: Passed, confirmed: Keys) -> Settled:
    """What two passes one after another say of everything that was touched.

    Raises:
        NotProvenError: The second found something to do.
    """
    if not second.idle:
        left = "" if second.complete else ", and could not be read completely"
        raise NotProvenError(
            "not-proven",
            f"after the last pass {second.changed} records were written again, {second.deleted} deleted and "
            f"{second.conflicts} left alone{left}: somebody still writes",
        )
    verified = missing = different = 0
    for some in retrying(lambda: list(run.ledger.touched())):
        for identity, there in zip(some, confirmed.contains_identities(some), strict=True):
            verified += there
            if there:
                continue
            # The source does not have it, or the pass would have written it again: so nobody may.
            held = retrying(lambda of=identity: run.target.fetch(named([of])))  # type: ignore[misc]
            verified += not len(held)
            different += len(held)
    if not different:
        retrying(run.ledger.forget_touched)
    return Settled(first.changed + first.deleted, verified, missing, different)


def _counted(source: Source) -> int | None:
    """Rows in a source as it counts them itself, None where it cannot tell."""
    rows = [stream.rows for stream in retrying(source.streams)]
    return None if None in rows else sum(row or 0 for row in rows)
