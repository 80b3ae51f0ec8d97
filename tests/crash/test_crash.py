"""Kill -9 of the real process, then the same command: nothing missing, nothing extra, nothing different.

`MEMFERRY_CRASH_RUNS` says how many seeded runs, with those of `test_servers.py`. Half of them kill at a random instant,
half at a named place.
"""

from __future__ import annotations

import gc
import itertools
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from support.checker import Contents, differences, touched
from support.documents import memory, plain_documents
from support.killing import FILE_RUNS, Ended, run_cli
from support.moving import move, plan, small_ranges
from support.stores import STORES, JsonlPlace, Place, place

RECORDS: Final = 600
SCENARIOS: Final = ("copy", "copy", "sync", "overwrite", "rollback", "abandon")
PAIRS: Final = list(itertools.product(STORES, STORES))

_COPY: Final = {
    "planned": 1,
    "prepared": 1,
    "written": 25,
    "booked": 25,
    "committed": 25,
    "range-ended": 8,
    "before-finish": 1,
    "after-finish": 1,
    "copied": 1,
    "x-ledger": 70,
    "x-written": 25,
}
_FILE_COPY: Final = {"x-before-join": 1, "x-after-join": 1, "x-unlinked": 5}
_ROLLBACK: Final = {"x-ledger": 12}
PLACES: Final[dict[str, dict[str, dict[str, int]]]] = {
    "migrate": {"embedded": _COPY, "jsonl": _COPY | _FILE_COPY},
    "sync": {"embedded": _COPY | {"deleted": 1}, "jsonl": _COPY | {"deleted": 1} | _FILE_COPY | {"x-after-join": 2}},
    "rollback": {
        "embedded": _ROLLBACK | {"deleted": 12, "restored": 1},
        "jsonl": _ROLLBACK
        | {"before-restore": 1, "put-back": 1, "x-before-restore": 1, "x-after-restore": 1}
        | {"x-unlinked": 3},
    },
}
"""Names of the places by command and backend, with how often a run passes them, about."""

_secs: dict[str, float] = {}
"""How long a command takes when nobody kills it."""


@dataclass
class Ends:
    """Both ends of a run."""

    source: Place
    target: Place
    migration: str
    before: Contents

    @property
    def backend(self) -> str:
        return "jsonl" if isinstance(self.target, JsonlPlace) else "embedded"


def _ends(request: pytest.FixtureRequest, folder: Path, pair: tuple[str, str]) -> tuple[Place, Place]:
    made = []
    for stem, kind in zip(("source", "target"), pair, strict=True):
        one = place(kind, request, folder, stem)
        if isinstance(one, JsonlPlace):
            one.url += f"?identity={stem}"  # the folder is copied, and would be another store elsewhere
        made.append(one)
    return made[0], made[1]


@pytest.fixture(scope="session")
def bases(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any, str], Path]:
    """Makes the state before the command that will be killed, once for each pair and scenario."""
    made: dict[tuple[Any, str], Path] = {}

    def make(pair: tuple[str, str], scenario: str) -> Path:
        if (pair, scenario) not in made:
            folder = tmp_path_factory.mktemp(f"base-{scenario}")
            source, target = _ends(request, folder, pair)
            with pytest.MonkeyPatch.context() as patch:
                small_ranges(patch)
                _make_base(source, target, scenario, folder)
            gc.collect()  # closes what is still open of the stores, so that the files can be copied
            made[pair, scenario] = folder
        return made[pair, scenario]

    return make


def _make_base(source: Place, target: Place, scenario: str, folder: Path) -> None:
    records = plain_documents(RECORDS, seed=11)
    source.make(records)
    if scenario in {"overwrite", "rollback", "abandon"}:
        shared = [memory(str(one["id"]), kind=one["kind"], content="theirs") for one in records[::15]]
        target.make([*shared, *(memory(f"theirs {n}") for n in range(20))])
    before = target.read()
    overwrite: dict[str, Any] = {"on_existing": "overwrite"} if scenario in {"overwrite", "rollback", "abandon"} else {}
    migration = ""
    if scenario in {"sync", "rollback"}:
        migration = move(source, target, **overwrite).migration
    elif scenario != "copy":
        migration = plan(source, target, **overwrite).migration
    if scenario == "sync":
        _edit(source)
    with (folder / "about.pickle").open("wb") as file:
        pickle.dump((migration, before), file)


def _edit(source: Place) -> None:
    keys = sorted(source.read().records)
    source.remove(keys[:: RECORDS // 15])
    for kind, identity in keys[3 :: RECORDS // 15]:
        source.change((kind, identity), f"changed {identity}")
    for number in range(10):
        source.add(memory(f"new {number}"))


@pytest.fixture
def ends(
    request: pytest.FixtureRequest, bases: Callable[[Any, str], Path], tmp_path: Path
) -> Callable[[tuple[str, str], str], Ends]:
    """A copy of a base."""

    def make(pair: tuple[str, str], scenario: str) -> Ends:
        base = bases(pair, scenario)
        source, target = _ends(request, tmp_path, pair)
        for stem in ("source", "target"):
            shutil.copytree(base / stem, tmp_path / stem, dirs_exist_ok=True)
        with (base / "about.pickle").open("rb") as file:
            migration, before = pickle.load(file)  # noqa: S301 - written by this test
        return Ends(source, target, migration, before)

    return make


class Killer:
    """Runs a command, kills it, and at last lets it finish."""

    def __init__(self, rng: random.Random, *, at_places: bool, backend: str) -> None:
        self.rng = rng
        self.at_places = at_places
        self.backend = backend
        self.kills = 0
        self.told: list[str] = []

    def kill(self, name: str, *arguments: str) -> None:
        """One attempt; a command that was quicker is no failure."""
        if self.at_places:
            places = PLACES[name][self.backend]
            where = self.rng.choice(sorted(places))
            ended = self._run(f"{where}:{self.rng.randint(1, places[where])}", name, *arguments)
        else:
            after = self.rng.uniform(0.0, _secs.get(f"{name} {self.backend}", 0.15))
            ended = run_cli(*arguments, kill_after_secs=after)
            self._note(f"{name} at {after:.3f} s", ended)
        assert ended.killed or ended.code in {0, 2}, self.story(ended)

    def kill_at(self, where: str, name: str, *arguments: str) -> None:
        """One attempt at a place that the command is sure to pass."""
        ended = self._run(where, name, *arguments)
        assert ended.killed, self.story(ended)

    def _run(self, where: str, name: str, *arguments: str) -> Ended:
        ended = run_cli(*arguments, failpoint=where)
        self._note(f"{name} at {where}", ended)
        return ended

    def finish(self, name: str, *arguments: str) -> Ended:
        """Lets the command come to its end."""
        ended = run_cli(*arguments)
        self._note(name, ended)
        _secs[f"{name} {self.backend}"] = ended.secs
        return ended

    def _note(self, what: str, ended: Ended) -> None:
        self.kills += ended.killed
        self.told.append(f"{what}: {ended.code}")

    def story(self, ended: Ended) -> str:
        """What was done, for a message."""
        return "\n".join([*self.told, ended.out[-2000:], ended.err[-3000:]])


def _balanced(kinds: dict[str, dict[str, int]]) -> bool:
    columns = ("written", "unchanged", "deduplicated", "filtered", "conflicts", "quarantined", "nested")
    return all(k["read"] + k["exploded"] == sum(k[c] for c in columns) for k in kinds.values())


def _told(kinds: dict[str, dict[str, int]], column: str) -> int:
    return sum(counts[column] for counts in kinds.values())


class Run:
    """One scenario between two stores, killed and called again until it is done."""

    def __init__(self, here: Ends, scenario: str, rng: random.Random, *, at_places: bool) -> None:
        self.here = here
        self.scenario = scenario
        self.killer = Killer(rng, at_places=at_places, backend=here.backend)
        self.untouched = here.source.trace()
        self.name = {"sync": "sync", "rollback": "rollback", "abandon": "rollback"}.get(scenario, "migrate")
        options = {"sync": ["--delete", "--max-deletes", "50"], "copy": []}.get(
            scenario, ["--on-existing", "overwrite"]
        )
        self.migrate = [
            "migrate",
            here.source.url,
            here.target.url,
            "--json",
            "--quiet",
            "--parallelism",
            "4",
            *options,
        ]
        back = ["rollback", here.target.url, "--migration", here.migration, "--json"]
        self.command = back if self.name == "rollback" else self.migrate

    def finish(self) -> None:
        """The command once more, then the check that shares no code with memferry."""
        ended = self.killer.finish(self.name, *self.command)
        story = self.killer.story(ended)
        if self.name == "rollback":
            # A run that was killed before it wrote anything leaves nothing to roll back.
            nothing = (
                self.scenario == "abandon" and ended.code == 2 and ended.final()["error"]["code"] == "no-migration"
            )
            assert ended.code == 0 or nothing, story
            assert differences(self.here.before, self.here.target.read(), markers=True) == [], story
        else:
            assert ended.code == 0, story
            final = ended.final()
            assert final["outcome"] == "proven", story
            assert _balanced(final["kinds"]), final["kinds"]
            expected, found = self.here.source.read(), self.here.target.read()
            assert _told(final["kinds"], "read") == len(expected.records)
            theirs = set(self.here.before.records) - set(expected.records)
            assert differences(expected, found.without(theirs)) == [], story
            assert theirs <= set(found.records), story
        assert touched(self.untouched, self.here.source.trace()) == []


@contextmanager
def _counted(run: Run, record_property: Callable[[str, object], None]) -> Iterator[None]:
    """Tells how many kills struck, of runs that fail too."""
    try:
        yield
    finally:
        record_property("crash kills", run.killer.kills)


@pytest.mark.parametrize("seed", range(FILE_RUNS))
def test_killed_and_called_again(
    seed: int,
    ends: Callable[[tuple[str, str], str], Ends],
    record_property: Callable[[str, object], None],
) -> None:
    rng = random.Random(seed)
    scenario = rng.choice(SCENARIOS)
    run = Run(ends(PAIRS[(seed // 2) % len(PAIRS)], scenario), scenario, rng, at_places=seed % 2 == 1)
    with _counted(run, record_property):
        if scenario == "abandon":
            run.killer.kill("migrate", *run.migrate)
        for _ in range(rng.randint(1, 3)):
            run.killer.kill(run.name, *run.command)
        run.finish()


NARROW: Final = [
    *(("jsonl.gz", "copy", where) for where in ("before-finish", "x-before-join", "x-after-join", "x-unlinked")),
    *(("jsonl", "sync", where) for where in ("x-after-join:1", "x-after-join:2", "deleted", "x-unlinked:3")),
    *(
        ("jsonl", "abandon", where)
        for where in ("planned", "before-finish", "x-before-join", "x-after-join", "x-unlinked")
    ),
    *(("jsonl", "rollback", where) for where in ("before-restore", "x-before-restore", "put-back", "x-after-restore")),
    *(("embedded", "sync", where) for where in ("after-finish", "deleted")),
    *(("embedded", "rollback", where) for where in ("deleted", "restored")),
]
"""Instants too short for a random kill to meet them."""


@pytest.mark.parametrize(("kind", "scenario", "where"), NARROW)
def test_killed_in_a_narrow_place(
    kind: str,
    scenario: str,
    where: str,
    ends: Callable[[tuple[str, str], str], Ends],
    record_property: Callable[[str, object], None],
) -> None:
    run = Run(ends(("embedded", kind), scenario), scenario, random.Random(0), at_places=True)
    with _counted(run, record_property):
        run.killer.kill_at(where, run.name, *(run.migrate if scenario == "abandon" else run.command))
        run.finish()


@pytest.mark.parametrize(
    ("kind", "where"),
    [
        ("embedded", "restored"),
        ("embedded", "deleted"),
        ("jsonl", "before-restore"),
        ("jsonl", "put-back"),
        ("jsonl", "x-unlinked:1"),
    ],
)
def test_a_rollback_that_was_killed_is_finished_before_anything_else(
    kind: str,
    where: str,
    ends: Callable[[tuple[str, str], str], Ends],
    record_property: Callable[[str, object], None],
) -> None:
    run = Run(ends(("embedded", kind), "rollback"), "rollback", random.Random(0), at_places=True)
    with _counted(run, record_property):
        run.killer.kill_at(where, run.name, *run.command)
        refused = run_cli(*run.migrate)
        assert refused.code == 2, run.killer.story(refused)
        assert refused.final()["error"]["code"] == "rolling-back"
        status = run_cli("status", run.here.target.url).out
        assert f"{run.here.migration}  rolling_back\n" in status
        assert "to resume: memferry rollback " in status
        run.finish()
    again = run_cli(*run.migrate)
    assert (again.code, again.final()["outcome"]) == (0, "proven"), run.killer.story(again)
