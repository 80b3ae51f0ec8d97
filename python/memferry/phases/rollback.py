"""Rollback: takes out what this migration wrote and is still as it wrote it, and puts back what it wrote over."""

from __future__ import annotations

from dataclasses import dataclass, field

from memferry._native import Batch, Keys
from memferry.backends.api import Target
from memferry.backends.jsonl import JsonlTarget
from memferry.errors import RefusedError
from memferry.failpoints import failpoint
from memferry.ledger import Ledger
from memferry.model import Limits
from memferry.phases.plan import Stop
from memferry.phases.reading import read_stream
from memferry.profiles import load_mapper

__all__ = ["RolledBack", "rollback"]


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
    """Undoes a migration. Can be killed and called again.

    Raises:
        RefusedError: `no-migration`; `existing` when a file is not as this migration left it.
    """
    if ledger.run() is None:
        raise RefusedError("no-migration", f"the target knows no migration {ledger.migration}")
    ledger.acquire(target)
    try:
        done = _file(target, ledger) if isinstance(target, JsonlTarget) else _records(target, ledger, stop or Stop())
        target.drop_created(ledger.migration)
        with target.transaction():
            ledger.check()
            ledger.forget()
            ledger.save_run(state="rolled_back")
    finally:
        ledger.release()
    return done


def _file(target: JsonlTarget, ledger: Ledger) -> RolledBack:
    joined = target.documents.get(ledger.migration, "joined")
    if joined is None:
        if target.untouched(ledger.migration):
            return RolledBack()  # Nothing was renamed into place yet.
        raise RefusedError(
            "existing",
            "a run of this migration was interrupted after an earlier one, or while it put the file into place",
            hint="let the same `memferry migrate` command finish, then roll back; nothing was touched",
        )
    if joined != "restored" and joined != target.stamp():
        raise RefusedError(
            "existing",
            "the file has been changed since this migration wrote it",
            hint="put the changes elsewhere first; the file as it was before lies beside it",
        )
    store = target.source()
    records = 0
    if store is not None:
        records = sum(len(p.records) for s in store.streams() for p in read_stream(store, s.name, Limits()))
    target.documents.put(ledger.migration, "joined", "restored")
    failpoint("before-restore")
    had_one = target.restore_previous(ledger.migration)
    return RolledBack(deleted=0 if had_one else records, restored=1 if had_one else 0)


def _records(target: Target, ledger: Ledger, stop: Stop) -> RolledBack:
    result = RolledBack()
    mapper = load_mapper("native", "document")
    originals = dict(ledger.originals())
    store = target.source()
    if store is None:
        return result
    for stream in store.streams():
        for page in read_stream(store, stream.name, Limits()):
            stop.check()
            _page(target, ledger, page.records, originals, result)
    store.close()
    if originals:
        raw = Batch.from_rows([(key, text.encode(), []) for key, text in originals.items()])
        batch, _, _ = mapper.decode(raw)
        kept = Keys()
        kept.add_identities(result.kept)
        batch = batch.filter(bytes(1 - flag for flag in kept.contains(batch)))
        with target.transaction():
            ledger.check()
            target.restore(batch)
            failpoint("restored")
        result.restored = len(batch)
    target.finish(ledger.migration, [])
    return result


def _page(target: Target, ledger: Ledger, batch: Batch, originals: dict[str, str], result: RolledBack) -> None:
    ours: list[tuple[str, str]] = []
    for identity, marker, digest in zip(batch.identities(), batch.markers(), batch.digests(), strict=True):
        if marker is None or marker[0] != ledger.migration:
            continue
        if marker[1] != digest:
            result.kept.append(identity)
        elif f"{identity[0]}/{identity[1]}" not in originals:
            ours.append(identity)
    if ours:
        with target.transaction():
            ledger.check()
            result.deleted += target.delete(ours)
            failpoint("deleted")
