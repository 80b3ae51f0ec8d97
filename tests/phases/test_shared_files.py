"""Files that others have to do with too: what they wrote stays, as do links and rights, whenever they came."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from memferry._native import jsonl_concatenate
from memferry.backends import open_target
from memferry.backends.jsonl.target import JsonlTarget, ledger_folder
from memferry.errors import RefusedError, StoreError
from memferry.ledger import Ledger
from memferry.phases.migrate import Result, migrate
from memferry.phases.plan import Options
from memferry.phases.reading import read_stream
from memferry.phases.rollback import RolledBack, rollback
from memferry.urls import parse_url

OURS = '{"kind":"memory","id":"ours","content":"from the source"}\n'
MORE = '{"kind":"memory","id":"more","content":"from the source, later"}\n'
THEIRS = '{"kind":"memory","id":"theirs","content":"of the application"}\n'
FIRST = '{"kind":"memory","id":"first","content":"there before"}\n'


class Files:
    """A source and a target in one folder."""

    def __init__(self, folder: Path) -> None:
        self.source, self.target = folder / "source.jsonl", folder / "target.jsonl"
        self.source.write_text(OURS)

    def move(self, **chosen: Any) -> Result:
        return migrate(parse_url(str(self.source)), parse_url(str(self.target)), Options(**chosen))

    def append(self, line: str) -> None:
        """Adds a line; an empty one makes no file."""
        if not line:
            return
        self.target.write_text((self.target.read_text() if self.target.exists() else "") + line)

    def roll(self) -> RolledBack:
        target = open_target(parse_url(str(self.target)))
        [migration] = target.documents.migrations()
        return rollback(target, Ledger(target.documents, migration))


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


@pytest.mark.parametrize("before", ["", FIRST])
def test_lines_of_others_between_two_runs_are_not_taken_away(files: Files, before: str) -> None:
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
    files.append(FIRST)
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


def test_a_rollback_that_is_refused_leaves_the_migration_as_it_was(files: Files) -> None:
    assert files.move().outcome == "proven"
    files.append(THEIRS)
    with pytest.raises(RefusedError, match="has been changed since"):
        files.roll()
    files.source.write_text(OURS + MORE)
    assert files.move().outcome == "proven"


def test_a_rollback_that_was_killed_does_not_take_what_came_after_it(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert files.move().outcome == "proven"
    stop_in(monkeypatch, "drop_created", files.roll)
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


@pytest.mark.parametrize(("name", "other"), [("real.json", "link.jsonl"), ("real.jsonl", "link.jsonl.gz")])
def test_a_file_is_one_under_all_its_names(files: Files, tmp_path: Path, name: str, other: str) -> None:
    (tmp_path / name).write_text(OURS.replace("from the source", "before") + THEIRS)
    (tmp_path / other).symlink_to(name)
    before = (tmp_path / name).read_text()
    files.target = tmp_path / other
    assert files.move(on_existing="overwrite").outcome == "proven"
    assert '"from the source"' in (tmp_path / name).read_text()
    result = migrate(parse_url(f"jsonl:{tmp_path / name}"), parse_url(str(tmp_path / "again.jsonl")), Options())
    assert (result.outcome, result.books.total("read")) == ("proven", 2)
    target = open_target(parse_url(f"jsonl:{tmp_path / name}"))
    [migration] = target.documents.migrations()
    assert rollback(target, Ledger(target.documents, migration)).restored == 1
    assert (tmp_path / name).read_text() == before


def test_a_run_that_was_stopped_goes_on_under_another_name_of_the_file(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real.json").write_text(THEIRS)
    files.target.symlink_to("real.json")
    stop_in(monkeypatch, "finish", files.move)
    result = migrate(parse_url(str(files.source)), parse_url(f"jsonl:{tmp_path / 'real.json'}"), Options())
    assert (result.outcome, result.resumed) == ("proven", True)
    assert '"ours"' in files.target.read_text()
    assert files.roll().restored == 1
    assert files.target.read_text() == THEIRS


def test_of_two_migrations_that_are_done_at_once_one_is_refused(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both have compared with the file as it was before either, and would put theirs into place."""
    other = files.source.with_name("other.jsonl")
    other.write_text(MORE)
    finish, put = JsonlTarget.finish, JsonlTarget._put_into_place
    compared, looked = threading.Barrier(2), threading.Barrier(2)

    def together(self: JsonlTarget, *arguments: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            compared.wait(30)
        finish(self, *arguments)

    def put_together(self: JsonlTarget, *arguments: Any) -> None:
        with suppress(threading.BrokenBarrierError):
            looked.wait(2)
        put(self, *arguments)

    def move(source: Path) -> str:
        try:
            return migrate(parse_url(str(source)), parse_url(str(files.target)), Options()).outcome
        except RefusedError as error:
            return error.code

    with monkeypatch.context() as patch, ThreadPoolExecutor(2) as pool:
        patch.setattr(JsonlTarget, "finish", together)
        patch.setattr(JsonlTarget, "_put_into_place", put_together)
        outcomes = list(pool.map(move, [files.source, other]))
    assert sorted(outcomes) == ["existing", "proven"]
    assert move([files.source, other][outcomes.index("existing")]) == "proven"
    assert '"ours"' in files.target.read_text()
    assert '"more"' in files.target.read_text()


@pytest.mark.parametrize("before", ["", FIRST], ids=["new", "there before"])
@pytest.mark.parametrize("when", ["while it counts", "before it is put back"])
def test_a_line_that_comes_during_a_rollback_is_not_lost(
    files: Files, monkeypatch: pytest.MonkeyPatch, before: str, when: str
) -> None:
    files.append(before)
    assert files.move().outcome == "proven"

    def counted(*arguments: Any) -> Iterator[Any]:
        yield from read_stream(*arguments)
        files.append(THEIRS)

    with monkeypatch.context() as patch:
        if when == "while it counts":
            patch.setattr("memferry.phases.rollback.read_stream", counted)
        else:
            patch.setattr("memferry.phases.rollback.failpoint", lambda _: files.append(THEIRS))
        with pytest.raises(RefusedError, match="has been changed since"):
            files.roll()
    assert THEIRS in files.target.read_text()
    # The migration is as it was, and goes on.
    files.source.write_text(OURS + MORE)
    assert files.move().outcome == "proven"
    assert THEIRS in files.target.read_text()


@pytest.mark.parametrize("before", ["", FIRST], ids=["new", "there before"])
def test_a_rollback_that_was_killed_before_it_put_anything_back_does_not_claim_it(
    files: Files, monkeypatch: pytest.MonkeyPatch, before: str
) -> None:
    files.append(before)
    assert files.move().outcome == "proven"
    kill_at(monkeypatch, "memferry.phases.rollback", files.roll)
    files.append(THEIRS)
    for _ in range(2):
        with pytest.raises(RefusedError, match="has been changed since") as refused:
            files.roll()
    if before:
        [previous] = (files.target.parent / "target.jsonl.memferry").glob("previous-*")
        assert str(previous) in (refused.value.hint or "")
        assert previous.read_text() == FIRST
        files.target.write_bytes(previous.read_bytes())
    else:
        files.target.unlink()
    assert files.roll() == RolledBack()


@pytest.mark.parametrize("before", ["", FIRST], ids=["new", "there before"])
@pytest.mark.parametrize("then", ["", THEIRS], ids=["left alone", "changed since"])
def test_a_rollback_that_was_killed_when_it_had_just_put_back_is_done(
    files: Files, monkeypatch: pytest.MonkeyPatch, before: str, then: str
) -> None:
    files.append(before)
    assert files.move().outcome == "proven"
    kill_at(monkeypatch, "memferry.backends.jsonl.target", files.roll)
    files.append(then)
    assert files.roll() == RolledBack()
    assert (files.target.read_text() if files.target.exists() else "") == before + then
    assert files.move().outcome == "proven"
    files.roll()
    assert (files.target.read_text() if files.target.exists() else "") == before + then


def stop_in(monkeypatch: pytest.MonkeyPatch, method: str, work: Callable[[], object]) -> None:
    """Ends `work` where it comes to a method of the target."""

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(JsonlTarget, method, stopped)
        with pytest.raises(KeyboardInterrupt):
            work()


def kill_at(monkeypatch: pytest.MonkeyPatch, module: str, work: Callable[[], object]) -> None:
    """Ends `work` at the first named place of a module that it comes to."""

    def killed(_: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"{module}.failpoint", killed)
        with pytest.raises(KeyboardInterrupt):
            work()


def test_a_rollback_says_that_what_it_would_put_back_is_gone(files: Files) -> None:
    files.append(FIRST)
    assert files.move().outcome == "proven"
    [previous] = (files.target.parent / "target.jsonl.memferry").glob("previous-*")
    previous.unlink()
    left = files.target.read_text()
    for _ in range(2):
        with pytest.raises(RefusedError, match="is gone") as refused:
            files.roll()
        assert (refused.value.code, str(previous) in str(refused.value)) == ("existing", True)
    assert files.target.read_text() == left
    assert files.move().outcome == "proven"


def test_what_comes_between_the_copy_and_a_deletion_is_not_taken_away_by_a_rollback(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.source.write_text(OURS + MORE)
    assert files.move().outcome == "proven"
    files.source.write_text(OURS)
    delete = JsonlTarget.delete

    def late(self: JsonlTarget, identities: list[tuple[str, str]]) -> int:
        files.append(THEIRS)
        return delete(self, identities)

    with monkeypatch.context() as patch:
        patch.setattr(JsonlTarget, "delete", late)
        with pytest.raises(RefusedError, match="changed by someone"):
            files.move(delete=True, max_deletes_percent=60)
    assert files.move(delete=True, max_deletes_percent=60).outcome == "proven"
    assert '"more"' not in files.target.read_text()
    with pytest.raises(RefusedError, match="others changed the file"):
        files.roll()
    assert THEIRS in files.target.read_text()


def test_what_comes_while_the_file_is_kept_comes_back(files: Files, monkeypatch: pytest.MonkeyPatch) -> None:
    files.append(FIRST)

    def copied(*arguments: Any) -> None:
        copy(*arguments)
        monkeypatch.undo()
        files.append(THEIRS)

    copy = shutil.copy2
    monkeypatch.setattr("memferry.backends.jsonl.target.shutil.copy2", copied)
    with pytest.raises(RefusedError, match="changed by someone"):
        files.move()
    assert files.move().outcome == "proven"
    assert files.roll().restored == 1
    assert files.target.read_text() == FIRST + THEIRS


def test_a_run_after_the_ledger_was_lost_keeps_a_copy_of_its_own(files: Files) -> None:
    files.append(OURS.replace("from the source", "precious"))
    assert files.move(on_existing="overwrite").outcome == "proven"
    folder = ledger_folder(files.target)
    [original] = folder.glob("previous-*")
    for path in folder.glob("ledger.db*"):
        path.unlink()
    between = files.target.read_text()
    files.source.write_text(OURS + MORE)
    assert files.move(on_existing="overwrite").outcome == "proven"
    # What the first run wrote over is known to nobody; what the second found comes back.
    assert files.roll().restored == 1
    assert files.target.read_text() == between
    assert "precious" in original.read_text()
    assert list(folder.glob("previous-*")) == [original]


def test_a_ledger_that_has_lost_its_latest_lines_drops_no_original(files: Files) -> None:
    files.append(OURS.replace("from the source", "precious"))
    assert files.move(on_existing="overwrite").outcome == "proven"
    [original] = ledger_folder(files.target).glob("previous-*")
    documents = open_target(parse_url(str(files.target))).documents
    [migration] = documents.migrations()
    named = documents.get(migration, "previous/named")
    documents.delete(migration, "previous")
    documents.put(migration, "previous/named", named or "")
    with pytest.raises(RefusedError, match="is gone"):
        files.roll()
    files.source.write_text(OURS + MORE)
    assert files.move(on_existing="overwrite").outcome == "proven"
    assert files.roll().restored == 1
    assert "precious" in original.read_text()


def test_a_link_into_no_folder_is_refused(files: Files) -> None:
    files.target.symlink_to("nowhere/file.jsonl")
    with pytest.raises(RefusedError, match=r"no folder: .*nowhere") as refused:
        files.move()
    assert refused.value.code == "store-missing"


def test_a_folder_that_cannot_be_made_is_an_error_of_the_store(files: Files) -> None:
    ledger_folder(files.target).symlink_to("nowhere/else")
    with pytest.raises(StoreError, match="folder beside the file") as failed:
        files.move()
    assert failed.value.code == "io"
