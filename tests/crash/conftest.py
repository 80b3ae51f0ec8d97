"""Totals of the crash suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many runs there were, and how many kills really struck."""
    totals: dict[str, int] = {}
    runs = 0
    for outcome in ("passed", "failed"):
        for report in terminalreporter.getreports(outcome):
            found = {name: value for name, value in report.user_properties if str(name).startswith("crash ")}
            runs += bool(found)
            for name, value in found.items():
                totals[name] = totals.get(name, 0) + int(str(value))
    if runs:
        told = ", ".join(f"{name.removeprefix('crash ')} {value}" for name, value in sorted(totals.items()))
        terminalreporter.write_line(f"crash suite: runs {runs}, {told}")
