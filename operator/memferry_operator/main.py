"""`memferry-operator`: settings from the environment, leader election, watches, the loop."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from typing import Any, Final

from memferry_operator import logs
from memferry_operator.hands.api import OURS, Api, ApiError
from memferry_operator.hands.leader import Leader, LostError
from memferry_operator.hands.metrics import Metrics
from memferry_operator.hands.reconciler import Reconciler
from memferry_operator.hands.server import serve
from memferry_operator.hands.watch import watch
from memferry_operator.settings import Settings, SettingsError

__all__ = ["run"]

log = logging.getLogger(__name__)

_KINDS: Final = {"memorymigrations", "memorybackends", "memorybindings"}
_READY_SECS: Final = 60.0


def run() -> None:
    """Entry point; exits 0 when it was asked to end, 1 when it cannot go on, 2 for wrong settings."""
    try:
        settings = Settings.from_environment()
    except SettingsError as error:
        sys.exit(f"memferry-operator: {error}")
    logs.configure(settings.log_level)
    sys.exit(asyncio.run(_main(settings)))


async def _main(settings: Settings) -> int:
    stop, metrics = asyncio.Event(), Metrics()
    api = Api(lambda status: metrics.api_answers.labels(str(status)).inc())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    leader = Leader(api, settings)
    metrics.leader.set_function(lambda: leader.leading)
    server = await serve(settings.http_host, settings.http_port, metrics, lambda: _age(api) < _READY_SECS)
    try:
        return await _until(stop, _lead(settings, api, leader, metrics, stop))
    finally:
        await leader.release()
        await server.cleanup()
        await api.close()


async def _until(stop: asyncio.Event, work: Any) -> int:
    """Runs until it is asked to end, or cannot go on."""
    task, ending = asyncio.ensure_future(work), asyncio.ensure_future(stop.wait())
    await asyncio.wait({task, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if not task.done():
        await asyncio.wait({task}, timeout=15)
        task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        return 0
    except LostError:
        log.warning("no longer leads, ends")
        return 1
    except Exception:
        # The end of the process: whatever it was is logged, and the Deployment starts another one.
        log.exception("cannot go on")
        return 1
    return 0


async def _lead(settings: Settings, api: Api, leader: Leader, metrics: Metrics, stop: asyncio.Event) -> None:
    """Waits for the resources and for the lead, then works until something ends."""
    waiting = asyncio.ensure_future(stop.wait())
    before = asyncio.ensure_future(_before(api, leader))
    await asyncio.wait({waiting, before}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not before.done():
        before.cancel()
        return
    before.result()
    reconciler = Reconciler(api, settings, leader, metrics)
    await reconciler.begin()
    loops = [reconciler.work() for _ in range(settings.workers)]
    loops += [reconciler.resync(), leader.hold(), _sighted(settings, api)]
    tasks = {asyncio.ensure_future(loop) for loop in loops}
    watching = asyncio.ensure_future(watch(settings, reconciler.tell, stop, asyncio.all_tasks()))
    try:
        done, _ = await asyncio.wait({*tasks, watching}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            # kopf, when it ends, cancels what a loop of ours may be waiting for.
            if not (stop.is_set() and task.cancelled()):
                task.result()
    finally:
        stop.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        # Before anything is asked of the API server again: kopf, when it ends, cancels every task it does not know.
        await asyncio.wait({watching}, timeout=5)
        await leader.release()


async def _before(api: Api, leader: Leader) -> None:
    """Kopf serves only what is there when it starts, so the kinds are waited for."""
    while True:
        try:
            found = await api.get(OURS) or {}
        except ApiError as error:
            log.warning("the API server: %s", error)
        else:
            missing = _KINDS - {one["name"] for one in found.get("resources") or []}
            if not missing:
                break
            log.warning("waits for the CustomResourceDefinitions", extra={"missing": sorted(missing)})
        await asyncio.sleep(2)
    await leader.acquire()


async def _sighted(settings: Settings, api: Api) -> None:
    """Ends when the API server has not answered for minutes: a new process begins with new connections."""
    while _age(api) < settings.blind_secs:  # noqa: ASYNC110 - nothing tells of an answer that does not come
        await asyncio.sleep(5)
    raise ApiError(0, f"no answer of the API server for {settings.blind_secs:g} s")


def _age(api: Api) -> float:
    return time.monotonic() - api.heard_at
