"""The cache builds once, whole or not at all, whoever else wants the same."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from testbed import cache, ports
from testbed.errors import TestbedError

_TESTS_FOLDER = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "memferry-testbed"


def _build(into: Path) -> None:
    (into / "file").write_text("content")


def _must_not_build(into: Path) -> None:
    raise AssertionError(f"built again in {into}")


def test_built_once_per_version(own_cache: Path) -> None:
    first = cache.cached("thing", version="1", build=_build)
    assert first == own_cache / "thing-1"
    assert (first / "file").read_text() == "content"
    assert cache.cached("thing", version="1", build=_must_not_build) == first
    assert cache.cached("thing", version="2", build=_build) != first


def test_a_failed_build_leaves_nothing(own_cache: Path) -> None:
    def fail(into: Path) -> None:
        (into / "half").write_text("half")
        raise TestbedError("no network")

    with pytest.raises(TestbedError, match="no network"):
        cache.cached("thing", version="1", build=fail)
    assert [path.name for path in own_cache.iterdir()] == ["locks"]
    cache.cached("thing", version="1", build=_build)


def test_an_empty_build_is_an_error() -> None:
    with pytest.raises(TestbedError, match="left nothing"):
        cache.cached("thing", version="1", build=lambda _: None)


def test_what_a_killed_builder_left_is_swept(own_cache: Path) -> None:
    own_cache.mkdir()
    (own_cache / ".thing-1.abcdef").mkdir()
    cache.cached("thing", version="1", build=_build)
    assert sorted(path.name for path in own_cache.iterdir()) == ["locks", "thing-1"]


def test_two_processes_build_it_once(own_cache: Path) -> None:
    script = textwrap.dedent(f"""
        import os, sys
        from pathlib import Path
        sys.path.insert(0, {str(_TESTS_FOLDER)!r})
        from testbed import cache
        sys.stdout.write("ready\\n")
        sys.stdout.flush()
        sys.stdin.readline()

        def build(into):
            with Path({str(own_cache.parent / "builds")!r}).open("a") as log:
                log.write("built\\n")
            for number in range(3000):
                (into / str(number)).write_text("content")

        print(len(list(cache.cached("thing", version="1", build=build).iterdir())))
    """)
    builders = [
        subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    for builder in builders:
        assert builder.stdout is not None
        builder.stdout.readline()
    for builder in builders:
        assert builder.stdin is not None
        builder.stdin.write("\n")
        builder.stdin.flush()
    assert [builder.communicate(timeout=60)[0] for builder in builders] == ["3000\n"] * 4
    assert (own_cache.parent / "builds").read_text() == "built\n"


def test_a_reserved_port_is_not_given_twice() -> None:
    mine = [ports.reserve_port() for _ in range(50)]
    script = (
        f"import sys; sys.path.insert(0, {str(_TESTS_FOLDER)!r}); from testbed import ports; "
        "ports._LOWEST, ports._ABOVE_HIGHEST = int(sys.argv[1]), int(sys.argv[1]) + 1; ports.reserve_port()"
    )
    taken = subprocess.run([sys.executable, "-c", script, str(mine[0])], capture_output=True, text=True, check=False)
    assert "no free loopback port" in taken.stderr
    for port in mine:
        ports.release_port(port)
    assert len(set(mine)) == len(mine)
    free = subprocess.run([sys.executable, "-c", script, str(mine[0])], capture_output=True, text=True, check=False)
    assert free.stderr == ""
