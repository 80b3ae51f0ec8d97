"""`memferry worker`: what the pods of a MemoryMigration run. People need none of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from memferry.cli.common import app, stop_on_signals
from memferry.cli.console import print_json, tell
from memferry.errors import MemferryError, NotProvenError, RefusedError, StoreError
from memferry.phases.plan import Stop
from memferry.worker.cluster import Alone, Cluster, Connected
from memferry.worker.heartbeat import Heartbeat
from memferry.worker.pod import Pod, log
from memferry.worker.probe import probe
from memferry.worker.retire import retire
from memferry.worker.switch import switch
from memferry.worker.verbs import Work, plan, transfer, verify

worker_app = typer.Typer(help="What the pods of a MemoryMigration run.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(worker_app, name="worker", hidden=True)

DATA: Final = 42
"""Exit code: what was moved is not as it should be; another try changes nothing about this shard."""
REFUSED: Final = 43
"""Exit code: refused; another try changes nothing at all."""
VERBS: Final[dict[str, Callable[[Work], dict[str, Any]]]] = {
    "plan": plan,
    "transfer": transfer,
    "verify": verify,
    "retire": retire,
}
_EXAMPLE: Final = "--folder FOLDER --claims FOLDER --state FOLDER"
_PASSES: Final = frozenset({"busy", "fenced"})

Folder = Annotated[Path, typer.Option(help="migration.yaml, secrets/NAME/KEY, config/NAME/KEY")]
Claims = Annotated[Path, typer.Option(help="each claim under its name")]
Mounts = Annotated[
    list[Path] | None, typer.Option("--claim", help="a claim that is mounted elsewhere, in a folder of its name")
]
State = Annotated[Path, typer.Option(help="state directory")]


def _code(error: MemferryError) -> int:
    """Exit code of a worker: 42 data, 43 refused, 3 worth another try, 130 stopped by a signal."""
    if error.code == "interrupted":
        return 130
    if isinstance(error, NotProvenError) or error.code == "max-deletes":
        return DATA
    return REFUSED if isinstance(error, RefusedError) and error.code not in _PASSES else 3


def _failed(error: MemferryError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": str(error), "hint": error.hint}}


@dataclass(frozen=True)
class _Places:
    """Where a worker finds things."""

    folder: Path
    claims: Path
    state: Path
    mounts: list[Path] | None

    def pod(self) -> Pod:
        """What it is told."""
        return Pod.of(self.folder, self.claims, mounts=self.mounts or ())


Verb = Callable[[Work, Cluster], dict[str, Any]]


def _run(verb: str, places: _Places, work: Verb) -> None:
    """Runs a verb under its heartbeat, writes its result, and exits."""
    os.environ["MEMFERRY_STATE_DIR"] = str(places.state)
    stop = stop_on_signals()
    cluster: Cluster = Alone()
    pod: Pod | None = None
    try:
        pod = places.pod()
        if pod.in_cluster:
            cluster = Connected(pod.namespace, pod.service_account)
        result = _beating(verb, pod, cluster, stop, work)
        code = DATA if "error" in result else 0
    except MemferryError as error:
        result, code = _failed(error), _code(error)
        _end(verb, pod, cluster, result, code)
        tell(error)
        raise typer.Exit(code) from error
    except OSError as error:
        failed = StoreError("io", str(error))
        tell(failed)
        raise typer.Exit(3) from error
    _end(verb, pod, cluster, result, code)
    if code:
        tell(NotProvenError("not-proven", result["error"]["message"]))
    raise typer.Exit(code)


def _beating(verb: str, pod: Pod, cluster: Cluster, stop: Stop, work: Verb) -> dict[str, Any]:
    name = f"{pod.migration}-shard-{pod.index}" if verb == "transfer" else f"{pod.migration}-{verb}"
    with Heartbeat(cluster, name, pod, stop) as beat:
        log("started", verb=verb, migration=pod.migration, attempt=pod.attempt, index=pod.index)
        try:
            return work(Work.of(pod, beat, stop), cluster)
        except MemferryError as error:
            if beat.lost is not None and error.code == "interrupted":
                raise StoreError("fenced", beat.lost) from error
            raise


def _end(verb: str, pod: Pod | None, cluster: Cluster, result: dict[str, Any], code: int) -> None:
    """Keeps a result that another try would not change."""
    failed = result.get("error")
    log("finished", verb=verb, exit_code=code, error=failed["code"] if failed else None)
    if pod is None or not pod.in_cluster:
        print_json(result)
    elif code in {0, DATA, REFUSED} and verb in {"plan", "verify", "retire"}:
        try:
            cluster.put_result(f"{pod.migration}-result", f"{verb}.json", result)
        except MemferryError as error:
            tell(error)
            raise typer.Exit(3) from error


def _verb(name: str, doc: str) -> None:
    def command(folder: Folder, claims: Claims, state: State, claim: Mounts = None) -> None:
        _run(name, _Places(folder, claims, state, claim), lambda work, _: VERBS[name](work))

    command.__doc__ = f"{doc}\n\n    \b\n    Example:\n      memferry worker {name} {_EXAMPLE}"
    worker_app.command(name)(command)


_verb("plan", "Scans both ends, refuses what cannot be, writes plan and shards, prepares the target.")
_verb("transfer", "Copies the shard of JOB_COMPLETION_INDEX.")
_verb("verify", "Finishes the target and compares every record.")
_verb("retire", "Deletes at the source what was moved, after one more comparison.")


@worker_app.command("switch")
def switch_command(folder: Folder, claims: Claims, state: State, claim: Mounts = None) -> None:
    """Runs passes and does what the operator commands, until it says Stop.

    \b
    Example:
      memferry worker switch --folder FOLDER --claims FOLDER --state FOLDER
    """

    def work(of: Work, cluster: Cluster) -> dict[str, Any]:
        def commands() -> str | None:
            return cluster.config(f"{of.pod.migration}-control", "command")

        return switch(of, commands, of.beat.answer)

    _run("switch", _Places(folder, claims, state, claim), work)


@worker_app.command("probe")
def probe_command(folder: Folder, claims: Claims, state: State, claim: Mounts = None) -> None:
    """Looks at one MemoryBackend.

    \b
    Example:
      memferry worker probe --folder FOLDER --claims FOLDER --state FOLDER
    """
    os.environ["MEMFERRY_STATE_DIR"] = str(state)
    try:
        pod = _Places(folder, claims, state, claim).pod()
        result = probe(pod)
        if pod.in_cluster:
            Connected(pod.namespace, pod.service_account).put_result(pod.result, "probe.json", result)
        else:
            print_json(result)
    except MemferryError as error:
        tell(error)
        raise typer.Exit(_code(error)) from error
