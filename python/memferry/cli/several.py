"""Several migrations in one run: all are planned before one is begun; one final report, the worst exit code."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from memferry.cli.common import Shown, Talk, command
from memferry.cli.console import failure, print_json, say, show, tell
from memferry.cli.text import plan_text, result_text, summary_text
from memferry.errors import MemferryError
from memferry.phases import migrate
from memferry.phases.plan import Options, Stop
from memferry.urls import StoreUrl, same_store

__all__ = ["One", "migrate_all", "migrate_one", "plan_all", "verify_all"]

_FROM_GOOD_TO_BAD: Final = (
    "planned",
    "proven",
    "partial",
    "matched_live",
    "not_proven",
    "refused",
    "failed",
    "interrupted",
)


@dataclass(frozen=True)
class One:
    """One migration of several.

    Attributes:
        name: What it is called: a collection, a resource.
        source: Where from.
        target: Where to.
        options: What was chosen.
        stop_after: `Plan` for a rehearsal.
        left_out: Fields of its manifest that are not acted upon.
    """

    name: str
    source: StoreUrl
    target: StoreUrl
    options: Options
    stop_after: str | None = None
    left_out: list[str] | None = None

    def needs(self, other: One) -> bool:
        """Whether this can be planned only when another one is done: it reads or writes what that one writes."""
        return same_store(self.source, other.target) or same_store(self.target, other.target)

    def told(self, final: dict[str, Any]) -> dict[str, Any]:
        """Its final object among others."""
        about: dict[str, Any] = {"name": self.name}
        if self.left_out is None:
            about |= {"source": self.source.text, "target": self.target.text}
            return {**about, **final}
        return {**about, **final, "left_out": self.left_out}


@dataclass
class _Course:
    """What came of each so far."""

    codes: list[int] = field(default_factory=list)
    finals: list[dict[str, Any]] = field(default_factory=list)

    def add(self, one: One, code: int, final: dict[str, Any]) -> None:
        self.codes.append(code)
        self.finals.append(one.told(final))

    def end(self, talk: Talk, not_begun: list[str]) -> tuple[int, str]:
        """Tells everything; exit code and outcome of the worst."""
        outcome = str(max((final["outcome"] for final in self.finals), key=_FROM_GOOD_TO_BAD.index))
        if not_begun:
            say(f"not begun: {', '.join(not_begun)}")
        show(summary_text(self.finals), as_json=talk.as_json)
        if talk.as_json:
            print_json({"outcome": outcome, "migrations": self.finals, "not_begun": not_begun})
        return max(self.codes), outcome


def migrate_all(ones: list[One], talk: Talk, progress: Shown, stop: Stop) -> tuple[int, str]:
    """Plans all, then runs one after another; none is begun when one is refused.

    One that does not come out well keeps those from beginning that need what it writes, and no others.
    """
    course = _Course()
    for place, one in enumerate(ones):
        if not any(one.needs(other) for other in ones[:place]):
            _planned(one, course, progress, stop)
    if course.codes:
        told = {final["name"] for final in course.finals}
        return course.end(talk, [one.name for one in ones if one.name not in told])
    begun: list[One] = []
    failed: list[One] = []
    for one in ones:
        if stop.is_set() or any(one.needs(other) for other in failed):
            failed.append(one)
            continue
        begun.append(one)
        try:
            code, final = migrate_one(one, talk, progress, stop)
        except MemferryError as error:
            code, final = tell(error), failure(error)
        if code:
            failed.append(one)
        course.add(one, code, final)
    return course.end(talk, [one.name for one in ones if one not in begun])


def _planned(one: One, course: _Course, progress: Shown, stop: Stop) -> None:
    """Makes the plan of a migration and keeps what is said against it."""
    try:
        with progress() as told:
            migrate.plan_only(one.source, one.target, one.options, progress=told, stop=stop)
    except MemferryError as error:
        say(f"{one.name}:")
        course.add(one, tell(error), failure(error))


def migrate_one(one: One, talk: Talk, progress: Shown, stop: Stop) -> tuple[int, dict[str, Any]]:
    """Runs a migration, or plans it only; exit code and final object."""
    show(f"{one.name}: {one.source.text} -> {one.target.text}", as_json=talk.as_json)
    ends = (one.source, one.target, one.options)
    with progress() as told:
        if one.stop_after == "Plan":
            plan = migrate.plan_only(*ends, progress=told, stop=stop)
        else:
            result = migrate.migrate(*ends, progress=told, stop=stop, command=command())
    if one.stop_after == "Plan":
        show(plan_text(plan), as_json=talk.as_json)
        return 0, {"outcome": "planned", **json.loads(plan.to_json())}
    show(result_text(result, one.target), as_json=talk.as_json)
    return result.exit_code, result.to_json()


def plan_all(ones: Iterable[One], talk: Talk, progress: Shown, stop: Stop) -> tuple[int, str]:
    """Plans all, also after one that is refused."""
    course = _Course()
    for one in ones:
        show(f"{one.name}: {one.source.text} -> {one.target.text}", as_json=talk.as_json)
        try:
            with progress() as told:
                plan = migrate.plan_only(one.source, one.target, one.options, progress=told, stop=stop)
        except MemferryError as error:
            course.add(one, tell(error), failure(error))
            continue
        show(plan_text(plan), as_json=talk.as_json)
        course.add(one, 0, {"outcome": "planned", **json.loads(plan.to_json())})
    return course.end(talk, [])


def verify_all(ones: Iterable[One], talk: Talk, progress: Shown, stop: Stop) -> tuple[int, str]:
    """Verifies all, also after one that is not proven."""
    course = _Course()
    for one in ones:
        show(f"{one.name}: {one.source.text} -> {one.target.text}", as_json=talk.as_json)
        try:
            with progress() as told:
                result = migrate.verify_only(one.source, one.target, one.options, progress=told, stop=stop)
        except MemferryError as error:
            course.add(one, tell(error), failure(error))
            continue
        show(result_text(result, one.target), as_json=talk.as_json)
        course.add(one, result.exit_code, result.to_json())
    return course.end(talk, [])
