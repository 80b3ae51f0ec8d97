"""Runs memferry in this process, on pages and ranges small enough that a few hundred records make many of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import pytest

from memferry.backends import open_target
from memferry.errors import MemferryError
from memferry.ledger import Ledger
from memferry.model import Limits
from memferry.phases import migrate as phases
from memferry.phases import plan as planning
from memferry.phases.migrate import Result
from memferry.phases.plan import Options, Plan, Progress, Stop
from memferry.phases.rollback import RolledBack
from memferry.urls import parse_url
from support import graph
from support.stores import Place

__all__ = ["BYTES_PER_RANGE", "PAGE_RECORDS", "ROWS_PER_RANGE", "interrupt", "ledger", "move", "plan", "roll", "verify"]

ROWS_PER_RANGE: Final = 60
BYTES_PER_RANGE: Final = 20_000
PAGE_RECORDS: Final = 20


def _options(**chosen: Any) -> Options:
    return Options(**{"parallelism": 4, "limits": Limits(records=PAGE_RECORDS), **chosen})


def small_ranges(patch: pytest.MonkeyPatch) -> None:
    """Makes the plan cut small ranges."""
    patch.setattr(planning, "ROWS_PER_RANGE", ROWS_PER_RANGE)
    patch.setattr(planning, "BYTES_PER_RANGE", BYTES_PER_RANGE)


def move(source: Place, target: Place, *, progress: Progress = lambda *_: None, **chosen: Any) -> Result:
    """Migrates; the books must balance."""
    result = phases.migrate(parse_url(source.url), parse_url(target.url), _options(**chosen), progress=progress)
    assert result.books.balanced(), result.books.to_json()
    return result


def plan(source: Place, target: Place, **chosen: Any) -> Plan:
    """Plans."""
    return phases.plan_only(parse_url(source.url), parse_url(target.url), _options(**chosen))


def verify(source: Place, target: Place, **chosen: Any) -> Result:
    """Verifies what was migrated before."""
    return phases.verify_only(parse_url(source.url), parse_url(target.url), _options(**chosen))


def interrupt(source: Place, target: Place, *, phase: str = "copy", pages: int = 3, **chosen: Any) -> MemferryError:
    """Migrates and is stopped after some pages of a phase; the error, which keeps both ends open."""
    stop, left = Stop(), pages

    def progress(at: str, *_: object) -> None:
        nonlocal left
        left -= at == phase
        if left == 0:
            stop.set()

    options = _options(**chosen)
    with pytest.raises(MemferryError) as caught:
        phases.migrate(parse_url(source.url), parse_url(target.url), options, progress=progress, stop=stop)
    assert caught.value.code == "interrupted"
    return caught.value


@contextmanager
def ledger(target: Place, migration: str | None = None) -> Iterator[Ledger]:
    """The ledger of the only migration of a target, or of a named one."""
    store = open_target(parse_url(target.url))
    try:
        yield Ledger(store.documents, migration or store.documents.migrations()[0])
    finally:
        store.close()


def roll(target: Place, migration: str) -> RolledBack:
    """Rolls a migration back."""
    return graph.roll(parse_url(target.url), migration)


def refused(work: Callable[[], object]) -> MemferryError:
    """The error that some work ends with."""
    with pytest.raises(MemferryError) as caught:
        work()
    return caught.value
