"""The ledger: states, findings, originals, the lock."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import stamina
from hypothesis import given
from hypothesis import strategies as st

from memferry import locks
from memferry.backends.embedded import EmbeddedTarget
from memferry.errors import RefusedError, StoreError, TransientError
from memferry.ledger import Ledger, RangeState
from memferry.locks import LEASE_SECS
from memferry.model import Books, KindBooks, Quarantined

MIGRATION = "0123456789abcdef"


@pytest.fixture
def target(tmp_path: Path) -> Iterator[EmbeddedTarget]:
    made = EmbeddedTarget(tmp_path / "store.db")
    yield made
    made.close()


@pytest.fixture
def ledger(target: EmbeddedTarget) -> Ledger:
    return Ledger(target.documents, MIGRATION)


def lock_of(target: EmbeddedTarget) -> dict[str, Any]:
    lock: dict[str, Any] = json.loads(target.documents.get(MIGRATION, "lock") or "{}")
    return lock


def put_lock(target: EmbeddedTarget, **changes: Any) -> None:
    target.documents.put(MIGRATION, "lock", json.dumps({**lock_of(target), **changes}))


# -- states


@given(
    st.none() | st.text(),
    st.booleans(),
    st.integers(0, 10**9),
    st.dictionaries(st.sampled_from(["entity", "memory", "unknown"]), st.integers(0, 2**40)),
)
def test_a_range_state_comes_back(cursor: str | None, done: bool, page: int, reads: dict[str, int]) -> None:
    state = RangeState(cursor, done, page, Books({kind: KindBooks(read=read) for kind, read in reads.items()}))
    assert RangeState.from_json(state.to_json()) == state


def test_an_unknown_range_is_new(ledger: Ledger) -> None:
    assert ledger.range_state(3) == RangeState()
    assert ledger.ranges_done() == 0


def test_books_add_up_over_ranges(ledger: Ledger) -> None:
    for number in range(1200):  # more than one scan reads
        books = Books({"memory": KindBooks(read=2, written=2)})
        ledger.save_range(number, RangeState(done=number % 2 == 0, books=books))
    assert ledger.books().total("read") == 2400
    assert ledger.books().balanced()
    assert ledger.ranges_done() == 600


def test_a_new_run_forgets_findings_and_keeps_originals(ledger: Ledger) -> None:
    ledger.start_run("{}", plan_hash="a")
    ledger.save_range(0, RangeState(done=True))
    ledger.quarantine(0, 0, [Quarantined("7", "memory", "m", "bad", "why", b"raw")])
    ledger.conflict(0, 0, [("memory", "m", "changed")])
    ledger.save_original("memory", "m", "the first")
    ledger.save_baseline(0, 0, b"at the switch")
    ledger.start_run('{"second":1}', plan_hash="b")
    run = ledger.run()
    assert run is not None
    assert (run["number"], run["state"], run["plan_hash"]) == (2, "copying", "b")
    assert ledger.plan() == '{"second":1}'
    assert ledger.ranges_done() == 0
    assert list(ledger.quarantined()) == []
    assert list(ledger.conflicts()) == []
    assert list(ledger.originals()) == [("memory/m", "the first")]
    assert list(ledger.baseline()) == [b"at the switch"]


def test_a_newer_run_is_refused(ledger: Ledger) -> None:
    ledger.start_run("{}")
    ledger.save_run(format=2)
    with pytest.raises(RefusedError) as caught:
        ledger.run()
    assert caught.value.code == "format-newer"


def test_migrations_do_not_see_each_other(target: EmbeddedTarget, ledger: Ledger) -> None:
    other = Ledger(target.documents, "f" * 16)
    ledger.start_run("{}")
    other.save_range(0, RangeState(done=True))
    other.save_original("memory", "m", "theirs")
    assert ledger.ranges_done() == 0
    assert list(ledger.originals()) == []
    ledger.forget()
    assert other.ranges_done() == 1


# -- findings


@given(raw=st.binary(max_size=50), identity=st.none() | st.text(max_size=20), message=st.text(max_size=20))
def test_quarantined_rows_come_back_whole(
    tmp_path_factory: pytest.TempPathFactory, raw: bytes, identity: str | None, message: str
) -> None:
    target = EmbeddedTarget(tmp_path_factory.mktemp("ledger") / "store.db")
    rows = [Quarantined("key", "memory", identity, "reason", message, raw), Quarantined("k", None, None, "r", "", b"")]
    ledger = Ledger(target.documents, MIGRATION)
    ledger.quarantine(2, 5, rows)
    assert [row for _, row in ledger.quarantined()] == rows
    assert [number for number, _ in ledger.quarantined()] == ["000002/000005/000000", "000002/000005/000001"]


def test_a_page_that_is_done_over_leaves_no_second_entry(ledger: Ledger) -> None:
    row = Quarantined("7", "memory", "m", "bad", "why", b"raw")
    for _ in range(2):
        ledger.quarantine(1, 0, [row])
        ledger.conflict(1, 0, [("memory", "n", "changed")])
    assert len(list(ledger.quarantined())) == 1
    assert list(ledger.conflicts()) == [{"kind": "memory", "id": "n", "reason": "changed"}]
    ledger.quarantine(2, 0, [row])
    ledger.forget_range(1)
    assert [number for number, _ in ledger.quarantined()] == ["000002/000000/000000"]
    assert list(ledger.conflicts()) == []


def test_only_the_first_original_is_kept(ledger: Ledger) -> None:
    nasty = ["", "a/b", "saved/", "\U0010ffff", "'; DROP TABLE memferry_ledger; --", "%", "\0", "é", "e\u0301"]
    for identity in nasty:
        ledger.save_original("memory", identity, f"first {identity}")
        ledger.save_original("memory", identity, "second")
    ledger.save_original("entity", "", "another kind")
    found = dict(ledger.originals())
    assert found == {**{f"memory/{i}": f"first {i}" for i in nasty}, "entity/": "another kind"}


# -- lock


def test_who_holds_the_lock_is_told(target: EmbeddedTarget, ledger: Ledger) -> None:
    ledger.acquire(target)
    with pytest.raises(RefusedError) as caught:
        Ledger(target.documents, MIGRATION).acquire(target)
    assert caught.value.code == "busy"
    assert f"process {os.getpid()}" in str(caught.value)
    Ledger(target.documents, "f" * 16).acquire(target)
    ledger.release()
    Ledger(target.documents, MIGRATION).acquire(target)


@contextmanager
def dead_process() -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", ""]) as process:
        process.wait()
        yield process.pid


def test_the_lock_of_a_dead_process_is_taken(target: EmbeddedTarget, ledger: Ledger) -> None:
    ledger.acquire(target)
    with dead_process() as pid:
        put_lock(target, pid=pid)
        Ledger(target.documents, MIGRATION).acquire(target)


def test_a_process_whose_end_nobody_asked_about_holds_nothing(target: EmbeddedTarget, ledger: Ledger) -> None:
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        started = locks._started(process.pid)
        ledger.acquire(target)
        put_lock(target, pid=process.pid, started=started, token="theirs")
        with pytest.raises(RefusedError):
            Ledger(target.documents, MIGRATION).acquire(target)
        process.kill()
        # Waits for its end, and leaves it a zombie.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        Ledger(target.documents, MIGRATION).acquire(target)


def test_a_pid_used_again_is_another_process(target: EmbeddedTarget, ledger: Ledger) -> None:
    ledger.acquire(target)
    put_lock(target, started="1")
    Ledger(target.documents, MIGRATION).acquire(target)


def test_the_lease_counts_on_another_host(target: EmbeddedTarget, ledger: Ledger) -> None:
    ledger.acquire(target)
    lock = lock_of(target)
    assert 0 < lock["expires"] - time.time() <= LEASE_SECS
    put_lock(target, host="elsewhere", pid=1)
    with pytest.raises(RefusedError):
        Ledger(target.documents, MIGRATION).acquire(target)
    put_lock(target, expires=time.time() - 1)
    Ledger(target.documents, MIGRATION).acquire(target)


def test_renewing_moves_the_lease(target: EmbeddedTarget, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    ledger.acquire(target)
    before = lock_of(target)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 1000)
    ledger.renew()
    after = lock_of(target)
    assert after["token"] == before["token"]
    assert after["expires"] == pytest.approx(now + 1000 + LEASE_SECS)


def test_a_late_run_is_fenced_and_leaves_the_lock_of_the_other(target: EmbeddedTarget, ledger: Ledger) -> None:
    ledger.acquire(target)
    put_lock(target, started="1")
    second = Ledger(target.documents, MIGRATION)
    second.acquire(target)
    with pytest.raises(StoreError) as caught:
        ledger.check()
    assert caught.value.code == "fenced"
    ledger.release()
    second.check()
    second.release()
    with pytest.raises(StoreError):
        second.check()


def late_page(target: EmbeddedTarget, ledger: Ledger) -> None:
    with target.transaction():
        ledger.save_range(0, RangeState(done=True))
        ledger.check()


def heartbeat(target: EmbeddedTarget, ledger: Ledger) -> None:
    with target.transaction():
        ledger.check()
        ledger.renew()


def test_a_fenced_page_is_not_kept(target: EmbeddedTarget, ledger: Ledger) -> None:
    ledger.acquire(target)
    put_lock(target, token="another")
    with pytest.raises(StoreError):
        late_page(target, ledger)
    assert ledger.ranges_done() == 0


def test_renewing_does_not_take_a_lost_lock_back(target: EmbeddedTarget, ledger: Ledger) -> None:
    """The heartbeat checks before it renews, in one transaction."""
    ledger.acquire(target)
    put_lock(target, token="another")
    with pytest.raises(StoreError):
        heartbeat(target, ledger)
    assert lock_of(target)["token"] == "another"


def test_a_commit_whose_answer_was_lost_is_no_other_run(
    target: EmbeddedTarget, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = target.transaction

    @contextmanager
    def unanswered() -> Iterator[None]:
        with commit():
            yield
        monkeypatch.undo()
        raise TransientError("unavailable", "no answer")

    monkeypatch.setattr(target, "transaction", unanswered)
    with stamina.set_testing(True, attempts=3, cap=True), ledger.held(target):
        ledger.check()
    assert lock_of(target) == {}


def test_a_held_lock_is_renewed_until_the_block_ends(
    target: EmbeddedTarget, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    renewed = threading.Event()
    monkeypatch.setattr(locks, "LEASE_SECS", 0.04)
    monkeypatch.setattr(ledger, "renew", renewed.set)
    with ledger.held(target):
        assert renewed.wait(60)
    assert lock_of(target) == {}
