"""Quarantined records tried again, after the reason has gone: from their kept bytes, or read again from the source."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final

from memferry._native import Batch, Keys, Mapper, classify
from memferry.backends.api import Source, Target, as_foreign
from memferry.backends.jsonl import JsonlTarget
from memferry.endpoint import settings_from_environment
from memferry.errors import RefusedError
from memferry.failpoints import failpoint
from memferry.ledger import Ledger
from memferry.model import CONFLICT, CREATE, EXISTING, KINDS, UPDATE, Books, Quarantined, Range, rows_with
from memferry.phases.migrate import Result, verify_only
from memferry.phases.plan import Options, Plan, Progress, Stop, migration_id
from memferry.phases.reading import read_stream
from memferry.phases.transform import Transform
from memferry.profiles import load_mapper
from memferry.retry import retrying
from memferry.stores import open_source, open_target
from memferry.urls import StoreUrl

__all__ = ["Retried", "retry"]

RETRIES: Final = 999_998
"""Number of the range that retried records are written as, after every range of a plan."""

_AT_ONCE: Final = 200
_REPEATED: Final = "repeated-id"

Entry = tuple[str, Quarantined]


@dataclass
class Retried:
    """What was done.

    Attributes:
        migration: Id of the migration.
        moved: Records that are in the target now.
        left: Number, row and reason of those that are not.
        proof: The comparison afterwards; None without a source.
    """

    migration: str
    moved: int = 0
    left: list[tuple[str, Quarantined, str]] = field(default_factory=list)
    proof: Result | None = None

    @property
    def exit_code(self) -> int:
        """0 when nothing is left and, where it was compared, everything is equal."""
        if self.proof is not None and self.proof.exit_code:
            return self.proof.exit_code
        return 1 if self.left else 0

    def to_json(self) -> dict[str, Any]:
        """The final object."""
        left = [{"number": n, "kind": row.kind, "id": row.id, "reason": why} for n, row, why in self.left]
        proof = self.proof.to_json() if self.proof else {"outcome": None, "verify": None}
        return {**proof, "migration": self.migration, "moved": self.moved, "left": left}


def retry(
    target_url: StoreUrl,
    migration: str,
    *,
    source_url: StoreUrl | None = None,
    progress: Progress = lambda *_: None,
    stop: Stop | None = None,
) -> Retried:
    """Tries quarantined records again and books out those that the target takes. Can be killed and called again.

    Args:
        target_url: The target.
        migration: Id of a migration that came to its end.
        source_url: Read them again from here, and compare both ends afterwards; without it, from the kept bytes.
        progress: Called after every page.
        stop: Checked between pages.

    Raises:
        RefusedError: `no-migration`, `busy`; `invalid` while a run is unfinished; `existing` where somebody changed a
            file meanwhile; `not-native`.
    """
    stop = stop or Stop()
    source = open_source(source_url) if source_url else None
    plan = _plan(target_url, migration)
    target = open_target(target_url, plan.accept)
    try:
        ledger = Ledger(target.documents, migration)
        if source is not None and migration_id(source, target) != migration:
            text = source_url.text if source_url else ""
            raise RefusedError("no-migration", f"migration {migration} is not from {text}")
        with ledger.held(target):
            result = _Retry(plan, source, target, ledger, progress, stop).run()
    finally:
        target.close()
        if source is not None:
            source.close()
    if source_url is not None:
        result.proof = _prove(source_url, target_url, plan, migration, progress, stop)
    return result


def _plan(url: StoreUrl, migration: str) -> Plan:
    """The plan of a migration that came to its end; the target is opened anew with its accepted gaps."""
    target = open_target(url)
    try:
        ledger = Ledger(target.documents, migration)
        run, text = ledger.run(), ledger.plan()
    finally:
        target.close()
    if run is None or text is None or run["state"] == "rolled_back":
        raise RefusedError("no-migration", f"{url.text} knows no migration {migration} with a plan")
    if run["state"] not in {"done", "retrying"}:
        raise RefusedError(
            "invalid",
            f"migration {migration} is unfinished",
            hint="let it come to its end first; `memferry status` says how to resume",
        )
    return Plan.from_json(text)


def _prove(
    source_url: StoreUrl, target_url: StoreUrl, plan: Plan, migration: str, progress: Progress, stop: Stop
) -> Result:
    """Compares both ends and keeps what came out as the report of the migration."""
    result = verify_only(source_url, target_url, Options(accept=plan.accept), progress=progress, stop=stop)
    target = open_target(target_url, plan.accept)
    try:
        ledger = Ledger(target.documents, migration)
        counts = result.verification.counts() if result.verification else None
        retrying(lambda: ledger.save_report(json.dumps(result.to_json())))
        retrying(lambda: ledger.save_run(outcome=result.outcome, verify=counts))
    finally:
        target.close()
    return result


class _Retry:
    def __init__(
        self, plan: Plan, source: Source | None, target: Target, ledger: Ledger, progress: Progress, stop: Stop
    ) -> None:
        self.plan = plan
        self.source = source
        self.target = target
        self.ledger = ledger
        self.progress = progress
        self.stop = stop
        self.part = Range(RETRIES, "retry", None, None)
        self.limits = Options().limits
        self.result = Retried(ledger.migration)
        self.later: list[tuple[str, Books]] = []
        """Rows to book out once a file is in place."""

    def run(self) -> Retried:
        # A retry that was killed may have moved everything and not have come to its end.
        killed = (self.ledger.run() or {}).get("state") == "retrying"
        if not killed and next(self.ledger.quarantined(), None) is None:
            return self.result
        self.check()
        retrying(lambda: self.target.prepare(self.plan.migration, self.plan.vectors))
        retrying(self.ledger.reopen)
        retrying(lambda: self.target.begin_range(self.part))
        for some, records in self.from_source() if self.source else self.from_bytes():
            self.stop.check()
            self.write(some, records)
        self.target.end_range(self.part)
        failpoint("before-finish")
        retrying(lambda: self.target.finish(self.plan.migration, [self.part]))
        failpoint("after-finish")

        def settle() -> None:
            with self.target.transaction():
                self.ledger.check()
                for number, change in self.later:
                    self.ledger.moved(number, change)
                self.ledger.save_run(state="done")

        retrying(settle)
        return self.result

    def check(self) -> None:
        """Refuses where a retry would be another thing than the rest of the copy."""
        if self.plan.transform.alters and self.source is None:
            raise RefusedError(
                "invalid",
                "this migration maps or chooses records, and what was kept may be from before that",
                hint="--source SRC takes them from there, and maps them as the others",
            )
        if getattr(self.target, "gathers", None) is not None:
            raise RefusedError(
                "not-native",
                f"profile `{self.target.profile}` keeps observations inside their entities; single ones are not added",
                hint="the same `memferry migrate` command tries everything again",
            )
        if isinstance(self.target, JsonlTarget) and not self.target.is_as_left(self.plan.migration):
            raise RefusedError(
                "existing",
                "the file has been changed since this migration wrote it",
                hint="the same `memferry migrate` command compares with what it is now, and tries everything again",
            )

    def entries(self, kind: str | None) -> Iterator[Entry]:
        for number, row in self.ledger.quarantined():
            if row.kind != kind:
                continue
            if row.reason == _REPEATED:
                self.leave(number, row, "its id stands more than once: mend the source and migrate again")
            else:
                yield number, row

    def leave(self, number: str, row: Quarantined, why: str) -> None:
        self.result.left.append((number, row, why))

    def from_bytes(self) -> Iterator[tuple[dict[tuple[str, str], Entry], Batch]]:
        """Records out of what was kept, entities before what needs them; rows without a kind last."""
        native = load_mapper("native", "document")
        for kind in (*KINDS, None):
            rows = iter(list(self.entries(kind)))
            while some := list(islice(rows, _AT_ONCE)):
                known = [entry for entry in some if entry[1].id is not None]
                yield self.decode(native, known)
                for entry in some:
                    if entry[1].id is None:
                        yield self.unread(entry)

    def decode(self, mapper: Mapper, some: list[Entry]) -> tuple[dict[tuple[str, str], Entry], Batch]:
        records, bad, _ = mapper.decode(Batch.from_rows([(number, row.raw, []) for number, row in some]))
        entries = dict(some)
        for row in bad:
            self.leave(row[0], entries.pop(row[0]), row[4])
        return dict(zip(records.identities(), entries.items(), strict=True)), records

    def unread(self, entry: Entry) -> tuple[dict[tuple[str, str], Entry], Batch]:
        """A row that could not be read when it was copied; a newer memferry may read it."""
        number, row = entry
        mapper = load_mapper("native", "document")
        empty: dict[tuple[str, str], Entry] = {}
        if self.plan.source["backend"] != "jsonl" or self.plan.source["profile"] != "native":
            self.leave(number, row, "its bytes are not a whole record: migrate again when the source is mended")
            return empty, Batch.from_rows([])
        records, bad, _ = mapper.decode(Batch.from_rows([(row.key, row.raw, [])]))
        if bad:
            self.leave(number, row, bad[0][4])
            return empty, records
        if len(self.target.fetch(records)):
            self.leave(number, row, "its id stands more than once: mend the source and migrate again")
            return empty, records
        return {records.identities()[0]: entry}, records

    def from_source(self) -> Iterator[tuple[dict[tuple[str, str], Entry], Batch]]:
        """Records as the source has them now."""
        assert self.source is not None  # noqa: S101 - for the type checker
        transform = Transform(self.plan.transform, self.plan.accept, settings_from_environment(), self.stop)
        for kinds in [(kind,) for kind in KINDS] if self.target.ordered else [KINDS]:
            entries = [entry for kind in kinds for entry in self.entries(kind)]
            wanted = {(row.kind or "", row.id): (number, row) for number, row in entries if row.id is not None}
            if not wanted:
                continue
            keys = Keys()
            keys.add_identities(list(wanted))
            for stream in self.source.streams():
                for page in read_stream(self.source, stream.name, self.limits):
                    self.stop.check()
                    records = page.records.filter(keys.contains(page.records))
                    yield self.pick(wanted, transform.apply(records).records)
            for number, row in wanted.values():
                self.leave(number, row, "the source has it no more, or it is not one of those that are moved")
        for kind in (*KINDS, None):
            for number, row in self.entries(kind):
                if row.kind is None or row.id is None:
                    self.leave(number, row, "it has no id to look for: migrate again when the source is mended")

    @staticmethod
    def pick(wanted: dict[tuple[str, str], Entry], records: Batch) -> tuple[dict[tuple[str, str], Entry], Batch]:
        """Takes records out of what is wanted, each once."""
        found = {identity: wanted.pop(identity, None) for identity in records.identities()}
        picked = {identity: entry for identity, entry in found.items() if entry is not None}
        left = dict(picked)
        return picked, records.filter(bytes(left.pop(identity, None) is not None for identity in records.identities()))

    def write(self, entries: dict[tuple[str, str], Entry], records: Batch) -> None:
        """Writes what may be written and books it out."""
        if not entries:
            return
        why: dict[tuple[str, str], str] = {}
        foreign = as_foreign(self.target)
        if foreign is not None:
            records, bad = foreign.fit(records)
            why = dict.fromkeys(entries, "the target has no place for it, as was accepted")
            for identity in records.identities():
                del why[identity]
            why |= {(row.kind or "", row.id or ""): f"{row.reason}: {row.message}" for row in bad}

        def once() -> tuple[dict[tuple[str, str], str], list[Entry]]:
            held = self.target.fetch(records)
            actions = classify(self.target.image(records), held, self.plan.migration)
            left = records.filter(rows_with(actions, CONFLICT, EXISTING)).identities()
            told = why | dict.fromkeys(left, "the target has another record under its id")
            batch = records.filter(rows_with(actions, CREATE, UPDATE))
            with self.target.transaction():
                self.ledger.check()
                refused = self.target.write(self.part, batch, self.plan.migration, fresh=False) if len(batch) else []
                told |= {(row.kind or "", row.id or ""): f"{row.reason}: {row.message}" for row in refused}
                failpoint("written")
                moved = [entries[identity] for identity in entries if identity not in told]
                if self.target.resume == "page":
                    for number, row in moved:
                        self.ledger.moved(number, self.change(number, row, entries))
                failpoint("booked")
            return told, moved

        why, moved = retrying(once)
        if self.target.resume == "range":
            self.later += [(number, self.change(number, row, entries)) for number, row in moved]
        self.result.moved += len(moved)
        for identity, reason in why.items():
            self.leave(*entries[identity], reason)
        self.progress("retry", self.result.moved + len(self.result.left), None)

    @staticmethod
    def change(number: str, row: Quarantined, entries: dict[tuple[str, str], Entry]) -> Books:
        """Out of quarantine and into what was written; a row without a kind becomes one of the kind it has."""
        change = Books()
        kind = row.kind or next(kind for (kind, _), entry in entries.items() if entry[0] == number)
        was = change.of(row.kind or "unknown")
        was.quarantined -= 1
        if row.kind is None:
            was.read -= 1
            change.of(kind).read += 1
        change.of(kind).written += 1
        return change
