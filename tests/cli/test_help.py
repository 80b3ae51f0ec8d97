"""Every verb there is has a help that fits and an example."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import version

import pytest
import typer
from typer.testing import CliRunner

from memferry.cli.main import app


def _verbs(group: typer.Typer, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for command in group.registered_commands:
        assert command.callback is not None
        yield (*before, command.name or command.callback.__name__)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        assert inner.name is not None
        yield from _verbs(inner.typer_instance, (*before, inner.name))


@pytest.mark.parametrize("verb", list(_verbs(app)), ids=" ".join)
def test_help_has_an_example_and_fits(verb: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(app, [*verb, "--help"], terminal_width=80)
    assert done.exit_code == 0
    text = " ".join(done.output.split())
    assert f"memferry {' '.join(verb)}" in text
    assert "Example" in text
    assert [line for line in done.output.splitlines() if len(line) > 80] == []
    examples = done.output[done.output.index("Example") :].split("\n\n", 1)[0].replace("\\\n", " ").splitlines()[1:]
    assert examples
    for example in examples:
        # One command a line, or broken by hand, so that it can be pasted.
        assert example.split()[0] == "memferry"
        assert shlex.split(example)


def test_the_new_verbs_are_among_them() -> None:
    assert set(_verbs(app)) >= {("apply",), ("doctor",), ("quarantine", "retry"), ("manifest", "schema"), ("status",)}


def test_the_version_is_told() -> None:
    done = CliRunner().invoke(app, ["--version"])
    assert (done.exit_code, done.stdout) == (0, f"memferry {version('memferry')}\n")
