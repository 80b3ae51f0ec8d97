"""Verbs with one store: status, report, rollback, quarantine, inspect, backends."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Final

import typer

from memferry import stores
from memferry.backends.api import Target
from memferry.cli.common import (
    Graph,
    Halves,
    Json,
    Migration,
    Shown,
    Store,
    Talk,
    Vectors,
    app,
    command,
    guard,
    quarantine_app,
    stop_on_signals,
    store_url,
)
from memferry.cli.console import print_json, show
from memferry.cli.groups import grouped
from memferry.cli.text import report_text, retried_text, standing_text
from memferry.errors import RefusedError
from memferry.library import find_ledger, open_known
from memferry.phases.quarantine import retry
from memferry.phases.rollback import rollback as roll_back
from memferry.phases.status import standings
from memferry.urls import StoreUrl

_SHOWN: Final = 20


def _url(side: str, text: str, graph: list[str] | None, vectors: list[str] | None) -> StoreUrl:
    halves = Halves(graph, vectors)
    url = store_url(side, text, halves=halves)
    halves.done()
    return url


def _open_existing(text: str, graph: list[str] | None, vectors: list[str] | None) -> tuple[StoreUrl, Target]:
    url = _url("TARGET", text, graph, vectors)
    return url, open_known(url)


@app.command()
def status(
    store: Store,
    *,
    graph: Graph = None,
    vectors: Vectors = None,
    migration: Migration = None,
    as_json: Json = False,
) -> None:
    """Says how far the migrations into a store are, who is at work, and what resumes.

    \b
    Example:
      memferry status copy.db
    """

    def work() -> int:
        url = _url("TARGET", store, graph, vectors)
        with stores.read_ledger(url) as documents:
            if documents is None:
                raise RefusedError("no-migration", f"{url.text} knows no migration", hint=stores.ledger_hint(url))
            known = list(standings(documents))
        rows = [row for row in known if migration in {None, row.migration}]
        if migration is not None and not rows:
            raise RefusedError(
                "no-migration",
                f"{url.text} knows no migration {migration}",
                hint=f"there are: {', '.join(row.migration for row in known) or 'none'}",
            )
        if as_json:
            print_json([row.to_json() for row in rows])
        for row in rows:
            show(standing_text(row), as_json=as_json)
        if not rows:
            show(f"{url.text}: no migration was run into it", as_json=as_json)
        return 0

    guard(work, as_json=as_json)


@app.command()
def report(
    store: Store,
    *,
    graph: Graph = None,
    vectors: Vectors = None,
    migration: Migration = None,
    as_json: Json = False,
) -> None:
    """Shows what the last run of a migration came to.

    \b
    Example:
      memferry report copy.db --json | jq .verify
    """

    def work() -> int:
        url, target = _open_existing(store, graph, vectors)
        ledger = find_ledger(target, migration, url)
        text = ledger.report()
        if text is None:
            state = (ledger.run() or {}).get("state")
            told = "was rolled back" if state == "rolled_back" else "has not come to its end yet"
            raise RefusedError(
                "no-migration", f"migration {ledger.migration} {told}", hint="`memferry status` says more"
            )
        result = json.loads(text)
        if as_json:
            print_json(result)
        else:
            show(report_text(result), as_json=False)
        return 0

    guard(work, as_json=as_json)


@app.command("rollback")
def rollback_command(
    store: Store,
    *,
    graph: Graph = None,
    vectors: Vectors = None,
    migration: Migration = None,
    as_json: Json = False,
) -> None:
    """Takes out what a migration wrote and puts back what it wrote over.

    \b
    Example:
      memferry rollback copy.db
    """

    def work() -> int:
        url, target = _open_existing(store, graph, vectors)
        ledger = find_ledger(target, migration, url)
        done = roll_back(target, ledger, stop=stop_on_signals(), command=command())
        target.close()
        show(
            f"rolled back {ledger.migration}: {done.deleted} deleted, {done.restored} restored, {len(done.kept)} kept",
            as_json=as_json,
        )
        for kind, identity in done.kept[:_SHOWN]:
            show(f"  changed or built upon since, left as it is: {kind} {identity}", as_json=as_json)
        if len(done.kept) > _SHOWN:
            show(f"  ... {len(done.kept) - _SHOWN:,} more, `--json` has them all", as_json=as_json)
        if as_json:
            counts = {"deleted": done.deleted, "restored": done.restored, "kept": done.kept}
            print_json({"migration": ledger.migration, "outcome": "rolled_back", **counts})
        return 1 if done.kept else 0

    guard(work, as_json=as_json)


@quarantine_app.command("list")
def quarantine_list(
    store: Store,
    *,
    graph: Graph = None,
    vectors: Vectors = None,
    migration: Migration = None,
    as_json: Json = False,
) -> None:
    """Lists what could not be moved.

    \b
    Example:
      memferry quarantine list copy.db
    """

    def work() -> int:
        url, target = _open_existing(store, graph, vectors)
        ledger = find_ledger(target, migration, url)
        rows = list(ledger.quarantined())
        if as_json:
            print_json(
                [{"number": number, **{k: v for k, v in row._asdict().items() if k != "raw"}} for number, row in rows]
            )
        else:
            for number, row in rows:
                known = f"{row.kind or '?'} {row.id or row.key}"
                show(f"{number}  {known}  {row.reason}: {row.message}", as_json=False)
        return 0

    guard(work, as_json=as_json)


@quarantine_app.command("show")
def quarantine_show(
    store: Store,
    number: Annotated[str, typer.Argument(help="number from `quarantine list`")],
    *,
    graph: Graph = None,
    vectors: Vectors = None,
    migration: Migration = None,
) -> None:
    """Writes the raw bytes of a quarantined row to stdout.

    \b
    Example:
      memferry quarantine show copy.db 000000/000003/000000
    """

    def work() -> int:
        url, target = _open_existing(store, graph, vectors)
        for known, row in find_ledger(target, migration, url).quarantined():
            if known == number:
                sys.stdout.buffer.write(row.raw + b"\n")
                return 0
        raise RefusedError("invalid", f"no quarantined row {number}")

    guard(work, as_json=False)


@quarantine_app.command("retry")
@grouped
def quarantine_retry(
    store: Store,
    talk: Talk,
    *,
    source: Annotated[
        str | None, typer.Option(metavar="SRC", help="read them again from here, and compare both ends afterwards")
    ] = None,
    graph: Graph = None,
    vectors: Vectors = None,
    migration: Migration = None,
) -> None:
    """Tries quarantined records again, once the reason has gone.

    Without --source they are taken as they were kept, whole.

    \b
    Examples:
      memferry quarantine retry qdrant://localhost/agents
      memferry quarantine retry copy.db --source agents.db
    """

    def urls() -> tuple[StoreUrl | None, StoreUrl]:
        halves = Halves(graph, vectors)
        origin = store_url("SOURCE", source, halves=halves) if source else None
        url = store_url("TARGET", store, halves=halves)
        halves.done()
        return origin, url

    def work(progress: Shown) -> tuple[int, str | None]:
        origin, url = urls()
        target = open_known(url)
        try:
            known = find_ledger(target, migration, url).migration
        finally:
            target.close()
        with progress() as tell:
            done = retry(url, known, source_url=origin, progress=tell, stop=stop_on_signals())
        show(retried_text(done, url), as_json=talk.as_json)
        if talk.as_json:
            print_json(done.to_json())
        return done.exit_code, done.proof.outcome if done.proof else None

    talk.run(work, lambda: (url for url in urls() if url))


@app.command()
def inspect(
    store: Store,
    *,
    graph: Graph = None,
    vectors: Vectors = None,
    as_json: Json = False,
) -> None:
    """Says what is in a store, reading no more than counts.

    Its credentials are those of a source: MEMFERRY_SOURCE_API_KEY, MEMFERRY_SOURCE_PASSWORD.

    \b
    Examples:
      memferry inspect agents.db
      memferry inspect neo4j://localhost
    """

    def work() -> int:
        source = stores.open_source(_url("SOURCE", store, graph, vectors))
        streams = [{"stream": s.name, "rows": s.rows, "bytes": s.size_bytes} for s in source.streams()]
        if as_json:
            about = {"backend": source.backend, "profile": source.profile, "identity": source.identity}
            print_json({**about, "streams": streams})
        else:
            show(f"{source.backend}, profile {source.profile}, {source.identity}", as_json=as_json)
            for row in streams:
                rows = "not counted" if row["rows"] is None else f"{row['rows']:,}"
                show(f"  {row['stream']:<12} {rows:>12}", as_json=as_json)
        return 0

    guard(work, as_json=as_json)


@app.command("backends")
def backends_command(*, as_json: Json = False) -> None:
    """Lists the backends and their profiles.

    \b
    Example:
      memferry backends --json
    """
    if as_json:
        print_json(stores.BACKENDS)
    else:
        for name, what in stores.BACKENDS.items():
            show(f"{name:<10} {what}", as_json=as_json)
