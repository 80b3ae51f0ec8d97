"""Progress with rate and ETA: bars on a terminal, a line now and then elsewhere, events for programs."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from memferry.cli import console
from memferry.cli.console import one_line, say
from memferry.errors import RefusedError
from memferry.phases.plan import Progress as ProgressCallback

__all__ = ["EVENTS_FORMAT", "Events", "Meter", "Reading", "events_to", "show_progress"]

EVENTS_FORMAT: Final = 1
_LINE_SECS: Final = 5.0
_EVENT_SECS: Final = 0.5
"""Least time between two events of one phase."""


@dataclass(frozen=True)
class Reading:
    """How far a phase is.

    Attributes:
        phase: `plan`, `copy` or `verify`.
        records: Records so far, those of earlier processes too.
        total: Records in all, or None.
        rate: Records a second of this process; None until there is one.
        eta_secs: Seconds left at this rate; None where that cannot be said.
    """

    phase: str
    records: int
    total: int | None
    rate: float | None
    eta_secs: float | None


class Meter:
    """Measures phases; what was done before this process does not count for the rate."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._phase = ""
        self._began = 0.0
        self._before = 0

    def read(self, phase: str, records: int, total: int | None) -> Reading:
        """Takes a reading."""
        now = self._now()
        if phase != self._phase:
            self._phase, self._began, self._before = phase, now, records
        elapsed, done = now - self._began, records - self._before
        rate = done / elapsed if elapsed > 0 and done > 0 else None
        eta = max(0, total - records) / rate if rate and total is not None else None
        return Reading(phase, records, total, rate, eta)


class Events:
    """Writes events, one JSON object a line. A sink that fails is left, the work goes on."""

    def __init__(self, stream: TextIO, now: Callable[[], float] = time.monotonic) -> None:
        self._stream: TextIO | None = stream
        self._now = now
        self._meter = Meter(now)
        self._told = 0.0
        self._held: Reading | None = None
        self._phase = ""

    def emit(self, event: str, **fields: Any) -> None:
        """Writes an event."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        line = one_line({"event": event, "at": at, **fields})
        if self._stream is None:
            return
        try:
            self._stream.write(line + "\n")
            self._stream.flush()
        except (OSError, ValueError) as error:
            self._stream = None
            say(f"no more events: {error}")

    def progress(self, phase: str, records: int, total: int | None) -> None:
        """Tells progress: the first of a phase, the last, and some in between."""
        reading = self._meter.read(phase, records, total)
        if phase != self._phase:
            self.settle()
        elif records != total and self._now() - self._told < _EVENT_SECS:
            self._held = reading
            return
        self._phase, self._told, self._held = phase, self._now(), None
        self._write(reading)

    def settle(self) -> None:
        """Tells what was held back."""
        held, self._held = self._held, None
        if held is not None:
            self._write(held)

    def _write(self, reading: Reading) -> None:
        self.emit(
            "progress",
            phase=reading.phase,
            records=reading.records,
            total=reading.total,
            rate=None if reading.rate is None else round(reading.rate, 1),
            eta_secs=None if reading.eta_secs is None else round(reading.eta_secs, 1),
        )


@contextmanager
def events_to(where: str | None) -> Iterator[Events | None]:
    """Opens the sink of `--events`: a file to append to, or `-` for stderr, which then holds nothing else.

    Raises:
        RefusedError: `invalid`, it cannot be opened.
    """
    if where is None:
        yield None
        return
    if where == "-":
        events = Events(sys.stderr)
        with console.talking_to(lambda text: events.emit("message", text=text)):
            yield events
        return
    try:
        file = Path(where).open("a", encoding="utf-8")  # noqa: SIM115 - closed below, around the whole run
    except OSError as error:
        raise RefusedError("invalid", f"--events {where}: {os.strerror(error.errno or 0)}") from error
    try:
        yield Events(file)
    finally:
        with suppress(OSError):  # What could not be written has been told.
            file.close()


class _Lines:
    """Progress where there is no terminal: a line now and then."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._last = time.monotonic()

    def __call__(self, phase: str, done: int, total: int | None) -> None:
        reading = self._meter.read(phase, done, total)
        if time.monotonic() - self._last < _LINE_SECS:
            return
        self._last = time.monotonic()
        of = f" of {total:,}" if total else ""
        rate = f", {reading.rate:,.0f}/s" if reading.rate else ""
        left = f", {reading.eta_secs:,.0f} s left" if reading.eta_secs is not None else ""
        say(f"{phase}: {done:,}{of} records{rate}{left}")


@contextmanager
def show_progress(*, quiet: bool, events: Events | None = None) -> Iterator[ProgressCallback]:
    """Shows progress on stderr, and tells events, while the block runs."""
    with _shown(quiet=quiet) as shown:

        def both(phase: str, done: int, total: int | None) -> None:
            shown(phase, done, total)
            if events is not None:
                events.progress(phase, done, total)

        yield both
    if events is not None:
        events.settle()


@contextmanager
def _shown(*, quiet: bool) -> Iterator[ProgressCallback]:
    terminal = console.terminal()
    if quiet or terminal is None:
        yield lambda *_: None
        return
    if not terminal.is_terminal:
        yield _Lines()
        return
    columns = (
        TextColumn("{task.description:<7}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]:>12}"),
        TimeRemainingColumn(compact=True),
    )
    meter = Meter()
    with Progress(*columns, console=terminal, transient=True) as bars:
        tasks: dict[str, Any] = {}

        def update(phase: str, done: int, total: int | None) -> None:
            reading = meter.read(phase, done, total)
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase, total=total, rate="")
            rate = f"{reading.rate:,.0f}/s" if reading.rate else ""
            bars.update(tasks[phase], completed=done, total=total, rate=rate)

        yield update
