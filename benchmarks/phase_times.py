"""A whole migration, measured from inside: `phase_times.py SOURCE TARGET` prints one JSON object.

Wall and CPU seconds of each phase, and the CPU seconds that Python itself took: those of its threads, less what they
spent inside the native module. Calls that make Python objects of rows count as Python's.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from memferry import _native

MAKES_OBJECTS = {"identities", "markers", "digests", "rows", "from_rows", "store_keys"}
"""Native calls whose answer is one Python object or more for each record."""


class _Clock(threading.local):
    """CPU seconds of a thread, in all and inside native calls."""

    def __init__(self) -> None:
        self.times = [time.thread_time(), 0.0, 0.0]
        _clocks.append(self.times)


_clocks: list[list[float]] = []
_clock = _Clock()


def _timed(function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        times, began = _clock.times, time.thread_time()
        try:
            return function(*args, **kwargs)
        finally:
            times[1] = time.thread_time()
            times[2] += times[1] - began

    return call


def _watch_native() -> None:
    for name, thing in list(vars(_native).items()):
        if isinstance(thing, type):
            for method, function in list(vars(thing).items()):
                if method.startswith("__") or method in MAKES_OBJECTS or not callable(function):
                    continue
                wrapped = _timed(getattr(thing, method) if isinstance(function, staticmethod) else function)
                setattr(thing, method, staticmethod(wrapped) if isinstance(function, staticmethod) else wrapped)
        elif callable(thing) and name not in MAKES_OBJECTS:
            setattr(_native, name, _timed(thing))


def main() -> None:
    """Runs it."""
    _watch_native()
    from memferry.phases import migrate, plan, stages  # noqa: PLC0415 - after the native module is watched
    from memferry.urls import parse_url  # noqa: PLC0415

    phases: dict[str, dict[str, float]] = {}

    def timed(name: str, phase: str) -> None:
        inner = getattr(stages, name)

        def stage(*args: Any, **kwargs: Any) -> Any:
            wall, cpu = time.perf_counter(), time.process_time()
            result = inner(*args, **kwargs)
            times = phases.setdefault(phase, {"wall": 0.0, "cpu": 0.0})
            times["wall"] += time.perf_counter() - wall
            times["cpu"] += time.process_time() - cpu
            return result

        setattr(stages, name, stage)

    for name, phase in (("make_plan", "plan"), ("transfer", "copy"), ("finish", "copy"), ("verify", "verify")):
        timed(name, phase)
    _clock.times[0] = time.thread_time()
    source, target = map(parse_url, sys.argv[1:3])
    wall, cpu = time.perf_counter(), time.process_time()
    result = migrate.migrate(source, target, plan.Options())
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    _clock.times[1] = time.thread_time()
    assert result.outcome == "proven", result
    python = sum(last - first - native for first, last, native in _clocks if last)
    print(json.dumps({"phases": phases, "wall": wall, "cpu": cpu, "python_cpu": python}))


if __name__ == "__main__":
    main()
