"""What a person sees: data to stdout, talk to stderr, progress with rate and ETA."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from memferry.errors import MemferryError
from memferry.manifest import ManifestError
from memferry.phases.plan import Progress as ProgressCallback

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

__all__ = ["fail", "failure", "print_json", "say", "show", "show_progress", "tell", "tell_retry"]

_err = Console(stderr=True, highlight=False)
_LINE_SECS = 5.0


def say(text: str, style: str = "") -> None:
    """A line for people, to stderr."""
    _err.print(Text(text, style=style), soft_wrap=True)


def show(text: str, *, as_json: bool) -> None:
    """A report for people: to stdout, unless that is kept for the final object."""
    (sys.stderr if as_json else sys.stdout).write(text + "\n")


def tell_retry(details: RetryDetails) -> None:
    """Says why nothing happens for a while."""
    say(f"{details.caused_by}; trying again in {details.wait_for:.1f} s", "yellow")


def print_json(value: Any) -> None:
    """The final object, one line, to stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def failure(error: MemferryError, *, migration: str | None = None) -> dict[str, Any]:
    """The final object of what did not come to its end."""
    outcome = {1: "not_proven", 2: "refused"}.get(error.exit_code, "failed")
    outcome = "interrupted" if error.code == "interrupted" else outcome
    told: dict[str, Any] = {"code": error.code, "message": str(error)}
    if isinstance(error, ManifestError):
        told["problems"] = [asdict(problem) for problem in error.problems]
    return {"migration": migration, "outcome": outcome, "error": told}


def tell(error: MemferryError) -> int:
    """Tells an error to people, once; the exit code."""
    say(f"error[{error.code}]: {error}", "bold red")
    if error.hint:
        say("")
        say(f"hint: {error.hint}", "cyan")
    return 130 if error.code == "interrupted" else error.exit_code


def fail(error: MemferryError, *, as_json: bool, migration: str | None = None) -> int:
    """Tells an error once; the exit code."""
    code = tell(error)
    if as_json:
        print_json(failure(error, migration=migration))
    return code


class _Lines:
    """Progress where there is no terminal: a line now and then."""

    def __init__(self) -> None:
        self._last = self._began = time.monotonic()
        self._phase = ""

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if phase != self._phase:
            self._phase, self._began, self._last = phase, now, now
        if now - self._last >= _LINE_SECS:
            self._last = now
            rate = done / (now - self._began)
            left = f", {max(0, total - done) / rate:.0f} s left" if total and rate else ""
            say(f"{phase}: {done}{f' of {total}' if total else ''} records, {rate:.0f}/s{left}")


@contextmanager
def show_progress(*, quiet: bool) -> Iterator[ProgressCallback]:
    """Shows progress on stderr while the block runs."""
    if quiet:
        yield lambda *_: None
        return
    if not _err.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description:<7}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>12}"),
        TimeRemainingColumn(compact=True),
    )
    with Progress(*columns, console=_err, transient=True) as bars:
        tasks: dict[str, tuple[Any, float]] = {}

        def update(phase: str, done: int, total: int | None) -> None:
            if phase not in tasks:
                tasks[phase] = (bars.add_task(phase, total=total, rate=""), time.monotonic())
            task, began = tasks[phase]
            rate = done / max(time.monotonic() - began, 1e-3)
            bars.update(task, completed=done, total=total, rate=f"{rate:,.0f}/s")

        yield update
