"""The verbs as functions, plain and awaited."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from math import nan
from pathlib import Path

import pytest

import memferry
import memferry.aio
from memferry import MemferryError, Record, RefusedError, Secrets, Stop
from memferry.phases import plan as planning


def _fill(path: Path, count: int) -> Path:
    with memferry.open(path) as store:
        store.put([Record("memory", f"m{i:05}", content=f"text {i}") for i in range(count)])
    return path


def test_plan_migrate_verify_rollback(tmp_path: Path) -> None:
    source, target = _fill(tmp_path / "a.db", 50), tmp_path / "b.jsonl"
    plan = memferry.plan(source, target)
    assert (plan.counts, target.exists()) == ({"memory": 50}, False)
    told: list[tuple[str, int, int | None]] = []
    result = memferry.migrate(source, target, progress=lambda *said: told.append(said))
    assert (result.outcome, result.exit_code, result.books.of("memory").written) == ("proven", 0, 50)
    assert {phase for phase, _, _ in told} == {"plan", "copy", "verify"}
    assert memferry.verify(source, target).outcome == "proven"
    done = memferry.rollback(target, migration=result.migration)
    assert (done.deleted, target.exists()) == (50, False)


def test_refusals_are_typed(tmp_path: Path) -> None:
    source = _fill(tmp_path / "a.db", 1)
    for refused, code in (
        (lambda: memferry.plan(tmp_path / "none.db", tmp_path / "b.db"), "store-missing"),
        (lambda: memferry.migrate(source, source), "invalid"),
        (lambda: memferry.migrate(source, tmp_path / "b.db", accept=["thing"]), "invalid"),
        (lambda: memferry.migrate(source, tmp_path / "b.db", on_existing="maybe"), "invalid"),  # type: ignore[arg-type]
        (lambda: memferry.migrate(source, tmp_path / "b.db", min_recall=0.5), "invalid"),
        (lambda: memferry.migrate(source, tmp_path / "b.db", parity=-1), "invalid"),
        (lambda: memferry.migrate(source, tmp_path / "b.db", delete=True, max_deletes_percent=nan), "invalid"),
        (lambda: memferry.migrate(source, tmp_path / "b.db", delete=True, max_deletes_percent=-1), "invalid"),
        (lambda: memferry.migrate(source, tmp_path / "b.db", delete=True, max_deletes_percent=100.5), "invalid"),
        (lambda: memferry.migrate(source, tmp_path / "b.db", max_quarantined=-1), "invalid"),
        (lambda: memferry.migrate(source, tmp_path / "b.db", parallelism=0), "invalid"),
        (lambda: memferry.plan(source, tmp_path / "b.db", parallelism=0), "invalid"),
        (lambda: memferry.verify(source, tmp_path / "b.db"), "no-migration"),
        (lambda: memferry.rollback(tmp_path / "b.db"), "no-migration"),
        (lambda: memferry.rollback(source), "no-migration"),
    ):
        with pytest.raises(RefusedError) as caught:
            refused()
        assert caught.value.code == code
    assert not (tmp_path / "b.db").exists()


def test_rollback_asks_which_of_several(tmp_path: Path) -> None:
    target = tmp_path / "c.db"
    ids = {
        memferry.migrate(_fill(tmp_path / f"{name}.db", 1), target, on_existing="keep").migration for name in ("a", "b")
    }
    with pytest.raises(RefusedError) as caught:
        memferry.rollback(target)
    assert all(migration in str(caught.value) for migration in ids)


def test_secrets_are_given_or_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMFERRY_TARGET_API_KEY", "from the environment")
    assert memferry.library.store_url("TARGET", "a.db").secrets.api_key == "from the environment"
    given = Secrets(api_key="given")
    assert memferry.library.store_url("TARGET", "a.db", given).secrets == given
    assert "given" not in repr(given)


def test_a_stop_ends_a_run_between_pages_and_the_same_call_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "ROWS_PER_RANGE", 50)
    source, target, stop = _fill(tmp_path / "a.db", 1000), tmp_path / "b.db", Stop()

    def progress(phase: str, done: int, total: int | None) -> None:
        if phase == "copy" and done:
            stop.set()

    with pytest.raises(MemferryError) as caught:
        memferry.migrate(source, target, progress=progress, stop=stop)
    assert caught.value.code == "interrupted"
    result = memferry.migrate(source, target)
    assert (result.outcome, result.resumed) == ("proven", True)


def test_a_cancelled_task_ends_at_a_page_and_the_same_call_resumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "ROWS_PER_RANGE", 50)
    source, target = _fill(tmp_path / "a.db", 1000), tmp_path / "b.db"
    told: list[tuple[str, int]] = []
    threads: set[threading.Thread] = set()

    async def run() -> memferry.Result:
        loop_thread = threading.current_thread()

        def progress(phase: str, done: int, total: int | None) -> None:
            threads.add(threading.current_thread())
            told.append((phase, done))
            if phase == "copy" and done:
                task.cancel()

        task = asyncio.ensure_future(memferry.aio.migrate(source, target, progress=progress))
        with pytest.raises(asyncio.CancelledError):
            await task
        assert threads == {loop_thread}
        assert not [t for t in threading.enumerate() if t.name.startswith("memferry")]
        copied = len([record async for record in store_records()])
        assert 0 < copied < 1000
        return await memferry.aio.migrate(source, target)

    async def store_records() -> AsyncIterator[Record]:
        async with memferry.aio.open(target, read_only=True) as store:
            async for record in store.list():
                yield record

    result = asyncio.run(run())
    assert (result.outcome, result.resumed) == ("proven", True)
    assert told[0][0] == "plan"


def test_the_loop_goes_on_while_a_store_works(tmp_path: Path) -> None:
    async def run() -> None:
        async with memferry.aio.open(tmp_path / "a.db") as store:
            assert store.capabilities().write
            written = await asyncio.gather(*(store.put(Record("memory", f"m{i}", content="tea")) for i in range(20)))
            assert sum(written) == 20
            assert await store.get("memory", "m7") == Record("memory", "m7", content="tea")
            assert await store.get_many([("memory", "m1"), ("memory", "x")]) == [
                Record("memory", "m1", content="tea"),
                None,
            ]
            assert len(await store.search("tea", k=30)) == 20
            assert await store.delete("memory", "m7")
            assert await store.delete_many([("memory", "m7"), ("memory", "m8")]) == 1
            assert [len(page.records) async for page in store.pages(kind="memory", size=10)] == [10, 8]
            assert len([record async for record in store.list()]) == 18
            assert await store.wait_indexed()
            with pytest.raises(RefusedError):
                await store.put([Record("memory", "m1")], replace=False)
        plan = await memferry.aio.plan(tmp_path / "a.db", tmp_path / "b.db")
        assert plan.records == 18
        assert (await memferry.aio.migrate(tmp_path / "a.db", tmp_path / "b.db")).outcome == "proven"
        assert (await memferry.aio.verify(tmp_path / "a.db", tmp_path / "b.db")).outcome == "proven"
        assert (await memferry.aio.rollback(tmp_path / "b.db")).deleted == 18

    asyncio.run(run())


def test_the_package_names_what_it_has() -> None:
    for name in memferry.__all__:
        assert getattr(memferry, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        memferry.nothing  # noqa: B018
