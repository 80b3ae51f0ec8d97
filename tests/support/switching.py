"""The worker of a switch in this process, command by command; as a script: in a process that may be killed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from memferry.application import Store, open_parsed
from memferry.phases.plan import Stop
from memferry.urls import StoreUrl
from memferry.worker.cluster import Alone
from memferry.worker.heartbeat import Heartbeat
from memferry.worker.pod import Pod
from memferry.worker.switch import Command, Switch
from memferry.worker.verbs import Work

__all__ = ["Driver", "driving"]


class Driver:
    """Commands a switch worker.

    Attributes:
        work: What it works with.
    """

    def __init__(self, folder: Path, claims: Path, environment: dict[str, str]) -> None:
        pod, stop = Pod.of(folder, claims, environment), Stop()
        self.work = Work.of(pod, Heartbeat(Alone(), "m-switch", pod, stop), stop)
        self.switch = Switch(self.work)
        self._sequence = 0

    @property
    def source(self) -> StoreUrl:
        """Home."""
        return self.work.ends.source

    @property
    def target(self) -> StoreUrl:
        """Where the application goes."""
        return self.work.ends.target

    def do(self, verb: str, **rest: Any) -> dict[str, Any]:
        """A command; its answer, whatever it is."""
        self._sequence += 1
        return self.switch.do(Command(self._sequence, verb, rest))

    def done(self, verb: str, **rest: Any) -> dict[str, Any]:
        """A command that comes to a good end; its answer."""
        told = self.do(verb, **rest)
        assert told["outcome"] == "Done", told
        return told

    def failed(self, verb: str, **rest: Any) -> str:
        """A command that does not; the code of its error."""
        told = self.do(verb, **rest)
        assert told["outcome"] == "Failed", told
        return str(told["error"]["code"])

    def flip(self) -> None:
        """The switch: nobody writes, a last pass, the other side."""
        self.done("Journal", revision=2, mode="Frozen", active="a", frozenUntil="2030-01-01T00:00:00Z", lockedBy="u")
        self.done("FinalPass", direction="Forward")
        self.done("Journal", revision=3, mode="Serving", active="b", frozenUntil=None, lockedBy="u")


@contextmanager
def driving(job: Any) -> Iterator[Driver]:
    """A switch worker of a job."""
    driver = Driver(job.root / "folder", job.claims, job.variables())
    try:
        yield driver
    finally:
        driver.switch.close()


@contextmanager
def application(url: StoreUrl) -> Iterator[Store]:
    """A store as the application uses it."""
    with open_parsed(url, read_only=False) as store:
        yield store


if __name__ == "__main__":
    place = json.loads(sys.argv[1])
    one = Driver(Path(place["folder"]), Path(place["claims"]), place["environment"])
    for command in place["commands"]:
        sys.stdout.write(json.dumps(one.done(command.pop("verb"), **command)) + "\n")
    one.switch.close()
