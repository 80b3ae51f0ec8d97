"""The brain against the simulation: whole lives, and the same life killed at every action."""

from __future__ import annotations

from typing import Any

import pytest

from support.simulated_cluster import World

OFFLINE: dict[str, Any] = {}
ONLINE = {"strategy": "Online", "monitoring": {"duration": "20s", "interval": "5s"}}
LIVES: dict[str, tuple[dict[str, Any], bool]] = {
    "offline": (OFFLINE, False),
    "offline-delete": ({"decommission": {"policy": "Delete"}}, False),
    "offline-bound": ({"monitoring": {"duration": "20s", "interval": "5s"}}, True),
    "online-bound": (ONLINE, True),
    "online-bound-delete": ({**ONLINE, "decommission": {"policy": "Delete"}}, True),
}


def world(life: str, **changes: Any) -> World:
    spec, bound = LIVES[life]
    return World(spec={**spec}, bound=bound, **changes)


def lost(w: World) -> set[str]:
    """Writes to the source that are not on the target."""
    return {f"{app.name}:{n}" for app in w.apps for side, n in app.written if side == "a"} - w.carried


@pytest.mark.parametrize("life", LIVES)
def test_life(life: str) -> None:
    w = world(life)
    w.run()
    assert w.status.phase == "Succeeded", (w.status.phase, w.status.reason, w.status.conditions)
    phases = [entry.phase for entry in w.status.history]
    assert phases[:4] == ["Pending", "ParallelSetup", "BulkTransfer", "Validation"]
    assert all(entry.completed_at for entry in w.status.history)
    if w.binding:
        assert (w.binding.active, w.binding.mode) == ("b", "Serving")
        assert w.status.traffic is not None
        assert w.status.traffic.write_freeze_millis
        if life.startswith("online"):
            assert not lost(w)


@pytest.mark.parametrize("life", LIVES)
def test_killed_at_every_action(life: str) -> None:
    whole = world(life)
    whole.run()
    for at in range(len(whole.log)):
        w = world(life)
        struck: list[int] = []

        def strike(n: int, at: int = at, struck: list[int] = struck) -> bool:
            if n == at and not struck:
                struck.append(n)
                return True
            return False

        w.run(stop=strike)
        assert struck
        assert w.status.phase == "Succeeded", (at, whole.log[at], w.status.reason)
        assert w.binding is None or w.binding.active == "b"
        assert not (life.startswith("online") and lost(w))
