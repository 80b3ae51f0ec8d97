"""What the verbs share: the application, options, credentials, signals, errors."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final, cast

import typer

from memferry.backends import collections_of
from memferry.cli.console import fail, failure, say
from memferry.cli.progress import EVENTS_FORMAT, events_to, show_progress
from memferry.endpoint import EndpointSettings, key_from_file
from memferry.errors import MemferryError, RefusedError, StoreError
from memferry.library import choose
from memferry.phases.embedding import Embedding, EmbeddingText
from memferry.phases.plan import Options, Progress, Stop
from memferry.phases.transform import Decisions, load_mapping
from memferry.phases.transform import Dedup as DedupWord
from memferry.retry import give_up_on
from memferry.several import pairs
from memferry.urls import (
    Secrets,
    StoreUrl,
    hybrid_url,
    parse_url,
    same_store,
    secrets_from_environment,
    without_secrets,
)

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


def _show_version(asked: bool) -> None:  # noqa: FBT001 - what typer calls
    if asked:
        typer.echo(f"memferry {version('memferry')}")
        raise typer.Exit


@app.callback()
def _main(
    show_version: Annotated[  # noqa: FBT002 - an option, which acts when it is read
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


quarantine_app = typer.Typer(help="What could not be moved, whole.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(quarantine_app, name="quarantine")

Store = Annotated[str, typer.Argument(metavar="STORE", help="store URL")]
Graph = Annotated[list[str] | None, typer.Option("--graph", help="records of a `hybrid:` store, SRC's first")]
Vectors = Annotated[list[str] | None, typer.Option("--vectors", help="vectors of a `hybrid:` store, SRC's first")]
Migration = Annotated[str | None, typer.Option(help="id, where the target knows several")]
Json = Annotated[bool, typer.Option("--json", help="one final object on stdout")]
Parallelism = Annotated[int, typer.Option(min=1, max=64, help="ranges at a time")]


@dataclass(frozen=True)
class Ends:
    """Two stores and where their credentials are."""

    source: Annotated[str, typer.Argument(metavar="SRC", help="store URL, as in agents.db or jsonl:memory.jsonl")]
    target: Annotated[str, typer.Argument(metavar="DST", help="store URL")]
    source_api_key_env: Annotated[str, typer.Option(help="variable that holds the API key of SRC")] = (
        "MEMFERRY_SOURCE_API_KEY"
    )
    source_password_env: Annotated[str, typer.Option(help="variable that holds the password of SRC")] = (
        "MEMFERRY_SOURCE_PASSWORD"  # noqa: S105 - the name of a variable
    )
    target_api_key_env: Annotated[str, typer.Option(help="variable that holds the API key of DST")] = (
        "MEMFERRY_TARGET_API_KEY"
    )
    target_password_env: Annotated[str, typer.Option(help="variable that holds the password of DST")] = (
        "MEMFERRY_TARGET_PASSWORD"  # noqa: S105 - the name of a variable
    )

    graph: Graph = None
    vectors: Vectors = None

    def urls(self) -> tuple[StoreUrl, StoreUrl]:
        """Both URLs with their credentials."""
        halves = Halves(self.graph, self.vectors)
        urls = (
            store_url("SOURCE", self.source, self.source_api_key_env, self.source_password_env, halves),
            store_url("TARGET", self.target, self.target_api_key_env, self.target_password_env, halves),
        )
        halves.done()
        return urls

    def each(self) -> list[tuple[str, tuple[StoreUrl, StoreUrl]]] | None:
        """Name and both URLs of each collection; None where the source is one store."""
        for text in (self.source, self.target):
            parse_url(text)  # What is refused below is repeated, and a secret in it would be too.
        secrets = secrets_from_environment("SOURCE", self.source_api_key_env, self.source_password_env)
        named = pairs(self.source, self.target, lambda url: collections_of(replace(url, secrets=secrets)))
        if named is None:
            return None
        return [(name, replace(self, source=source, target=target).urls()) for name, source, target in named]


@dataclass(frozen=True)
class Choices:
    """What a plan depends on."""

    accept: Annotated[list[str] | None, typer.Option("--accept", help="drop what this gap names; repeatable")] = None
    on_existing: Annotated[str, typer.Option(help="records of others with the same id: refuse, keep or overwrite")] = (
        "refuse"
    )
    where: Annotated[str | None, typer.Option(metavar="EXPR", help="move only records for which this CEL is true")] = (
        None
    )
    mapping: Annotated[
        Path | None, typer.Option("--map", metavar="FILE", help="move, set, drop fields and rename scopes by a table")
    ] = None
    dedup: Annotated[str, typer.Option(help="records that say the same: report, exact (merge equal ones) or off")] = (
        "report"
    )
    sample: Annotated[int | None, typer.Option(metavar="N", help="move only N records, spread over all")] = None
    limit: Annotated[int | None, typer.Option(metavar="N", help="move only the first N records")] = None

    def decisions(self) -> Decisions:
        """Which records were chosen, and how they are mapped."""
        asked = Decisions(
            where=self.where,
            mapping=None if self.mapping is None else load_mapping(self.mapping),
            dedup=cast("DedupWord", self.dedup),  # `check` refuses others
            sample=self.sample,
            limit=self.limit,
        )
        asked.check()
        return asked


@dataclass(frozen=True)
class Embeds:
    """Another model for the embeddings."""

    embed_url: Annotated[
        str | None, typer.Option(metavar="URL", help="replace vectors by those of this OpenAI-compatible endpoint")
    ] = None
    embed_model: Annotated[str | None, typer.Option(metavar="MODEL", help="model to ask for, and to record")] = None
    embed_dimensions: Annotated[int | None, typer.Option(metavar="N", help="ask for N; else what it gives")] = None
    embed_vector: Annotated[str, typer.Option(metavar="NAME", help="vector to replace; empty: the unnamed one")] = ""
    embed_text: Annotated[str, typer.Option(help="content-or-name, content or name")] = "content-or-name"
    embed_kinds: Annotated[
        list[str] | None, typer.Option(metavar="KIND", help="also records of it that have no vector; repeatable")
    ] = None
    embed_keep_old: Annotated[str | None, typer.Option(metavar="NAME", help="keep the old vector under this name")] = (
        None
    )
    embed_key_env: Annotated[str, typer.Option(help="variable that holds the endpoint's key")] = (
        "MEMFERRY_EMBEDDING_API_KEY"
    )
    embed_key_file: Annotated[Path | None, typer.Option(metavar="FILE", help="file that holds it")] = None
    embed_batch: Annotated[int, typer.Option(min=1, max=2048, help="texts a request")] = 64
    embed_parallelism: Annotated[int, typer.Option(min=1, max=64, help="requests at a time")] = 4

    def embedding(self) -> Embedding | None:
        """What was asked for, None for nothing."""
        if self.embed_url is None and self.embed_model is None:
            return None
        if self.embed_url is None or self.embed_model is None:
            raise RefusedError("invalid", "--embed-url and --embed-model go together")
        return Embedding(
            self.embed_url,
            self.embed_model,
            self.embed_dimensions,
            self.embed_vector,
            cast("EmbeddingText", self.embed_text),  # `check` refuses others
            tuple(self.embed_kinds or ()),
            self.embed_keep_old,
        )

    def endpoint(self) -> EndpointSettings:
        """How the endpoint is asked."""
        key = os.environ.get(self.embed_key_env) if self.embed_key_file is None else key_from_file(self.embed_key_file)
        return EndpointSettings(key, self.embed_batch, parallelism=self.embed_parallelism)


@dataclass(frozen=True)
class Searches:
    """Whether both ends find the same."""

    parity: Annotated[
        int, typer.Option(min=0, metavar="K", help="compare K searches on both ends, after the proof")
    ] = 0
    min_recall: Annotated[
        float | None, typer.Option(metavar="R", help="not proven if the target finds a smaller share; with --parity")
    ] = None


@dataclass(frozen=True)
class Talk:
    """What is told, and where."""

    as_json: Json = False
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="no progress")] = False
    events: Annotated[
        str | None, typer.Option(metavar="FILE", help="append progress as JSON lines; `-`: to stderr, and nothing else")
    ] = None

    def run(
        self, work: Callable[[Shown], tuple[int, str | None]], stores: Callable[[], Iterable[StoreUrl]] = tuple
    ) -> None:
        """Runs a verb, tells its error once, its course and end as events where they are wanted, and exits.

        Args:
            work: Is handed what shows progress; gives exit code and outcome.
            stores: Gives the stores that are named; events are appended to none of them.
        """

        def told() -> tuple[int, str | None]:
            if self.events not in {None, "-"}:
                named: Iterable[StoreUrl] = ()
                with suppress(MemferryError):  # It is told once there is a place for events.
                    named = stores()
                apart("--events", Path(str(self.events)), named)
            with events_to(self.events) as events:
                if events is None:
                    return work(lambda: show_progress(quiet=self.quiet))
                events.emit("started", format=EVENTS_FORMAT, memferry=version("memferry"), command=told_command())
                code, end = _guarded(
                    lambda: work(lambda: show_progress(quiet=self.quiet, events=events)), as_json=self.as_json
                )
                events.emit("finished", exit_code=code, **end)
                return code, end["outcome"]

        raise typer.Exit(_guarded(told, as_json=self.as_json)[0])


Shown = Callable[[], AbstractContextManager[Progress]]
"""Shows progress while a block runs."""


def command() -> str:
    """The command line that is being run; no secret is in it once its URLs have been accepted."""
    return shlex.join(["memferry", *sys.argv[1:]])


def told_command() -> str:
    """The command line as it may be told before its URLs have been accepted."""
    return shlex.join(["memferry", *map(without_secrets, sys.argv[1:])])


def apart(option: str, path: Path, stores: Iterable[StoreUrl]) -> None:
    """Refuses a file to be written that is one of the stores.

    Raises:
        RefusedError: `invalid`.
    """
    file = StoreUrl(str(path), "jsonl", path=path)
    for store in stores:
        if same_store(file, store):
            raise RefusedError(
                "invalid", f"{option} {path}: that is the store `{store.text}`, it would be written over"
            )


def guard(work: Callable[[], int], *, as_json: bool) -> None:
    """Runs a verb, tells its error once and exits."""
    raise typer.Exit(_guarded(lambda: (work(), None), as_json=as_json)[0])


def _guarded(work: Callable[[], tuple[int, str | None]], *, as_json: bool) -> tuple[int, dict[str, Any]]:
    """Exit code of a verb, its outcome and its error."""
    try:
        code, outcome = work()
    except MemferryError as error:
        failed: MemferryError = error
    except OSError as error:
        named = error.errno == errno.ENAMETOOLONG
        failed = RefusedError("invalid", str(error)) if named else StoreError("io", str(error))
    except KeyboardInterrupt:  # before the verb has its own way to end
        failed = MemferryError("interrupted", "interrupted", hint="the same command begins again")
    except UnicodeEncodeError as error:
        failed = RefusedError("invalid", f"an option is not UTF-8: {error}")
    else:
        return code, {"outcome": outcome}
    return fail(failed, as_json=as_json), {name: failure(failed)[name] for name in ("outcome", "error")}


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


def options(choices: Choices, embeds: Embeds | None = None, **chosen: Any) -> Options:
    """Checks what the user chose."""
    embeds = embeds or Embeds()
    chosen.setdefault("transform", replace(choices.decisions(), embedding=embeds.embedding()))
    chosen.setdefault("endpoint", embeds.endpoint())
    return choose(accept=choices.accept or (), on_existing=choices.on_existing, **chosen)
