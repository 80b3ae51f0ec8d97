"""Where the state of foreign targets lies."""

from __future__ import annotations

from pathlib import Path

import pytest

from memferry._native import Batch, Mapper
from memferry.backends.state import State, state_directory, state_folder
from memferry.errors import RefusedError, StoreError
from memferry.profiles import load_mapper
from support.stores import execute


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"MEMFERRY_STATE_DIR": "/chosen", "XDG_STATE_HOME": "/xdg"}, "/chosen"),
        ({"XDG_STATE_HOME": "/xdg"}, "/xdg/memferry"),
        ({"XDG_STATE_HOME": "relative"}, "/home/somebody/.local/state/memferry"),
        ({"XDG_STATE_HOME": "", "MEMFERRY_STATE_DIR": ""}, "/home/somebody/.local/state/memferry"),
    ],
)
def test_the_state_directory(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: str) -> None:
    for name in ("MEMFERRY_STATE_DIR", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/somebody")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert state_directory() == Path(expected)


def test_a_state_directory_that_depends_on_the_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMFERRY_STATE_DIR", "state")
    with pytest.raises(RefusedError, match="MEMFERRY_STATE_DIR is `state`") as refused:
        state_directory()
    assert refused.value.code == "invalid"


def _records(*contents: str) -> Batch:
    mapper: Mapper = load_mapper("native", "document")
    documents = [f'{{"kind":"memory","id":"{i}","content":"{c}"}}' for i, c in enumerate(contents)]
    return mapper.decode(Batch.from_rows([("", document.encode(), []) for document in documents]))[0]


def test_every_target_has_a_folder_that_nobody_else_reads() -> None:
    assert not State.exists("one")
    State("one").intend(_records("a"), "m")
    assert State.exists("one")
    assert not State.exists("two")
    assert state_folder("one").stat().st_mode & 0o077 == 0
    assert State("one").mark(_records("a", "b")).markers()[0] == ("m", _records("a").digests()[0])


def test_what_is_intended_is_known_to_the_next_process_and_what_is_rolled_back_is_not(tmp_path: Path) -> None:
    state = State("x", tmp_path)
    state.intend(_records("a", "b"), "m")
    state.documents.put("m", "saved/memory/0", "{}")
    again = State("x", tmp_path)
    assert [marker is not None for marker in again.mark(_records("a", "other")).markers()] == [True, False]
    again.confirm(_records("a", "b"), "m")
    assert [marker is not None for marker in state.mark(_records("a", "other")).markers()] == [True, True]
    again.forget([("memory", "1")])
    assert [marker is not None for marker in state.mark(_records("a", "other")).markers()] == [True, False]
    again.drop("m")
    assert state.mark(_records("a", "b")).markers() == [None, None]
    assert state.documents.get("m", "saved/memory/0") is None


def test_a_newer_journal_is_refused(tmp_path: Path) -> None:
    State("x", tmp_path)
    execute(tmp_path / "state.db", [("UPDATE memferry_meta SET value = '2' WHERE key = 'journal_format'", [])])
    with pytest.raises(RefusedError) as refused:
        State("x", tmp_path)
    assert refused.value.code == "format-newer"


def test_a_state_directory_that_cannot_be_made_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("MEMFERRY_STATE_DIR", str(tmp_path / "file"))
    with pytest.raises(StoreError, match="state directory") as failed:
        State("x")
    assert failed.value.code == "io"
