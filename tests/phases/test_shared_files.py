"""Files that others have to do with too: what they wrote stays, as do links and rights, whenever they came."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from memferry._native import jsonl_concatenate
from memferry.backends import open_target
from memferry.backends.jsonl.target import JsonlTarget, ledger_folder
from memferry.errors import RefusedError
from memferry.ledger import Ledger
from memferry.phases.migrate import Result, migrate
from memferry.phases.plan import Options
from memferry.phases.rollback import RolledBack, rollback
from memferry.urls import parse_url

OURS = '{"kind":"memory","id":"ours","content":"from the source"}\n'
MORE = '{"kind":"memory","id":"more","content":"from the source, later"}\n'
THEIRS = '{"kind":"memory","id":"theirs","content":"of the application"}\n'


class Files:
    """A source and a target in one folder."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target = folder / "source.jsonl", folder / "target.jsonl"
        self.source.write_text(OURS)

    def move(self, **chosen: Any) -> Result:
        return migrate(parse_url(str(self.source)), parse_url(str(self.target)), Options(**chosen))

    def append(self, line: str) -> None:
        self.target.write_text((self.target.read_text() if self.target.exists() else "") + line)

    def roll(self) -> RolledBack:
        target = open_target(parse_url(str(self.target)))
        [migration] = target.documents.migrations()
        return rollback(target, Ledger(target.documents, migration))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("before", ["", '{"kind":"memory","id":"first","content":"there before"}\n'])
def test_lines_of_others_between_two_runs_are_not_taken_away(files: Files, before: str) -> None:
    if before:
        files.append(before)
    assert files.move().outcome == "proven"
    files.append(THEIRS)
    files.source.write_text(OURS + MORE)
    assert files.move().outcome == "proven"
    with pytest.raises(RefusedError, match="others changed the file") as refused:
        files.roll()
    assert refused.value.code == "existing"
    assert THEIRS in files.target.read_text()
    # By hand, as the hint says; then the ledger may go, too.
    if before:
        [previous] = (files.target.parent / "target.jsonl.memferry").glob("previous-*")
        assert str(previous) in (refused.value.hint or "")
        files.target.write_bytes(previous.read_bytes())
    else:
        files.target.unlink()
    assert files.roll() == RolledBack()
    assert files.move().outcome == "proven"


def test_a_file_that_others_changed_before_anything_was_put_into_place_comes_back_as_they_left_it(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.append('{"kind":"memory","id":"first","content":"there before"}\n')
    finish = JsonlTarget.finish

    def changed(self: JsonlTarget, *arguments: object) -> None:
        monkeypatch.undo()
        files.append(THEIRS)
        finish(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(JsonlTarget, "finish", changed)
    with pytest.raises(RefusedError, match="changed by someone"):
        files.move()
    left = files.target.read_text()
    assert files.move().outcome == "proven"
    assert files.roll().restored == 1
    assert files.target.read_text() == left


def test_a_rollback_that_was_killed_does_not_take_what_came_after_it(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.move().outcome == "proven"
    with monkeypatch.context() as patch:
        patch.setattr(JsonlTarget, "drop_created", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            files.roll()
    assert not files.target.exists()
    files.append(THEIRS)
    assert files.roll() == RolledBack()
    assert files.target.read_text() == THEIRS


@pytest.mark.parametrize("delete", [False, True])
def test_a_line_that_comes_while_the_parts_are_joined_is_not_lost(
    files: Files, monkeypatch: pytest.MonkeyPatch, delete: bool
) -> None:
    files.source.write_text(OURS + MORE)
    assert files.move().outcome == "proven"
    files.source.write_text(OURS if delete else OURS + MORE + MORE.replace("more", "most"))

    def late(write: Any) -> Any:
        def with_a_line(*arguments: Any) -> None:
            write(*arguments)
            monkeypatch.undo()
            files.append(THEIRS)

        return with_a_line

    if delete:
        put = JsonlTarget.delete

        def deleted(self: JsonlTarget, identities: list[tuple[str, str]]) -> int:
            monkeypatch.setattr(JsonlTarget, "_write_rest", late(JsonlTarget._write_rest))
            return put(self, identities)

        monkeypatch.setattr(JsonlTarget, "delete", deleted)
    else:
        monkeypatch.setattr("memferry.backends.jsonl.target.jsonl_concatenate", late(jsonl_concatenate))
    with pytest.raises(RefusedError, match="changed by someone"):
        files.move(delete=delete, max_deletes_percent=60)
    assert THEIRS in files.target.read_text()
    assert files.move(delete=delete, max_deletes_percent=60).outcome == "proven"
    assert THEIRS in files.target.read_text()


def test_a_link_stays_a_link_and_rights_stay(files: Files, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "real.jsonl"
    real.write_text(THEIRS)
    real.chmod(0o600)
    files.target.symlink_to(real)
    assert files.move().outcome == "proven"
    files.source.write_text(OURS + MORE)
    assert files.move().outcome == "proven"
    assert files.target.is_symlink()
    assert '"ours"' in real.read_text()
    assert THEIRS in real.read_text()
    assert (real.stat().st_mode & 0o777, ledger_folder(files.target).stat().st_mode & 0o777) == (0o600, 0o700)
    assert files.roll().restored == 1
    assert (files.target.is_symlink(), real.read_text()) == (True, THEIRS)


def test_two_runs_of_our_own_are_taken_back_together(files: Files) -> None:
    assert files.move().outcome == "proven"
    files.source.write_text(OURS + MORE)
    assert files.move().outcome == "proven"
    assert files.roll().deleted == 2
    assert not files.target.exists()
