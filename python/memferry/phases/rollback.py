"""Rollback: takes out what this migration wrote and is still as it wrote it, and puts back what it wrote over."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from memferry._native import Batch, Keys, classify, standings
from memferry.backends.api import Target
from memferry.backends.jsonl import JsonlTarget
from memferry.errors import RefusedError
from memferry.failpoints import failpoint
from memferry.ledger import Ledger
from memferry.model import CHANGED, CREATE, INTACT, UNCHANGED, UPDATE, Limits, inverted, rows_with
from memferry.phases.plan import Stop
from memferry.phases.reading import read_stream
from memferry.profiles import load_mapper
from memferry.retry import retrying

__all__ = ["RolledBack", "rollback"]

_ORIGINALS: Final = 500
"""Saved records that are put back at a time."""


@dataclass
class RolledBack:
    """What was done.

    Attributes:
        deleted: Records taken out.
        restored: Records put back as they were.
        kept: Kind and id of records that someone changed since; they stay.
    """

    deleted: int = 0
    restored: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)


def rollback(target: Target, ledger: Ledger, *, stop: Stop | None = None) -> RolledBack:
    """Undoes a migration. Can be killed and called again; a server that is away for a moment is waited for.

    Raises:
        RefusedError: `no-migration`; `existing` when a file is not as this migration left it.
    """
    run = retrying(ledger.run)
    if run is None:
        raise RefusedError("no-migration", f"the target knows no migration {ledger.migration}")
    if run["state"] == "rolled_back":
        return RolledBack()  # And nothing of it has been written since.
    with ledger.held(target):
        done = _file(target, ledger) if isinstance(target, JsonlTarget) else _records(target, ledger, stop or Stop())
        retrying(lambda: target.drop_created(ledger.migration))
        retrying(lambda: _settle(target, ledger))
    return done


def _settle(target: Target, ledger: Ledger) -> None:
    with target.transaction():
        ledger.check()
        ledger.forget()
        ledger.save_run(state="rolled_back")


def _file(target: JsonlTarget, ledger: Ledger) -> RolledBack:
    migration = ledger.migration
    if target.untouched(migration):
        return RolledBack()  # Nothing was renamed into place yet, or it has been put back already.
    if not target.is_as_left(migration):
        if target.documents.get(migration, "joined") == "restored":
            return RolledBack()  # A rollback that was killed has put it back, and somebody has changed it since.
        raise RefusedError(
            "existing",
            "the file has been changed since this migration wrote it",
            hint="put the changes elsewhere first; the file as it was before lies beside it",
        )
    previous = target.mixed(migration)
    if previous is not None:
        was = f"{previous} is the file as it was before" if previous.exists() else "there was no file before"
        raise RefusedError(
            "existing",
            "others changed the file between two runs of this migration; putting it back would take their lines away",
            hint=f"{was}: save their lines, put it back by hand, and call this again",
        )
    store = target.source()
    records = 0
    if store is not None:
        records = sum(len(p.records) for s in store.streams() for p in read_stream(store, s.name, Limits()))
    target.documents.put(migration, "joined", "restored")
    failpoint("before-restore")
    had_one = target.restore_previous(migration)
    return RolledBack(deleted=0 if had_one else records, restored=1 if had_one else 0)


def _records(target: Target, ledger: Ledger, stop: Stop) -> RolledBack:
    result = RolledBack()
    store = retrying(target.source)
    if store is None:
        return result
    # First what was written over: an entity can only be taken out once no restored relation needs it.
    originals = Keys()
    for batch in _originals(ledger):
        stop.check()
        originals.add(batch)
        _restore(target, ledger, batch, result)
    for stream in retrying(store.streams):
        for page in read_stream(store, stream.name, Limits()):
            stop.check()
            _page(target, ledger, page.records, originals, result)
    store.close()
    retrying(lambda: target.finish(ledger.migration, []))
    return result


def _originals(ledger: Ledger) -> Iterator[Batch]:
    """What this migration wrote over, as it was."""
    mapper = load_mapper("native", "document")
    after = ""
    while some := retrying(lambda after=after: list(islice(ledger.originals(after), _ORIGINALS))):  # type: ignore[misc]
        yield mapper.decode(Batch.from_rows([(key, text.encode(), []) for key, text in some]))[0]
        after = some[-1][0]


def _restore(target: Target, ledger: Ledger, originals: Batch, result: RolledBack) -> None:
    """Puts records back, but for those that someone changed since they were written over."""

    def once() -> bytes:
        actions = classify(originals, target.fetch(originals), ledger.migration)
        # Unchanged: an earlier rollback that was killed, or a try that was cut off, has put it back already.
        restore = rows_with(actions, CREATE, UPDATE, UNCHANGED)
        batch = originals.filter(restore)
        if len(batch):
            with target.transaction():
                ledger.check()
                target.restore(batch)
                failpoint("restored")
        return restore

    restore = retrying(once)
    result.restored += len(originals.filter(restore))
    result.kept += originals.filter(inverted(restore)).identities()


def _page(target: Target, ledger: Ledger, batch: Batch, originals: Keys, result: RolledBack) -> None:
    batch = batch.filter(inverted(originals.contains(batch)))
    standing = standings(batch, ledger.migration)
    intact = batch.filter(rows_with(standing, INTACT))
    ours = intact.identities()
    tried = False

    def once() -> int:
        nonlocal tried
        again, tried = tried, True
        with target.transaction():
            ledger.check()
            deleted = target.delete(ours)
            failpoint("deleted")
        # A try that was cut off may have deleted some that are counted nowhere.
        return len(ours) - len(target.fetch(intact)) if again else deleted

    if ours:
        result.deleted += retrying(once)
    result.kept += batch.filter(rows_with(standing, CHANGED)).identities()
