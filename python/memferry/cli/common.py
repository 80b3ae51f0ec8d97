"""What the verbs share: the application, options, credentials, signals, errors."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from memferry.cli.console import fail, say
from memferry.errors import MemferryError, RefusedError, StoreError
from memferry.library import choose
from memferry.phases.plan import Options, Stop
from memferry.retry import give_up_on
from memferry.urls import Secrets, StoreUrl, hybrid_url, parse_url, secrets_from_environment

_SAME_SIGNAL_SECS: Final = 1.0
"""A supervisor may send one signal twice, to the process and to its group."""

app = typer.Typer(
    name="memferry",
    help="Moves an agent's memory from any backend to any other and proves that nothing was lost.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
quarantine_app = typer.Typer(help="What could not be moved, whole.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(quarantine_app, name="quarantine")

Source = Annotated[str, typer.Argument(metavar="SRC", help="store URL, as in agents.db or jsonl:memory.jsonl")]
Target = Annotated[str, typer.Argument(metavar="DST", help="store URL")]
Store = Annotated[str, typer.Argument(metavar="STORE", help="store URL")]
Graph = Annotated[list[str] | None, typer.Option("--graph", help="records of a `hybrid:` store, SRC's first")]
Vectors = Annotated[list[str] | None, typer.Option("--vectors", help="vectors of a `hybrid:` store, SRC's first")]
Migration = Annotated[str | None, typer.Option(help="id, where the target knows several")]
Json = Annotated[bool, typer.Option("--json", help="one final object on stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="no progress")]
Accept = Annotated[list[str] | None, typer.Option("--accept", help="drop what this gap names; repeatable")]
OnExisting = Annotated[str, typer.Option(help="records of others with the same id: refuse, keep or overwrite")]
OnConflict = Annotated[str, typer.Option(help="records changed in the target since we wrote them: keep or source")]
SourceKeyEnv = Annotated[str, typer.Option(help="variable that holds the API key of SRC")]
TargetKeyEnv = Annotated[str, typer.Option(help="variable that holds the API key of DST")]
SourcePasswordEnv = Annotated[str, typer.Option(help="variable that holds the password of SRC")]
TargetPasswordEnv = Annotated[str, typer.Option(help="variable that holds the password of DST")]
Where = Annotated[str | None, typer.Option(metavar="EXPR", help="move only records for which this CEL is true")]
Map = Annotated[
    Path | None, typer.Option("--map", metavar="FILE", help="move, set, drop fields and rename scopes by a table")
]
Dedup = Annotated[str, typer.Option(help="records that say the same: report, exact (merge equal ones) or off")]
Sample = Annotated[int | None, typer.Option(metavar="N", help="move only N records, spread over all")]
Limit = Annotated[int | None, typer.Option(metavar="N", help="move only the first N records")]
Parallelism = Annotated[int, typer.Option(min=1, max=64, help="ranges at a time")]
Parity = Annotated[int, typer.Option(min=0, metavar="K", help="compare K searches on both ends, after the proof")]
MinRecall = Annotated[
    float | None, typer.Option(metavar="R", help="not proven if the target finds a smaller share; with --parity")
]


def guard(work: Callable[[], int], *, as_json: bool) -> None:
    """Runs a verb, tells its error once and exits."""
    try:
        code = work()
    except MemferryError as error:
        code = fail(error, as_json=as_json)
    except OSError as error:
        code = fail(StoreError("io", str(error)), as_json=as_json)
    raise typer.Exit(code)


def stop_on_signals() -> Stop:
    """Makes SIGINT and SIGTERM end the run between two pages."""
    stop = Stop()
    asked = 0.0

    def ask(number: int, _: object) -> None:
        nonlocal asked
        if not stop.is_set():
            asked = time.monotonic()
            say(f"{signal.Signals(number).name}: finishing the page at hand; again to end at once")
            stop.set()
        elif time.monotonic() - asked > _SAME_SIGNAL_SECS:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGINT, ask)
    signal.signal(signal.SIGTERM, ask)
    give_up_on(stop)
    return stop


class Halves:
    """What `--graph` and `--vectors` name: one of each for every `hybrid:` store, in the order of the stores."""

    def __init__(self, graph: list[str] | None = None, vectors: list[str] | None = None) -> None:
        self._left = {"--graph": list(graph or ()), "--vectors": list(vectors or ())}

    def complete(self, text: str, secrets: Secrets) -> StoreUrl:
        """The store behind `text`, with its halves where it is `hybrid:`."""
        url = parse_url(text)
        if url.backend != "hybrid":
            return replace(url, secrets=secrets)
        graph, vectors = (self._next(text, option, secrets) for option in ("--graph", "--vectors"))
        return hybrid_url(graph, vectors, url.identity)

    def _next(self, text: str, option: str, secrets: Secrets) -> StoreUrl:
        if not self._left[option]:
            raise RefusedError("invalid", f"`{text}` needs {option} URL")
        return replace(parse_url(self._left[option].pop(0)), secrets=secrets)

    def done(self) -> None:
        """Refuses halves that no store asked for."""
        for option, left in self._left.items():
            if left:
                raise RefusedError("invalid", f"{option}: there is no `hybrid:` store for `{parse_url(left[0]).text}`")


def store_url(
    side: str,
    text: str,
    key_env: str | None = None,
    password_env: str | None = None,
    halves: Halves | None = None,
) -> StoreUrl:
    """Reads a URL and fetches its credentials from the environment."""
    return (halves or Halves()).complete(text, secrets_from_environment(side, key_env, password_env))


def options(**chosen: Any) -> Options:
    """Checks what the user chose."""
    return choose(accept=chosen.pop("accept", None) or (), **chosen)
