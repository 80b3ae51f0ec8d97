"""Deletions: what the source no longer has goes from the target too, last, and only where it is as we wrote it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

from memferry._native import Batch, Keys, standings
from memferry.backends.api import Source, Target, as_foreign
from memferry.batches import to_batch
from memferry.errors import RefusedError
from memferry.failpoints import failpoint
from memferry.ledger import Ledger, RangeState
from memferry.model import FOREIGN, INTACT, Page, inverted, rows_with
from memferry.phases.plan import Options, Plan, Stop
from memferry.phases.reading import OwnCount, read_pages, read_stream
from memferry.phases.transform import Transform
from memferry.records import Record
from memferry.retry import retrying

__all__ = ["Present", "carry_deletions", "delete_gone", "named", "refuse_unreadable"]

DELETIONS = 999_999
"""Number under which deletions are booked, after every range."""


def carry_deletions(
    plan: Plan,
    source: Source,
    target: Target,
    ledger: Ledger,
    options: Options,
    stop: Stop,
) -> None:
    """Deletes records that this migration wrote, that are as it wrote them, and that the source no longer has.

    Raises:
        RefusedError: `max-deletes`, when too many would go, or when the source could not be read completely.
    """
    refuse_unreadable(ledger)
    keys = _present(plan, source, target, options, stop)
    delete_gone(
        plan.migration,
        target,
        ledger,
        keys,
        lambda ours: ours * options.max_deletes_percent / 100,
        options,
        stop,
        hint="look at the source first; --max-deletes raises the limit",
    )


def refuse_unreadable(ledger: Ledger) -> None:
    """Refuses where a row of the source is no record: it may be one that seems to be gone.

    Raises:
        RefusedError: `max-deletes`.
    """
    if any(row.id is None for _, row in retrying(lambda: list(ledger.quarantined()))):
        raise RefusedError("max-deletes", "rows of the source could not be read, so nothing can be called deleted")


def delete_gone(
    migration: str,
    target: Target,
    ledger: Ledger,
    keys: Keys,
    allowed: Callable[[int], float],
    options: Options,
    stop: Stop,
    *,
    hint: str,
    touching: int | None = None,
) -> int:
    """Deletes what the migration wrote, is as it wrote it, and is not among `keys`; how many.

    Args:
        migration: Whose records.
        target: Where they are.
        ledger: Holds the lock.
        keys: What the source has, under the ids of the target.
        allowed: How many of so many may go.
        options: Bounds of a page.
        stop: Checked between pages.
        hint: What to do where more would go.
        touching: Number of the pass under which they are noted, None for none.

    Raises:
        RefusedError: `max-deletes`.
    """
    store = retrying(target.source)
    if store is None:
        return 0
    gone, ours = _gone(store, keys, migration, options, stop)
    limit = allowed(ours)
    if len(gone) > limit:
        message = f"{len(gone)} of {ours} records would be deleted, allowed are {int(limit)}"
        raise RefusedError("max-deletes", message, hint=hint)
    if not gone:
        return 0

    def delete() -> int:
        with target.transaction():
            ledger.check()
            deleted = gone
            if target.delete(gone) < len(gone):
                # An entity stays where others have tied something to it.
                left = set(target.fetch(named(gone)).identities())
                deleted = [identity for identity in gone if identity not in left]
            failpoint("deleted")
            state = RangeState(done=True)
            for kind, _ in deleted:
                state.books.of(kind).deleted += 1
            ledger.save_range(DELETIONS, state)
            if touching is not None:
                ledger.touch(touching, DELETIONS, 0, deleted)
        return len(deleted)

    return retrying(delete)


def named(identities: list[tuple[str, str]]) -> Batch:
    """Records of nothing but kinds and ids."""
    return to_batch([Record(kind, one) for kind, one in identities])  # type: ignore[arg-type]


class Present:
    """What the source has, under the identities of the target.

    Attributes:
        keys: Its identities.
    """

    def __init__(self, plan: Plan, target: Target) -> None:
        self.keys = Keys()
        self._foreign = as_foreign(target)
        # A mapping or a merge may change what a foreign target files a record under; an embedding does not.
        decided = replace(plan.transform, embedding=None)
        renames = self._foreign is not None and bool(decided.mapping is not None or decided.merged)
        self._transform = Transform(decided, plan.accept) if renames else None

    def see(self, page: Page) -> None:
        """Adds a page as it was read. Threads may share it."""
        bad = [(row.kind, row.id) for row in page.quarantined if row.kind and row.id]
        if self._foreign is None:
            self.keys.add(page.records)
        else:
            self.keys.add_identities(self._foreign.filed(page.records))
            if self._transform is not None:
                self.keys.add_identities(self._foreign.filed(self._transform.apply(page.records).records))
            bad = self._foreign.filed_under(bad)
        # What cannot be read is there all the same.
        self.keys.add_identities(bad)


def _present(plan: Plan, source: Source, target: Target, options: Options, stop: Stop) -> Keys:
    """Reads what the source has.

    Raises:
        RefusedError: `max-deletes`, where the source says it has more or fewer rows than were read.
    """
    present, count, read = Present(plan, target), OwnCount(source), Counter[str]()
    for part in plan.ranges:
        for page in read_pages(source, part, options.limits):
            stop.check()
            read[part.stream] += page.read
            present.see(page)
    if unread := count.unread(read):
        raise RefusedError(
            "max-deletes",
            f"{read.total()} rows of the source were read, {unread} more or fewer than it says it has, so nothing can "
            "be called deleted",
            hint="call it again while nobody writes to the source",
        )
    return present.keys


def _gone(
    store: Source,
    keys: Keys,
    migration: str,
    options: Options,
    stop: Stop,
) -> tuple[list[tuple[str, str]], int]:
    gone: list[tuple[str, str]] = []
    ours = 0
    for stream in retrying(store.streams):
        for page in read_stream(store, stream.name, options.limits):
            stop.check()
            standing = standings(page.records, migration)
            ours += len(standing) - standing.count(FOREIGN)
            intact = page.records.filter(rows_with(standing, INTACT))
            gone += intact.filter(inverted(keys.contains(intact))).identities()
    store.close()
    return gone, ours
