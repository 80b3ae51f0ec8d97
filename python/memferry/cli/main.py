"""`memferry`: verbs that mirror the library."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from memferry import backends, migrate
from memferry.cli.console import fail, print_json, say, show, show_progress
from memferry.cli.text import plan_text, result_text
from memferry.errors import MemferryError, RefusedError
from memferry.ledger import Ledger
from memferry.plan import Options, Stop
from memferry.rollback import rollback as roll_back
from memferry.urls import Secrets, StoreUrl, parse_url

__all__ = ["app", "run"]

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
Parallelism = Annotated[int, typer.Option(min=1, max=64, help="ranges at a time")]


def _guard(work: Callable[[], int], *, as_json: bool) -> None:
    try:
        code = work()
    except MemferryError as error:
        code = fail(error, as_json=as_json)
    raise typer.Exit(code)


def _stop_on_signals() -> Stop:
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
    return stop


def _store(side: str, text: str, key_env: str | None = None, password_env: str | None = None) -> StoreUrl:
    """Reads a URL and fetches its credentials from the environment."""
    prefix = f"MEMFERRY_{side}_"
    ca_file = os.environ.get(f"{prefix}CA_FILE")
    secrets = Secrets(
        api_key=os.environ.get(key_env or f"{prefix}API_KEY"),
        password=os.environ.get(password_env or f"{prefix}PASSWORD"),
        ca_file=Path(ca_file) if ca_file else None,
    )
    return replace(parse_url(text), secrets=secrets)


def _choice(name: str, value: str, allowed: tuple[str, ...]) -> str:
    if value not in allowed:
        raise RefusedError("invalid", f"--{name}: got `{value}`, allowed: {', '.join(allowed)}")
    return value


def _options(**chosen: Any) -> Options:
    accept = tuple(sorted(set(chosen.pop("accept", None) or ())))
    known = backends.gap_names()
    for gap in accept:
        if gap not in known:
            raise RefusedError("invalid", f"--accept: unknown gap `{gap}`, allowed: {', '.join(known)}")
    if "on_existing" in chosen:
        _choice("on-existing", chosen["on_existing"], ("refuse", "keep", "overwrite"))
    if "on_conflict" in chosen:
        _choice("on-conflict", chosen["on_conflict"], ("keep", "source"))
    return Options(accept=accept, **chosen)


@app.command()
def plan(
    source: Source,
    target: Target,
    *,
    accept: Accept = None,
    on_existing: OnExisting = "refuse",
    source_api_key_env: SourceKeyEnv = "MEMFERRY_SOURCE_API_KEY",
    source_password_env: SourcePasswordEnv = "MEMFERRY_SOURCE_PASSWORD",  # noqa: S107 - the name of a variable
    target_api_key_env: TargetKeyEnv = "MEMFERRY_TARGET_API_KEY",
    target_password_env: TargetPasswordEnv = "MEMFERRY_TARGET_PASSWORD",  # noqa: S107 - the name of a variable
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Reads both ends and says what a migration would do. Writes nothing.

    Example: memferry plan agents.db jsonl:memory.jsonl
    """

    def work() -> int:
        options = _options(accept=accept, on_existing=on_existing)
        ends = (
            _store("SOURCE", source, source_api_key_env, source_password_env),
            _store("TARGET", target, target_api_key_env, target_password_env),
        )
        with show_progress(quiet=quiet) as progress:
            made = migrate.plan_only(*ends, options, progress=progress, stop=_stop_on_signals())
        print_json(json.loads(made.to_json())) if as_json else show(plan_text(made), as_json=False)
        return 0

    _guard(work, as_json=as_json)


@app.command("migrate")
def migrate_command(
    source: Source,
    target: Target,
    *,
    accept: Accept = None,
    on_existing: OnExisting = "refuse",
    on_conflict: OnConflict = "keep",
    delete: Annotated[bool, typer.Option("--delete", help="carry deletions, last")] = False,
    max_deletes: Annotated[float, typer.Option(help="refuse to delete more than this percentage")] = 10.0,
    max_quarantined: Annotated[int, typer.Option(min=0, help="quarantined records that are still a success")] = 0,
    parallelism: Parallelism = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="plan only")] = False,
    source_api_key_env: SourceKeyEnv = "MEMFERRY_SOURCE_API_KEY",
    source_password_env: SourcePasswordEnv = "MEMFERRY_SOURCE_PASSWORD",  # noqa: S107 - the name of a variable
    target_api_key_env: TargetKeyEnv = "MEMFERRY_TARGET_API_KEY",
    target_password_env: TargetPasswordEnv = "MEMFERRY_TARGET_PASSWORD",  # noqa: S107 - the name of a variable
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Plans, copies, verifies and reports. The same command resumes after a kill, and syncs after success.

    Examples:
      memferry migrate agents.db jsonl:memory.jsonl.zst

      memferry migrate jsonl:memory.json?profile=server-memory agents.db

      memferry migrate agents.db copy.db --delete --json | jq .outcome
    """

    def work() -> int:
        options = _options(
            accept=accept,
            on_existing=on_existing,
            on_conflict=on_conflict,
            delete=delete,
            max_deletes_percent=max_deletes,
            max_quarantined=max_quarantined,
            parallelism=parallelism,
        )
        ends = (
            _store("SOURCE", source, source_api_key_env, source_password_env),
            _store("TARGET", target, target_api_key_env, target_password_env),
        )
        with show_progress(quiet=quiet) as progress:
            if dry_run:
                made = migrate.plan_only(*ends, options, progress=progress, stop=_stop_on_signals())
            else:
                result = migrate.migrate(*ends, options, progress=progress, stop=_stop_on_signals())
        if dry_run:
            print_json(json.loads(made.to_json())) if as_json else show(plan_text(made), as_json=False)
            return 0
        show(result_text(result, ends[1]), as_json=as_json)
        if as_json:
            print_json(result.to_json())
        return result.exit_code

    _guard(work, as_json=as_json)


@app.command("verify")
def verify_command(
    source: Source,
    target: Target,
    *,
    parallelism: Parallelism = 2,
    source_api_key_env: SourceKeyEnv = "MEMFERRY_SOURCE_API_KEY",
    source_password_env: SourcePasswordEnv = "MEMFERRY_SOURCE_PASSWORD",  # noqa: S107 - the name of a variable
    target_api_key_env: TargetKeyEnv = "MEMFERRY_TARGET_API_KEY",
    target_password_env: TargetPasswordEnv = "MEMFERRY_TARGET_PASSWORD",  # noqa: S107 - the name of a variable
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Reads both ends completely and compares every record.

    Example: memferry verify agents.db jsonl:memory.jsonl
    """

    def work() -> int:
        options = _options(parallelism=parallelism)
        ends = (
            _store("SOURCE", source, source_api_key_env, source_password_env),
            _store("TARGET", target, target_api_key_env, target_password_env),
        )
        with show_progress(quiet=quiet) as progress:
            result = migrate.verify_only(*ends, options, progress=progress, stop=_stop_on_signals())
        show(result_text(result, ends[1]), as_json=as_json)
        if as_json:
            print_json(result.to_json())
        return result.exit_code

    _guard(work, as_json=as_json)


def _ledger(target: backends.Target, migration: str | None, url: StoreUrl) -> Ledger:
    known = target.documents.migrations()
    if migration is None and len(known) == 1:
        return Ledger(target.documents, known[0])
    if migration in known:
        return Ledger(target.documents, str(migration))
    if not known:
        raise RefusedError("no-migration", f"{url.text} knows no migration")
    raise RefusedError("no-migration", f"name one with --migration: {', '.join(known)}")


def _open_existing(text: str) -> tuple[StoreUrl, backends.Target]:
    url = _store("TARGET", text)
    if not backends.has_ledger(url):
        raise RefusedError("no-migration", f"{url.text} knows no migration")
    return url, backends.open_target(url)


@app.command()
def status(store: Store, *, migration: Migration = None, as_json: Json = False) -> None:
    """Says how far the migrations into a store are.

    Example: memferry status copy.db
    """

    def work() -> int:
        _, target = _open_existing(store)
        rows = []
        for known in target.documents.migrations():
            if migration not in {None, known}:
                continue
            ledger = Ledger(target.documents, known)
            run_document = ledger.run() or {}
            rows.append(
                {
                    "migration": known,
                    "state": run_document.get("state", "planned"),
                    "outcome": run_document.get("outcome"),
                    "source": run_document.get("source"),
                    "ranges_done": ledger.ranges_done(),
                    "kinds": ledger.books().to_json(),
                }
            )
        if as_json:
            print_json(rows)
        for row in rows:
            show(
                f"{row['migration']}  {row['state']}  {row['outcome'] or ''}  {row['ranges_done']} ranges done",
                as_json=as_json,
            )
        return 0

    _guard(work, as_json=as_json)


@app.command("rollback")
def rollback_command(store: Store, *, migration: Migration = None, as_json: Json = False) -> None:
    """Takes out what a migration wrote and puts back what it wrote over.

    Example: memferry rollback copy.db
    """

    def work() -> int:
        url, target = _open_existing(store)
        ledger = _ledger(target, migration, url)
        done = roll_back(target, ledger, stop=_stop_on_signals())
        target.close()
        show(
            f"rolled back {ledger.migration}: {done.deleted} deleted, {done.restored} restored, {len(done.kept)} kept",
            as_json=as_json,
        )
        for kind, identity in done.kept[:20]:
            show(f"  changed since, left as it is: {kind} {identity}", as_json=as_json)
        if as_json:
            counts = {"deleted": done.deleted, "restored": done.restored, "kept": done.kept}
            print_json({"migration": ledger.migration, "outcome": "rolled_back", **counts})
        return 1 if done.kept else 0

    _guard(work, as_json=as_json)


@quarantine_app.command("list")
def quarantine_list(store: Store, *, migration: Migration = None, as_json: Json = False) -> None:
    """Lists what could not be moved.

    Example: memferry quarantine list copy.db
    """

    def work() -> int:
        url, target = _open_existing(store)
        ledger = _ledger(target, migration, url)
        for number, row in ledger.quarantined():
            if as_json:
                shown = {"kind": row.kind, "id": row.id, "reason": row.reason, "message": row.message}
                print_json({"number": number, "key": row.key, **shown})
            else:
                show(f"{number}  {row.kind or '?'} {row.id or row.key}  {row.reason}: {row.message}", as_json=as_json)
        return 0

    _guard(work, as_json=as_json)


@quarantine_app.command("show")
def quarantine_show(
    store: Store,
    number: Annotated[str, typer.Argument(help="number from `quarantine list`")],
    *,
    migration: Migration = None,
) -> None:
    """Writes the raw bytes of a quarantined row to stdout.

    Example: memferry quarantine show copy.db 000000/000003/000000
    """

    def work() -> int:
        url, target = _open_existing(store)
        for known, row in _ledger(target, migration, url).quarantined():
            if known == number:
                sys.stdout.buffer.write(row.raw + b"\n")
                return 0
        raise RefusedError("invalid", f"no quarantined row {number}")

    _guard(work, as_json=False)


@app.command()
def inspect(store: Store, *, as_json: Json = False) -> None:
    """Says what is in a store, reading no more than counts.

    Example: memferry inspect agents.db
    """

    def work() -> int:
        source = backends.open_source(_store("SOURCE", store))
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

    _guard(work, as_json=as_json)


@app.command("backends")
def backends_command(*, as_json: Json = False) -> None:
    """Lists the backends and their profiles.

    Example: memferry backends --json
    """
    if as_json:
        print_json(backends.BACKENDS)
    else:
        for name, what in backends.BACKENDS.items():
            show(f"{name:<10} {what}", as_json=as_json)


def run() -> None:
    """Entry point."""
    app()
