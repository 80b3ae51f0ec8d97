"""Fixtures of the testbed for every test, and the totals of the suites that count."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest_plugins = ["testbed.fixtures"]


@pytest.fixture(scope="session", autouse=True)
def _state_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keeps the ledgers of foreign targets out of the state directory of who runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MEMFERRY_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        yield


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how often processes were really killed, and how many damages were found."""
    passed = terminalreporter.getreports("passed")
    kills = [value for report in passed for name, value in report.user_properties if name in {"kills", "crash kills"}]
    if kills:
        terminalreporter.write_line(f"crash runs {len(kills)}, kills that struck {sum(map(int, kills))}")
    damages = [report for report in passed if "test_every_damage" in report.nodeid]
    failed = [report for report in terminalreporter.getreports("failed") if "test_every_damage" in report.nodeid]
    if damages or failed:
        terminalreporter.write_line(f"detection rate {len(damages)}/{len(damages) + len(failed)}")
