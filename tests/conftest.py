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
    runs = [
        ("called_again" in report.nodeid, report.failed, value)
        for report in [*passed, *terminalreporter.getreports("failed")]
        for name, value in report.user_properties
        if name == "crash kills"
    ]
    if runs:
        seeded, failed_runs = sum(one[0] for one in runs), sum(one[1] for one in runs)
        struck = sum(int(str(one[2])) for one in runs)
        terminalreporter.write_line(
            f"crash runs {len(runs)} ({seeded} seeded), kills that struck {struck}, runs that failed {failed_runs}"
        )
    damages = [report for report in passed if "test_every_damage" in report.nodeid]
    failed = [report for report in terminalreporter.getreports("failed") if "test_every_damage" in report.nodeid]
    if damages or failed:
        terminalreporter.write_line(f"detection rate {len(damages)}/{len(damages) + len(failed)}")
