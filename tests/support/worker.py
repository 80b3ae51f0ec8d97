"""Workers as a Job would start them: a folder with a manifest, claims, an environment, a process each."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from typer.testing import CliRunner

from memferry.cli.main import app
from memferry.model import Limits
from memferry.phases import plan as planning
from support.killing import Ended

__all__ = ["Begun", "Job", "backend"]

_RUNNER: Final = Path(__file__).parents[1] / "faults" / "command.py"
_SMALL: Final = {"MEMFERRY_TEST_PAGE": "20", "MEMFERRY_TEST_RANGE": "60"}
_DEADLINE_SECS: Final = 100.0


def backend(name: str, **spec: Any) -> dict[str, Any]:
    """A MemoryBackend."""
    return {"apiVersion": "memferry.dev/v1alpha1", "kind": "MemoryBackend", "metadata": {"name": name}, "spec": spec}


@dataclass
class Begun:
    """A worker at work."""

    process: subprocess.Popen[str]
    errors: Path

    def ended(self) -> Ended:
        """Waits for its end."""
        out, _ = self.process.communicate(timeout=_DEADLINE_SECS)
        return Ended(self.process.returncode, 0.0, out, self.errors.read_text("utf-8"))

    def paused(self) -> None:
        """Waits until it has come to the place where it is to stop."""
        assert self.process.stdout is not None
        assert any(said == "paused\n" for said in self.process.stdout), self.errors.read_text("utf-8")

    def go(self) -> None:
        """Lets it go on."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()


@dataclass
class Job:
    """A migration and how its workers are started.

    Attributes:
        root: Where folder, claims and state are.
        resources: What the manifest says beside the migration.
        spec: Of the migration, beside source and target, which are `a` and `b`.
        attempt: The attempt.
        uid: Uid of the migration.
    """

    root: Path
    resources: list[dict[str, Any]]
    spec: dict[str, Any] = field(default_factory=dict)
    attempt: int = 1
    uid: str = "uid-1"
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def claims(self) -> Path:
        """Where claims are."""
        return self.root / "claims"

    def secret(self, name: str, key: str, value: str) -> None:
        """A projected Secret."""
        path = self.root / "folder" / "secrets" / name / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(value, "utf-8")

    def write(self) -> None:
        folder = self.root / "folder"
        folder.mkdir(parents=True, exist_ok=True)
        ends = {side: {"backendRef": {"name": name}} for side, name in (("source", "a"), ("target", "b"))}
        migration = {
            "apiVersion": "memferry.dev/v1alpha1",
            "kind": "MemoryMigration",
            "metadata": {"name": "m"},
            "spec": {**ends, **self.spec},
        }
        text = "\n---\n".join(json.dumps(one) for one in [*self.resources, migration])
        (folder / "migration.yaml").write_text(text, "utf-8")

    def command(self, verb: str) -> list[str]:
        """The command line of a worker."""
        places = {"--folder": self.root / "folder", "--claims": self.claims, "--state": self.root / "state"}
        return ["worker", verb, *(str(part) for pair in places.items() for part in pair)]

    def variables(self, shard: int = 0, **more: str) -> dict[str, str]:
        """The environment of a worker."""
        usual = {name: value for name, value in os.environ.items() if not name.startswith(("MEMFERRY_", "KUBERNETES_"))}
        told = {
            "MEMFERRY_NAMESPACE": "memory",
            "MEMFERRY_MIGRATION": "m",
            "MEMFERRY_MIGRATION_UID": self.uid,
            "MEMFERRY_ATTEMPT": str(self.attempt),
            "MEMFERRY_POD_NAME": f"m-{shard}",
            "JOB_COMPLETION_INDEX": str(shard),
        }
        return {**usual, **_SMALL, **told, **self.environment, **more}

    @contextmanager
    def begun(self, verb: str, shard: int = 0, **more: str) -> Iterator[Begun]:
        """A worker at work; killed at the end of the block, if it is still there."""
        self.write()
        # Errors go to a file: nobody reads a pipe of a worker that is left to itself.
        with (self.root / f"{verb}-{shard}.err").open("w+") as errors:
            process = subprocess.Popen(
                [sys.executable, _RUNNER, *self.command(verb)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env=self.variables(shard, **more),
            )
            with process:
                try:
                    yield Begun(process, Path(errors.name))
                finally:
                    process.kill()

    def run(self, verb: str, shard: int = 0, **more: str) -> Ended:
        """Runs a worker to its end, in this process."""
        self.write()
        began, before = time.monotonic(), {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(planning, "ROWS_PER_RANGE", 60)
            patch.setattr(planning, "BYTES_PER_RANGE", 15_000)
            patch.setattr(Limits.__init__, "__defaults__", (20, 8 << 20))
            for name, value in self.variables(shard, **more).items():
                patch.setenv(name, value)
            patch.setenv("MEMFERRY_STATE_DIR", "")
            result = CliRunner().invoke(app, self.command(verb))
        for number, handler in before.items():
            signal.signal(number, handler)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Ended(result.exit_code, time.monotonic() - began, result.stdout, result.stderr)

    def done(self, verb: str, shard: int = 0, **more: str) -> Any:
        """Runs a worker that comes to a good end; its result."""
        found = self.run(verb, shard, **more)
        assert found.code == 0, found.err + found.out
        return found.final()
