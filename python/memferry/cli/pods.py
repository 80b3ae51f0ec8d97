"""What the pod of a worker does around its verb: heartbeat, result, exit code."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import typer

from memferry.cli.common import stop_on_signals
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

__all__ = ["DATA", "REFUSED", "Places", "run_probe", "run_verb"]

DATA: Final = 42
"""Exit code: what was moved is not as it should be; another try changes nothing about this shard."""
REFUSED: Final = 43
"""Exit code: refused; another try changes nothing at all."""
_PASSES: Final = frozenset({"busy", "fenced"})


@dataclass(frozen=True)
class Places:
    """Where a worker finds things.

    Attributes:
        folder: What it is told: migration, secrets, mappings.
        claims: The mounted claims, each under its name.
        state: State directory.
        mounts: Claims that are mounted elsewhere.
    """

    folder: Path
    claims: Path
    state: Path
    mounts: list[Path] | None

    def pod(self) -> Pod:
        """What it is told."""
        return Pod.of(self.folder, self.claims, mounts=self.mounts or ())


def _switch(of: Work, cluster: Cluster) -> dict[str, Any]:
    def commands() -> str | None:
        return cluster.config(f"{of.pod.migration}-control", "command")

    return switch(of, commands, of.beat.answer)


VERBS: Final[dict[str, Callable[[Work, Cluster], dict[str, Any]]]] = {
    "plan": lambda work, _: plan(work),
    "transfer": lambda work, _: transfer(work),
    "verify": lambda work, _: verify(work),
    "retire": lambda work, _: retire(work),
    "switch": _switch,
}


def _code(error: MemferryError) -> int:
    """Exit code of a worker: 42 data, 43 refused, 3 worth another try, 130 stopped by a signal."""
    if error.code == "interrupted":
        return 130
    if isinstance(error, NotProvenError) or error.code == "max-deletes":
        return DATA
    return REFUSED if isinstance(error, RefusedError) and error.code not in _PASSES else 3


def _failed(error: MemferryError) -> dict[str, Any]:
    return {"error": {"code": error.code, "message": str(error), "hint": error.hint}}


def run_verb(verb: str, places: Places) -> None:
    """Runs a verb under its heartbeat, writes its result, and exits."""
    os.environ["MEMFERRY_STATE_DIR"] = str(places.state)
    stop = stop_on_signals()
    cluster: Cluster = Alone()
    pod: Pod | None = None
    try:
        pod = places.pod()
        if pod.in_cluster:
            cluster = Connected(pod.namespace, pod.service_account)
        result = _beating(verb, pod, cluster, stop)
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


def _beating(verb: str, pod: Pod, cluster: Cluster, stop: Stop) -> dict[str, Any]:
    name = f"{pod.migration}-shard-{pod.index}" if verb == "transfer" else f"{pod.migration}-{verb}"
    with Heartbeat(cluster, name, pod, stop) as beat:
        log("started", verb=verb, migration=pod.migration, attempt=pod.attempt, index=pod.index)
        try:
            return VERBS[verb](Work.of(pod, beat, stop), cluster)
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


def run_probe(places: Places) -> None:
    """Looks at one MemoryBackend, writes what was found, and exits."""
    os.environ["MEMFERRY_STATE_DIR"] = str(places.state)
    try:
        pod = places.pod()
        result = probe(pod)
        if pod.in_cluster:
            Connected(pod.namespace, pod.service_account).put_result(pod.result, "probe.json", result)
        else:
            print_json(result)
    except MemferryError as error:
        tell(error)
        raise typer.Exit(_code(error)) from error
