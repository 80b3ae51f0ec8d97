"""Rollback: takes out what this migration wrote and is still as it wrote it, and puts back what it wrote over."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
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
        kept: Kind and id of records that stay: someone changed them since, or tied something to them that would go too.
    """

    deleted: int = 0
    restored: int = 0
    kept: list[tuple[str, str]] = field(default_factory=list)


def rollback(target: Target, ledger: Ledger, *, stop: Stop | None = None, command: str = "") -> RolledBack:
    """Undoes a migration. Can be killed and called again; a server that is away for a moment is waited for.

    Called again after its end it takes back what it had to leave, where nobody stands in its way any more.

    Args:
        target: Where it wrote to.
        ledger: Its ledger.
        stop: Checked between pages.
        command: What a person would enter to resume, for `status`.

    Raises:
        RefusedError: `no-migration`; `existing` when a file is not as this migration left it.
    """
    run = retrying(ledger.run)
    if run is None:
        raise RefusedError("no-migration", f"the target knows no migration {ledger.migration}")
    again = run["state"] == "rolled_back"
    if again and isinstance(target, JsonlTarget):
        return RolledBack()  # And nothing of it has been written since.

    def begin() -> None:
        """From here on only a rollback may go on: what the ledger says is done is not there any more."""
        with target.transaction():
            ledger.check()
            ledger.save_run(state="rolling_back", outcome=None, command=command, folder=str(Path.cwd()))

    with ledger.held(target):
        if isinstance(target, JsonlTarget):
            done = _file(target, ledger, begin, begun=run["state"] == "rolling_back")
        else:
            done = _records(target, ledger, begin, stop or Stop(), again=again)
        retrying(lambda: target.drop_created(ledger.migration))
        retrying(lambda: _settle(target, ledger))
    return done


def _settle(target: Target, ledger: Ledger) -> None:
    with target.transaction():
        ledger.check()
        ledger.forget()
        ledger.save_run(state="rolled_back")


def _file(target: JsonlTarget, ledger: Ledger, begin: Callable[[], None], *, begun: bool) -> RolledBack:
    migration = ledger.migration
    if target.untouched(migration) or (begun and target.put_back(migration)):
        # Nothing was renamed into place yet, or it has been put back already. What tells that goes next.
        begin()
        return RolledBack()
    target.check_as_left(migration)
    store = target.source()
    records = 0
    if store is not None:
        records = sum(len(p.records) for s in store.streams() for p in read_stream(store, s.name, Limits()))
    was = ledger.run() or {}
    begin()
    failpoint("before-restore")
    try:
        had_one = target.restore_previous(migration)
    except RefusedError:
        # Somebody wrote into it meanwhile. What is refused leaves the migration as it was.
        with target.transaction():
            ledger.check()
            ledger.save_run(**was)
        raise
    return RolledBack(deleted=0 if had_one else records, restored=1 if had_one else 0)


def _records(target: Target, ledger: Ledger, begin: Callable[[], None], stop: Stop, *, again: bool) -> RolledBack:
    result = RolledBack()
    store = retrying(target.source)
    if store is None:
        return result
    if not again:
        retrying(begin)
    # First what was written over: an entity can only be taken out once no restored relation needs it.
    originals = Keys()
    left = retrying(lambda: {key for key, _ in ledger.originals(left=True)})
    for saved in _originals(ledger, left=again):
        stop.check()
        batch, used = retrying(lambda saved=saved: _before(ledger, saved, left))  # type: ignore[misc]
        originals.add(batch)
        _restore(target, ledger, batch, used, result)
    for stream in retrying(store.streams):
        for page in read_stream(store, stream.name, Limits()):
            stop.check()
            _page(target, ledger, page.records, originals, result)
            mark = ledger.migration.encode()
            result.kept += [(row.kind or "unknown", row.id or row.key) for row in page.quarantined if mark in row.raw]
    store.close()
    retrying(lambda: target.finish(ledger.migration, []))
    return result


def _originals(ledger: Ledger, *, left: bool) -> Iterator[Batch]:
    """What this migration wrote over, as it was."""
    after = ""
    while some := retrying(lambda after=after: list(islice(ledger.originals(after, left=left), _ORIGINALS))):  # type: ignore[misc]
        yield _decoded(some)
        after = some[-1][0]


def _decoded(documents: Sequence[tuple[str, str]]) -> Batch:
    mapper = load_mapper("native", "document")
    return mapper.decode(Batch.from_rows([(key, text.encode(), []) for key, text in documents]))[0]


_Used = dict[tuple[str, str], list[Ledger]]
"""Migrations whose rollback left an original that is used up once the record is put back, by kind and id."""


def _before(ledger: Ledger, originals: Batch, left: set[str]) -> tuple[Batch, _Used]:
    """What to put back where an original is of a migration that has been taken back since: what that one wrote over.

    A record that it made goes: it is not among what comes back, and is taken out like those that this migration made.

    Args:
        ledger: Of the migration that is rolled back.
        originals: What it wrote over.
        left: `kind/id` of what an earlier rollback of it left.
    """
    whole: list[Batch] = []
    used: _Used = {one: [ledger] for one in originals.identities() if "/".join(one) in left}
    seen = {(ledger.migration, *one) for one in originals.identities()}
    while len(originals):
        stays, earlier = bytearray(b"\1" * len(originals)), list[tuple[str, str]]()
        identities = originals.identities()
        for migration in sorted({marker[0] for marker in originals.markers() if marker is not None}):
            other = ledger.other(migration)
            if migration != ledger.migration and (other.run() or {}).get("state") != "rolled_back":
                continue
            for row, standing in enumerate(standings(originals, migration)):
                if standing != INTACT:
                    continue
                stays[row] = 0
                kind, identity = identities[row]
                if (migration, kind, identity) in seen:
                    continue
                seen.add((migration, kind, identity))
                document = other.left(kind, identity)
                if document is not None:
                    used.setdefault((kind, identity), []).append(other)
                    earlier.append((f"{kind}/{identity}", document))
        whole.append(originals.filter(bytes(stays)))
        originals = _decoded(earlier)
    return Batch.concat(whole) if whole else originals, used


def _restore(target: Target, ledger: Ledger, originals: Batch, used: _Used, result: RolledBack) -> None:
    """Puts records back, but for those that someone changed since they were written over."""

    def once() -> bytes:
        actions = classify(originals, target.fetch(originals), ledger.migration)
        # Unchanged: an earlier rollback that was killed, or a try that was cut off, has put it back already.
        restore = rows_with(actions, CREATE, UPDATE, UNCHANGED)
        batch = originals.filter(restore)
        with target.transaction():
            ledger.check()
            if len(batch):
                target.restore(batch)
            for kind, identity in batch.identities():
                for one in used.get((kind, identity), ()):
                    one.forget_left(kind, identity)
            for kind, identity in originals.filter(inverted(restore)).identities():
                ledger.leave_original(kind, identity)
            failpoint("restored")
        return restore

    if not len(originals):
        return
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
        deleted = retrying(once)
        result.deleted += deleted
        if deleted < len(ours):
            # An entity stays where others have tied something to it since.
            result.kept += retrying(lambda: target.fetch(intact)).identities()
    result.kept += batch.filter(rows_with(standing, CHANGED)).identities()
