"""Fixtures of the testbed for every test, and the totals of the suites that count."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from statistics import median

import pytest
from hypothesis import settings

settings.register_profile("memferry", deadline=None)  # No test is timed: the machine may be busy.
settings.load_profile("memferry")

pytest_plugins = ["testbed.fixtures"]


def pytest_configure() -> None:
    """Commands heed Ctrl-C as in a terminal, where a shell has what it runs in the background ignore it, too."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says which tests share a process, which `--dist loadgroup` then gives them.

    A Neo4j costs 20 CPU seconds until it is warm, and plans a statement in 2 ms instead of 30 from then on: two of
    them have all tests, instead of two in every process. Tests of Kubernetes mostly wait and may do so side by side.
    """
    items.sort(key=lambda item: item.get_closest_marker("ends_neo4j") is not None)
    for item in items:
        if group := _group(item):
            item.add_marker(pytest.mark.xdist_group(group))


def _group(item: pytest.Item) -> str | None:
    """The process of a test, by its fixtures and its name; None where any will do."""
    fixtures: list[str] = getattr(item, "fixturenames", [])
    neo4j, hybrid = (any(word in name for name in (item.nodeid, *fixtures)) for word in ("neo4j", "hybrid"))
    if "second_neo4j_server" in fixtures:
        return "neo4j"
    if hybrid or (neo4j and "api_tier" in fixtures):
        return "hybrid"
    if "api_tier" in fixtures:
        return "kubernetes-faults" if item.get_closest_marker("fault") else "kubernetes"
    return "neo4j" if neo4j else None


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
    _operator_summary(terminalreporter)


def _operator_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how long writes were frozen by switches, and how many faults the operator's tests survived."""
    reports = [
        report
        for outcome in ("passed", "failed", "error")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport)
    ]
    told = [pair for report in reports for pair in report.user_properties]
    if switches := [value for name, value in told if name == "switch"]:
        seen, said = (sorted(value[side] for value in switches) for side in (0, 1))  # type: ignore[index]
        lost = sum(int(str(value)) for name, value in told if name == "lost writes")
        terminalreporter.write_line(
            f"operator switches {len(switches)}, writes lost {lost}; "
            f"write freeze: median {median(seen):.2f} s, worst {seen[-1]:.2f} s as a client saw it, "
            f"median {median(said):.2f} s, worst {said[-1]:.2f} s as the operator says"
        )
    for report in reports:
        if "test_many[" in report.nodeid and report.user_properties:
            terminalreporter.write_line(", ".join(f"{name} {value}" for name, value in report.user_properties))
    faults = {report.nodeid: _strikes(report) for report in reports if "fault" in report.keywords}
    broken = {report.nodeid for report in reports if not report.passed}
    if tried := sum(faults.values()):
        survived = sum(count for test, count in faults.items() if test not in broken)
        terminalreporter.write_line(f"operator faults survived {survived}/{tried}")


def _strikes(report: pytest.TestReport) -> int:
    """How many faults a test has: one, where it does not count them."""
    return max(1, sum(name == "fault" for name, _ in report.user_properties))
