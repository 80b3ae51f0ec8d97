"""From every kind of store to every other."""

from __future__ import annotations

import pytest

from support.checker import Contents, differences, touched
from support.documents import documents, memory, plain_documents
from support.moving import interrupt, move, plan, refused, roll, verify
from support.stores import EmbeddedPlace, Place


def test_everything_arrives_and_is_proven(source: Place, target: Place) -> None:
    source.make(documents(300, seed=1))
    there = source.read()
    result = move(source, target)
    assert (result.outcome, result.exit_code, result.lossless) == ("proven", 0, True)
    assert result.verification is not None
    assert result.verification.counts() == {"compared": 300, "missing": 0, "extra": 0, "different": 0, "foreign": 0}
    assert differences(there, target.read()) == []
    assert target.read().marked(result.migration) == set(there.records)
    for kind, books in result.books.kinds.items():
        count = sum(1 for key in there.records if key[0] == kind)
        assert (books.read, books.written) == (count, count)


def test_there_and_back_again_changes_nothing(source: Place, target: Place, back: Place) -> None:
    source.make(documents(250, seed=2))
    move(source, target)
    result = move(target, back)
    assert result.outcome == "proven"
    assert differences(source.read(), back.read()) == []


def test_the_source_is_never_touched(source: Place, target: Place) -> None:
    source.make(plain_documents(120, seed=3))
    before = source.trace()
    move(source, target)
    verify(source, target)
    move(source, target)
    assert touched(before, source.trace()) == []


def test_a_second_run_writes_nothing(source: Place, target: Place) -> None:
    source.make(plain_documents(150, seed=4))
    first = move(source, target)
    before = target.read()
    second = move(source, target)
    assert second.outcome == "proven"
    assert second.migration == first.migration
    assert not second.resumed
    assert (second.books.total("written"), second.books.total("unchanged")) == (0, 150)
    assert differences(before, target.read(), markers=True) == []


def test_a_sync_carries_what_changed(source: Place, target: Place) -> None:
    source.make(plain_documents(150, seed=5))
    move(source, target)
    gone = sorted(source.read().records)[::30]
    source.remove(gone)
    kept = sorted(source.read().records)
    for kind, identity in kept[::40]:
        source.change((kind, identity), f"changed {identity}")
    source.add(memory("new", extra={"n": 1}))
    result = move(source, target, delete=True)
    assert result.outcome == "proven"
    books = result.books
    assert (books.total("written"), books.total("deleted")) == (len(kept[::40]) + 1, len(gone))
    assert books.total("unchanged") == len(kept) - len(kept[::40])
    assert differences(source.read(), target.read()) == []
    again = move(source, target, delete=True)
    assert (again.outcome, again.books.total("written"), again.books.total("deleted")) == ("proven", 0, 0)


@pytest.mark.parametrize("phase", ["copy", "verify"])
def test_an_interrupted_run_goes_on(source: Place, target: Place, phase: str) -> None:
    source.make(plain_documents(200, seed=6))
    interrupt(source, target, phase=phase)
    result = move(source, target)
    assert (result.outcome, result.resumed) == ("proven", True)
    assert differences(source.read(), target.read()) == []
    assert (result.books.total("read"), result.books.total("written")) == (200, 200)


def test_a_plan_for_a_new_target_leaves_no_trace(source: Place, target: Place) -> None:
    source.make(plain_documents(60, seed=7))
    mine, theirs = source.trace(), target.trace()
    made = plan(source, target)
    assert (made.records, made.target_records) == (60, 0)
    assert touched(mine, source.trace()) == []
    assert touched(theirs, target.trace()) == []


def test_a_plan_for_an_existing_target_leaves_no_trace(source: Place, target: Place) -> None:
    source.make(plain_documents(60, seed=7))
    target.make([memory("other")])
    mine, theirs = source.trace(), target.trace()
    made = plan(source, target)
    assert (made.records, made.target_records, made.existing) == (60, 1, 0)
    assert touched(mine, source.trace()) == []
    assert touched(theirs, target.trace()) == []


def test_a_refused_run_leaves_no_trace(source: Place, target: Place) -> None:
    source.make([memory("a"), memory("b")])
    target.make([memory("b", content="someone's")])
    mine, before, theirs = source.trace(), target.trace(), target.read()
    error = refused(lambda: move(source, target))
    assert (error.code, error.exit_code) == ("existing", 2)
    assert touched(mine, source.trace()) == []
    assert differences(theirs, target.read(), markers=True) == []
    if not isinstance(target, EmbeddedPlace):  # there the lock is in the file itself
        assert touched(before, target.trace()) == []


def test_rollback_of_a_first_run_leaves_nothing(source: Place, target: Place) -> None:
    source.make(plain_documents(100, seed=8))
    result = move(source, target)
    done = roll(target, result.migration)
    assert (done.deleted, done.restored, done.kept) == (100, 0, [])
    assert differences(Contents(), target.read(), markers=True) == []
    again = move(source, target)
    assert (again.outcome, again.books.total("written")) == ("proven", 100)
    assert differences(source.read(), target.read()) == []


def test_rollback_restores_what_was_there(source: Place, target: Place) -> None:
    source.make(documents(120, seed=9))
    shared = sorted(source.read().records)[:30]
    theirs = [memory(identity, kind=kind, tags=["x"]) for kind, identity in shared]
    target.make([*theirs, *(memory(f"only theirs {n}") for n in range(10))])
    before = target.read()
    result = move(source, target, on_existing="overwrite")
    assert result.outcome == "proven"
    assert result.verification is not None
    assert result.verification.foreign == 10
    roll(target, result.migration)
    assert differences(before, target.read(), markers=True) == []
