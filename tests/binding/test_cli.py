"""`memferry binding status` and `memferry binding unfreeze`, against a small API server."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import memferry
from memferry.binding import BoundStore
from memferry.binding.journals import Journals
from memferry.cli.main import app
from memferry.phases.journal import Entry, read_journal, write_journal
from memferry.urls import parse_url
from support.bound import World

MIGRATIONS = "/apis/memferry.dev/v1alpha1/namespaces/default/memorymigrations"
BACKENDS = "/apis/memferry.dev/v1alpha1/namespaces/default/memorybackends"
LOCK = {"uid": "u1", "name": "move"}


def run(world: World, verb: str, *options: str, name: str = "memory") -> Result:
    return CliRunner().invoke(app, ["binding", verb, name, "--kubeconfig", str(world.kubeconfig), *options])


def migration(world: World, **traffic: Any) -> None:
    """A migration from `a` to `b` that holds the binding."""
    ends = {"source": {"backendRef": {"name": "a"}}, "target": {"backendRef": {"name": "b"}}}
    world.api.put(f"{MIGRATIONS}/move", {"metadata": {"uid": "u1"}, "spec": ends, "status": {"traffic": traffic}})


def backends(world: World) -> None:
    """The MemoryBackends of both stores, which are there."""
    for name, path in world.stores.items():
        memferry.open(path).close()
        world.api.put(f"{BACKENDS}/{name}", {"spec": {"backend": "embedded", "path": str(path)}})


def journals(world: World) -> dict[str, tuple[str, int] | None]:
    """What each store says."""
    found = {name: read_journal(parse_url(str(path)), "memory") for name, path in world.stores.items()}
    return {name: (entry.active, entry.revision) if entry else None for name, entry in found.items()}


def status(world: World) -> dict[str, Any]:
    path = "/apis/memferry.dev/v1alpha1/namespaces/default/memorybindings/memory"
    return dict(world.api.objects[path]["status"])


def test_status_names_who_is_silent(world: World, client: Callable[..., BoundStore]) -> None:
    client("good")
    memory = client("busy")
    world.until_said("good", 1, "Serving", "a")
    begun = memory.try_begin()
    assert isinstance(begun, tuple)
    world.say("a", 2, "Frozen", frozenUntil="2026-01-01T00:00:30Z", lockedBy=LOCK)
    world.until_said("good", 2, "Frozen", "a")
    shown = run(world, "status")
    assert shown.exit_code == 0, shown.output
    assert "memory: Frozen until 2026-01-01T00:00:30Z, a, revision 2, held by migration move" in shown.stdout
    assert "1 of 2 clients acknowledged that" in shown.stdout
    assert "not yet: memferry-client-memory-busy" in shown.stdout
    told = json.loads(run(world, "status", "--json").stdout)
    assert {c["pod"]: c["acknowledged"] for c in told["clients"]} == {"good": True, "busy": False}
    with memory.finishing(*begun):
        pass


def test_unfreeze_gives_writes_back_under_a_higher_revision(world: World, client: Callable[..., BoundStore]) -> None:
    memory = client()
    world.say("a", 4, "Frozen", frozenUntil="2026-01-01T00:00:30Z", lockedBy=LOCK)
    migration(world, revision=5, direction="Forward")
    backends(world)
    world.until_said("pod", 4, "Frozen", "a")
    done = run(world, "unfreeze", "--json")
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["changed"]
    assert journals(world) == {"a": ("a", 6), "b": ("a", 6)}
    assert told["after"] | {"revision": 6, "mode": "Serving", "active": "a"} == told["after"]
    assert status(world)["lockedBy"] == LOCK, "the migration still holds it, and gives up by itself"
    assert "frozenUntil" not in status(world)
    world.until_said("pod", 6, "Serving", "a")
    assert memory.standing().writable


def test_unfreeze_after_the_flip_goes_home_and_takes_the_secret_along(
    world: World, client: Callable[..., BoundStore]
) -> None:
    client()
    world.say("b", 3, "Frozen", lockedBy=LOCK)
    migration(world, revision=3, direction="Forward")
    backends(world)
    frozen = Entry(3, "Frozen", "b")
    for path in world.stores.values():
        write_journal(parse_url(str(path)), "memory", frozen)
    done = run(world, "unfreeze")
    assert done.exit_code == 0, done.output
    assert "writes go on at a, revision 4" in done.stdout
    assert journals(world) == {"a": ("a", 4), "b": ("a", 4)}
    assert "Secret memferry-binding-memory is of a again" in done.stdout
    world.until_said("pod", 4, "Serving", "a")
    secret = world.api.objects["/api/v1/namespaces/default/secrets/memferry-binding-memory"]
    assert base64.b64decode(secret["data"]["active"]) == b"a"


def test_unfreeze_of_a_switch_back_goes_to_the_target(world: World) -> None:
    world.say("a", 9, "Frozen", lockedBy=LOCK)
    migration(world, revision=9, direction="Back")
    done = run(world, "unfreeze", "--json", "--without-journal")
    assert json.loads(done.stdout)["after"]["active"] == "b"
    assert "MemoryBackend" in done.stdout or "404" in done.stdout, "it says that the Secret could not be written"
    assert "the journals in the stores say what they said before" in done.stdout


def test_unfreeze_goes_to_a_target_that_has_served_also_where_the_direction_was_lost(world: World) -> None:
    world.say("b", 9, "Frozen", lockedBy=LOCK)
    migration(world, revision=9, direction="Forward", switchedAt="2026-01-01T00:00:00Z")
    done = run(world, "unfreeze", "--json", "--without-journal")
    assert json.loads(done.stdout)["after"]["active"] == "b"


def test_where_the_store_is_out_of_reach_it_is_refused_and_nothing_is_changed(world: World) -> None:
    world.say("a", 4, "Frozen", lockedBy=LOCK)
    migration(world, revision=4, direction="Forward")
    backends(world)
    world.api.put(f"{BACKENDS}/a", {"spec": {"backend": "qdrant", "address": "127.0.0.1:9", "collection": "c"}})
    before = status(world)
    done = run(world, "unfreeze", "--json")
    assert done.exit_code == 2, done.output
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "journal"
    assert "the journal in a cannot be written from here, and nothing was changed: unavailable" in error["message"]
    assert (status(world), journals(world)["b"]) == (before, None)


def test_the_side_that_was_to_serve_may_be_away_and_a_journal_that_has_gone_on_is_gone_beyond(world: World) -> None:
    world.say("a", 4, "Frozen", lockedBy=LOCK)
    migration(world, revision=4, direction="Forward")
    backends(world)
    write_journal(parse_url(str(world.stores["a"])), "memory", Entry(9, "Frozen", "b"))
    world.api.put(f"{BACKENDS}/b", {"spec": {"backend": "qdrant", "address": "127.0.0.1:9", "collection": "c"}})
    done = run(world, "unfreeze")
    assert done.exit_code == 0, done.output
    assert "the journal in b was not written: unavailable" in done.stdout
    assert (status(world)["active"], status(world)["revision"]) == ("a", 10)
    assert journals(world)["a"] == ("a", 10)


def overtaken(world: World, monkeypatch: pytest.MonkeyPatch, then: Callable[[], object] = lambda: None) -> None:
    """A freeze in its last step: the switch comes to its end while it is taken back."""
    world.say("b", 3, "Frozen", lockedBy=LOCK)
    migration(world, revision=4, direction="Forward", step="Serving")
    backends(world)
    ends: list[Callable[[], object]] = [then]
    inner = Journals.write

    def write(self: Journals, revision: int) -> tuple[int, list[str]]:
        if not ends:
            return inner(self, revision)
        for side in ("b", "a"):
            write_journal(parse_url(str(world.stores[side])), "memory", Entry(4, "Serving", "b"))
        found = inner(self, revision)
        world.say("b", 4, lockedBy=LOCK)
        ends.pop()()
        return found

    monkeypatch.setattr(Journals, "write", write)


def test_a_switch_that_ends_while_it_is_taken_back_holds_and_the_journals_say_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    overtaken(world, monkeypatch)
    done = run(world, "unfreeze")
    assert done.exit_code == 0, done.output
    assert "the switch came to its end meanwhile: b serves" in done.stdout
    there = status(world)
    assert (there["active"], there["mode"], there["lockedBy"]) == ("b", "Serving", LOCK)
    assert there["revision"] > 5, "above what was said of the other side"
    assert journals(world) == dict.fromkeys(("a", "b"), ("b", there["revision"]))


def test_journals_that_cannot_be_mended_from_here_are_told(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    away = {"spec": {"backend": "qdrant", "address": "127.0.0.1:9", "collection": "c"}}
    overtaken(world, monkeypatch, lambda: world.api.put(f"{BACKENDS}/b", away))
    done = run(world, "unfreeze", "--json")
    assert done.exit_code == 2, done.output
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "journal"
    assert "b serves, as the switch came to its end meanwhile, and the journals say a, revision 5" in error["message"]
    assert (status(world)["active"], status(world)["revision"]) == ("b", 4)


def test_what_serves_is_left_alone(world: World) -> None:
    before = status(world)
    done = run(world, "unfreeze", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["changed"] is False
    assert status(world) == before


def test_without_its_migration_it_serves_where_it_is(world: World) -> None:
    world.say("b", 3, "Frozen", lockedBy={"uid": "u0", "name": "move"})
    migration(world, revision=3)
    backends(world)
    done = run(world, "unfreeze")
    assert "is gone: it serves where it is" in done.stdout
    assert (status(world)["active"], status(world)["revision"]) == ("b", 4)


@pytest.mark.parametrize("verb", ["status", "unfreeze"])
def test_no_such_binding(world: World, verb: str) -> None:
    done = run(world, verb, "--json", name="other")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["code"] == "cluster"


def test_a_status_of_a_newer_memferry_is_left_alone(world: World) -> None:
    world.say("a", 3, "Frozen", statusVersion=99)
    done = run(world, "unfreeze", "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["code"] == "format-newer"
