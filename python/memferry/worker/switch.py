"""The worker of the switch: keeps both ends open, runs passes, and does what the operator commands, one at a time.

A command has a sequence number. What was answered is not done again; every verb can be done twice all the same, because
this worker may be killed before it has answered.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any, Final

from memferry.errors import MemferryError, NotProvenError, RefusedError, StoreError
from memferry.phases import stages
from memferry.phases.home import Home
from memferry.phases.journal import Entry, Kept, newest, read_journal, write_journal
from memferry.phases.parity import Watch
from memferry.phases.passes import Passed, Passes, Settled
from memferry.phases.stages import Run
from memferry.stores import open_source
from memferry.worker.pod import log
from memferry.worker.verbs import Work

__all__ = ["Switch", "switch"]

_FROZEN_POLL_SECS: Final = 0.1
_POLL_SECS: Final = 2.0
_REST_SECS: Final = 60.0
"""Longest rest between two passes."""
_ENDS: Final = frozenset({"fenced", "interrupted"})
"""Errors that end this worker instead of being an answer."""


@dataclass(frozen=True)
class Command:
    """What is asked for.

    Attributes:
        sequence: Its number.
        verb: What.
        rest: Its arguments.
    """

    sequence: int
    verb: str
    rest: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, text: str | None) -> Command | None:
        """Reads a command; None where there is none."""
        if not text:
            return None
        try:
            value = json.loads(text)
            sequence, verb = value.pop("sequence"), value.pop("verb")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RefusedError("invalid", f"the command is none: {text[:80]!r}") from error
        if isinstance(sequence, bool) or not isinstance(sequence, int) or not isinstance(verb, str):
            raise RefusedError("invalid", f"the command is none: {text[:80]!r}")
        return cls(sequence, verb, value)


class _HalfWrittenError(MemferryError):
    """A journal that could not be written into both stores.

    Attributes:
        kept: Where it is.
    """

    def __init__(self, error: MemferryError, kept: dict[str, Kept]) -> None:
        super().__init__(error.code, str(error), hint=error.hint)
        self.kept = kept


class Switch:
    """Does commands.

    Args:
        work: The migration.
    """

    def __init__(self, work: Work) -> None:
        self._work = work
        self._max_deletes = work.migration.spec.transfer.max_deletes
        self._number = 0
        self._watch: Watch | None = None
        self._ends: tuple[str, ExitStack, Passes | Home] | None = None
        self._verbs: dict[str, Callable[[Command], dict[str, Any]]] = {
            "Pass": self._pass,
            "FinalPass": self._final,
            "Journal": self._journal,
            "ReadJournal": lambda _: self._newest(),
            "Probe": self._probe,
        }

    def do(self, command: Command) -> dict[str, Any]:
        """Does a command; its answer.

        Raises:
            MemferryError: `fenced` and `interrupted`, which end this worker.
        """
        told = {"sequence": command.sequence, "verb": command.verb}
        try:
            verb = self._verbs.get(command.verb)
            if verb is None:
                raise RefusedError("invalid", f"got `{command.verb}`, allowed: {', '.join([*self._verbs, 'Stop'])}")
            return {**told, "outcome": "Done", **verb(command)}
        except MemferryError as error:
            # What was open may be what failed.
            self.close()
            if error.code in _ENDS:
                raise
            kept = {"kept": error.kept} if isinstance(error, _HalfWrittenError) else {}
            return {**told, "outcome": "Failed", "error": {"code": error.code, "message": str(error)}, **kept}

    def close(self) -> None:
        """Gives the locks back, and ends all connections."""
        if self._ends is not None:
            self._ends[1].close()
            self._ends = None

    # --- ends

    def _passes(self, direction: object) -> Passes | Home:
        """Both ends, open in a direction."""
        if direction not in {"Forward", "Back"}:
            raise RefusedError("invalid", f"direction {direction!r}, allowed: Forward, Back")
        if self._ends is not None and self._ends[0] == direction:
            return self._ends[2]
        self.close()
        with ExitStack() as opening:
            made = self._forward(opening) if direction == "Forward" else self._back(opening)
            self._ends = (str(direction), opening.pop_all(), made)
        return made

    def _forward(self, opening: ExitStack) -> Passes:
        self._refuse_wrong_side("Forward")
        run = self._work.opened(opening, self._work.ends.options)
        opening.enter_context(stages.locked(run))
        document = run.read()
        if document is None or document["state"] == "rolled_back":
            raise RefusedError("no-migration", f"the target knows no migration {run.ledger.migration}")
        return Passes(run, self._max_deletes)

    def _back(self, opening: ExitStack) -> Home:
        self._refuse_wrong_side("Back")
        work = self._work
        there = work.opened(opening, work.ends.options)
        back: Run = opening.enter_context(
            stages.opened(
                work.ends.target,
                work.ends.source,
                replace(work.ends.options, accept=()),
                work.pod.claim(),
                progress=work.beat.progress,
                stop=work.stop,
            )
        )
        opening.enter_context(stages.locked(back))
        return Home(there, back, self._max_deletes)

    # --- verbs

    def _pass(self, command: Command) -> dict[str, Any]:
        passes, direction = self._passes(command.rest.get("direction", "Forward")), command.rest.get("direction")
        self._number += 1
        done, _ = passes.forward(self._number) if isinstance(passes, Passes) else passes.back(self._number)
        return {"pass": self._number, "direction": direction or "Forward", **_told(done)}

    def _final(self, command: Command) -> dict[str, Any]:
        passes = self._passes(command.rest.get("direction", "Forward"))
        self._number += 2
        found: Settled = passes.final(self._number - 1)
        if found.missing or found.different:
            raise NotProvenError("not-proven", f"{found.missing} missing, {found.different} different")
        return {
            "direction": command.rest.get("direction", "Forward"),
            "changed": found.changed,
            "verified": found.verified,
            "missing": found.missing,
            "different": found.different,
        }

    @property
    def _binding(self) -> str:
        ref = self._work.migration.spec.cutover.binding_ref
        if ref is None:
            raise RefusedError("manifest", "the migration names no binding: spec.cutover.bindingRef")
        return ref.name

    @property
    def _sides(self) -> dict[str, str]:
        """Names of the backends of both sides."""
        spec = self._work.migration.spec
        return {"source": spec.source.backend_ref.name, "target": spec.target.backend_ref.name}

    def _journal(self, command: Command) -> dict[str, Any]:
        try:
            entry = Entry.of(command.rest)
        except (KeyError, TypeError, ValueError) as error:
            raise RefusedError("invalid", f"no entry for a journal: {error}") from error
        if entry.active not in self._sides.values():
            raise RefusedError("invalid", f"got `{entry.active}`, allowed: {', '.join(self._sides.values())}")
        kept: dict[str, Kept] = {}
        try:
            self._write(entry, kept)
        except MemferryError as error:
            raise _HalfWrittenError(error, kept) from error
        if self._ends is not None and (entry.active == self._sides["target"]) == (self._ends[0] == "Forward"):
            # What is open is the direction that is not allowed any more.
            self.close()
        return {**self._newest(), "kept": kept}

    def _write(self, entry: Entry, kept: dict[str, Kept]) -> None:
        """Both journals, that of the active side first: whoever reads both goes by the newer one."""
        ends = {"source": self._work.ends.source, "target": self._work.ends.target}
        for side in sorted(ends, key=lambda side: self._sides[side] != entry.active):
            kept[side] = write_journal(ends[side], self._binding, entry)

    def _newest(self) -> dict[str, Any]:
        ends = self._work.ends
        found = newest([read_journal(url, self._binding) for url in (ends.source, ends.target)])
        return {"journal": None if found is None else found.to_json()}

    def _refuse_wrong_side(self, direction: str) -> None:
        """A pass writes into the passive side only: into the other one it would write over the application."""
        if self._work.migration.spec.cutover.binding_ref is None and direction == "Forward":
            return
        found = self._newest()["journal"]
        expected = self._sides["source" if direction == "Forward" else "target"]
        # Where no journal is, nothing was switched; one that names a third store says that somebody else has.
        if (self._sides["source"] if found is None else found["active"]) != expected:
            active = "no side" if found is None else f"`{found['active']}`, revision {found['revision']},"
            raise RefusedError("journal", f"a pass {direction} is not possible: {active} is active")

    def _probe(self, command: Command) -> dict[str, Any]:
        ends = self._work.ends
        told: dict[str, Any] = {}
        for side, url in (("source", ends.source), ("target", ends.target)):
            try:
                source = open_source(url)
                try:
                    rows = [stream.rows for stream in source.streams()]
                finally:
                    source.close()
                told[side] = {"reachable": True, "rows": None if None in rows else sum(row or 0 for row in rows)}
            except MemferryError as error:
                told[side] = {"reachable": False, "error": {"code": error.code, "message": str(error)}}
        if command.rest.get("parity"):
            told["parity"] = self._parity()
        if command.rest.get("stray") and all(told[side]["reachable"] for side in ("source", "target")):
            told["stray"] = self._stray()
        return told

    def _stray(self) -> dict[str, Any]:
        """What was written at home; where that cannot be said, what else was found is told all the same."""
        try:
            home = self._passes("Back")
            stray = home.stray() if isinstance(home, Home) else []
        except MemferryError as error:
            if error.code in _ENDS:
                raise
            # What was open may be what failed.
            self.close()
            return {"error": {"code": error.code, "message": str(error)}}
        return {"records": len(stray), "ids": [list(one) for one in stray[:100]]}

    def _parity(self) -> dict[str, Any]:
        """Whether the target finds what the source finds; where that cannot be said, it says nothing against it."""
        ends = self._work.ends
        if self._watch is None:
            self._watch = Watch(ends.source, ends.target, ends.options)
        try:
            return self._watch.look(self._work.stop)
        except MemferryError as error:
            if error.code in _ENDS:
                raise
            return {"reached": None, "error": {"code": error.code, "message": str(error)}}


def _told(done: Passed) -> dict[str, Any]:
    return {
        "changed": done.changed,
        "deleted": done.deleted,
        "conflicts": done.conflicts,
        "conflictIds": [list(one) for one in done.listed],
        "passSecs": round(done.pass_secs, 3),
        "verifySecs": round(done.verify_secs, 3),
        "complete": done.complete,
    }


def switch(work: Work, commands: Callable[[], str | None], answer: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
    """Does commands until one says `Stop`.

    Args:
        work: The migration.
        commands: Gives the command that stands there now.
        answer: Is given what came of it.
    """
    doing, answered, frozen, due = Switch(work), 0, False, 0.0
    try:
        while True:
            work.stop.check()
            command = _next(commands)
            new = command is not None and command.sequence > answered
            if command is None or not (new or (command.verb == "Pass" and time.monotonic() >= due)):
                work.stop.wait(_FROZEN_POLL_SECS if frozen else _POLL_SECS)
                continue
            if command.verb == "Stop":
                answer({"sequence": command.sequence, "verb": "Stop", "outcome": "Done"})
                return {"stopped": True}
            began = time.monotonic()
            told = doing.do(command)
            log("command", **{name: told[name] for name in ("sequence", "verb", "outcome")})
            answer(told)
            answered = command.sequence
            if command.verb == "Journal" and told["outcome"] == "Done":
                frozen = command.rest.get("mode") == "Frozen"
            if command.verb == "Pass" and not told.get("changed"):
                # The stores are left alone for as long as a pass takes that finds nothing.
                due = time.monotonic() + max(_POLL_SECS, min(_REST_SECS, time.monotonic() - began))
    finally:
        doing.close()


def _next(commands: Callable[[], str | None]) -> Command | None:
    try:
        return Command.read(commands())
    except MemferryError as error:
        if isinstance(error, StoreError) and error.code in _ENDS:
            raise
        # The operator is asked again; what it says next may be well.
        log("no-command", code=error.code, message=str(error))
        return None
