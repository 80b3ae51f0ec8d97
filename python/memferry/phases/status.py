"""How far migrations are, as their ledger says: for people on call, while a run is at work or after it was killed."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from memferry.backends.api import Documents
from memferry.ledger import Holder, Ledger, migrations
from memferry.model import Books

__all__ = ["Standing", "standings"]


@dataclass(frozen=True)
class Standing:
    """How far a migration is.

    Attributes:
        migration: Its id.
        state: `planned`, `copying`, `verifying`, `done`, `retrying`, `rolling_back` or `rolled_back`.
        outcome: Of the last run that came to its end.
        source: Backend, profile and identity of the source.
        ranges_done: Ranges that are complete.
        rows: Rows of the source when it was planned; None where the run is from an older memferry.
        books: Counts so far.
        lock: Who holds the lock.
        running_secs: Age of the process that is at work, or was.
        rate: Records a second of that process; None once it is not at work.
        command: What resumes the run, None where there is nothing to resume.
    """

    migration: str
    state: str
    outcome: str | None
    source: dict[str, str] | None
    ranges_done: int
    rows: int | None
    books: Books
    lock: Holder | None
    running_secs: float | None
    rate: float | None
    command: str | None

    @property
    def unfinished(self) -> bool:
        """Whether there is something to resume and nobody at it."""
        return self.state in {"copying", "verifying", "rolling_back"} and not (self.lock and self.lock.alive)

    @property
    def percent(self) -> float | None:
        """Share of the source that is copied; the last per cent is for what is done."""
        if self.state in {"verifying", "done"}:
            return 100.0
        if not self.rows:
            return None
        return min(99.9, round(100 * self.books.total("read") / self.rows, 1))

    @property
    def eta_secs(self) -> float | None:
        """Seconds until everything is copied, at the rate so far."""
        if not self.rate or self.rows is None or self.state != "copying":
            return None
        return round(max(0, self.rows - self.books.total("read")) / self.rate, 1)

    def to_json(self) -> dict[str, Any]:
        """One row of the final object."""
        return {
            "migration": self.migration,
            "state": self.state,
            "outcome": self.outcome,
            "source": self.source,
            "ranges_done": self.ranges_done,
            "kinds": self.books.to_json(),
            "records": self.books.total("read"),
            "rows": self.rows,
            "percent": self.percent,
            "rate": self.rate,
            "eta_secs": self.eta_secs,
            "running_secs": self.running_secs,
            "lock": asdict(self.lock) if self.lock else None,
            "resume": self.command if self.unfinished else None,
        }


def standings(documents: Documents) -> Iterator[Standing]:
    """How far every migration of a ledger is."""
    for migration in migrations(documents):
        ledger = Ledger(documents, migration)
        run = ledger.run() or {}
        books, lock = ledger.books(), ledger.holder()
        began, at_work = run.get("began_at"), lock is not None and lock.alive
        age = max(0.0, time.time() - began) if began is not None else None
        rate = None
        if at_work and age and run.get("state") == "copying":
            rate = round(max(0, books.total("read") - run.get("read_before", 0)) / age, 1)
        yield Standing(
            migration=migration,
            state=run.get("state", "planned"),
            outcome=run.get("outcome"),
            source=run.get("source"),
            ranges_done=ledger.ranges_done(),
            rows=run.get("rows"),
            books=books,
            lock=lock,
            running_secs=round(age, 1) if at_work and age is not None else None,
            rate=rate,
            command=_command(run),
        )


def _command(run: dict[str, Any]) -> str | None:
    """The command as it was entered, from the folder it was entered in."""
    command, folder = run.get("command"), run.get("folder")
    if not command:
        return None
    here = folder is None or Path(folder) == Path.cwd()
    return str(command) if here else f"cd {shlex.quote(str(folder))} && {command}"
