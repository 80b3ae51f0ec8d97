"""A binding in a small API server, and clients of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from memferry.binding import BoundStore, connect
from support.bound import LEASE_SECS, World
from support.fake_api import FakeApi


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """A binding that serves from `a`."""
    with FakeApi() as api:
        made = World(api, tmp_path)
        made.say("a", 1)
        yield made


@pytest.fixture
def client(world: World) -> Iterator[Callable[..., BoundStore]]:
    """Connects clients that are closed in the end."""
    opened: list[BoundStore] = []

    def make(pod: str = "pod", **chosen: Any) -> BoundStore:
        chosen = {"lease_secs": LEASE_SECS, "freeze_wait_secs": 0.3, "kubeconfig": world.kubeconfig, **chosen}
        opened.append(connect("memory", pod=pod, **chosen))
        return opened[-1]

    yield make
    for one in opened:
        one.close()
