"""Health and metrics over HTTP; a standby answers as well."""

from __future__ import annotations

import logging
from collections.abc import Callable

from aiohttp import web
from prometheus_client import generate_latest

from memferry_operator.hands.metrics import Metrics

__all__ = ["serve"]

log = logging.getLogger(__name__)


async def serve(host: str, port: int, metrics: Metrics, ready: Callable[[], bool]) -> web.AppRunner:
    """Starts the server.

    Args:
        host: Address to listen at.
        port: Port; 0 for a free one.
        metrics: What is told of.
        ready: Whether the API server has answered lately; has nothing to do with leading.
    """

    async def alive(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def is_ready(_: web.Request) -> web.Response:
        good = ready()
        return web.Response(text="ok\n" if good else "the API server does not answer\n", status=200 if good else 503)

    async def numbers(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), content_type="text/plain", charset="utf-8")

    app = web.Application()
    app.add_routes([web.get("/healthz", alive), web.get("/readyz", is_ready), web.get("/metrics", numbers)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    log.info("serves health and metrics", extra={"address": f"{runner.addresses[0][0]}:{runner.addresses[0][1]}"})
    return runner
