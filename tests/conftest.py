"""Fixtures of the testbed for every test, and the totals of the suites that count."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

pytest_plugins = ["testbed.fixtures"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how often processes were really killed, and how many damages were found."""
    passed = terminalreporter.getreports("passed")
    kills = [value for report in passed for name, value in report.user_properties if name == "kills"]
    if kills:
        terminalreporter.write_line(f"crash runs {len(kills)}, kills that struck {sum(map(int, kills))}")
    damages = [report for report in passed if "test_every_damage" in report.nodeid]
    failed = [report for report in terminalreporter.getreports("failed") if "test_every_damage" in report.nodeid]
    if damages or failed:
        terminalreporter.write_line(f"detection rate {len(damages)}/{len(damages) + len(failed)}")
