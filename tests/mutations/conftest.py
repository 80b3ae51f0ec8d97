"""The detection rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says how many mutations were found with id and field."""
    counted = {
        outcome: sum(1 for report in terminalreporter.getreports(outcome) if "::test_a_mutation" in report.nodeid)
        for outcome in ("passed", "failed")
    }
    if sum(counted.values()):
        terminalreporter.write_line(f"verifier mutations: detection rate {counted['passed']}/{sum(counted.values())}")
