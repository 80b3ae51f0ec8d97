"""Verbs with two ends: plan, migrate, verify."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from memferry.cli.common import (
    Accept,
    Dedup,
    Graph,
    Halves,
    Json,
    Limit,
    Map,
    MinRecall,
    OnConflict,
    OnExisting,
    Parallelism,
    Parity,
    Quiet,
    Sample,
    Source,
    SourceKeyEnv,
    SourcePasswordEnv,
    Target,
    TargetKeyEnv,
    TargetPasswordEnv,
    Vectors,
    Where,
    app,
    guard,
    options,
    stop_on_signals,
    store_url,
)
from memferry.cli.console import print_json, show, show_progress
from memferry.cli.text import plan_text, result_text
from memferry.phases import migrate


@app.command()
def plan(
    source: Source,
    target: Target,
    *,
    graph: Graph = None,
    vectors: Vectors = None,
    accept: Accept = None,
    on_existing: OnExisting = "refuse",
    where: Where = None,
    mapping: Map = None,
    dedup: Dedup = "report",
    sample: Sample = None,
    limit: Limit = None,
    source_api_key_env: SourceKeyEnv = "MEMFERRY_SOURCE_API_KEY",
    source_password_env: SourcePasswordEnv = "MEMFERRY_SOURCE_PASSWORD",  # noqa: S107 - the name of a variable
    target_api_key_env: TargetKeyEnv = "MEMFERRY_TARGET_API_KEY",
    target_password_env: TargetPasswordEnv = "MEMFERRY_TARGET_PASSWORD",  # noqa: S107 - the name of a variable
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Reads both ends and says what a migration would do. Writes nothing.

    Examples:
      memferry plan agents.db jsonl:memory.jsonl

      memferry plan agents.db ann.db --where 'scope_user == "ann" && "work" in tags'
    """

    def work() -> int:
        chosen = options(
            accept=accept,
            on_existing=on_existing,
            where=where,
            mapping=mapping,
            dedup=dedup,
            sample=sample,
            limit=limit,
        )
        halves = Halves(graph, vectors)
        ends = (
            store_url("SOURCE", source, source_api_key_env, source_password_env, halves),
            store_url("TARGET", target, target_api_key_env, target_password_env, halves),
        )
        halves.done()
        with show_progress(quiet=quiet) as progress:
            made = migrate.plan_only(*ends, chosen, progress=progress, stop=stop_on_signals())
        print_json(json.loads(made.to_json())) if as_json else show(plan_text(made), as_json=False)
        return 0

    guard(work, as_json=as_json)


@app.command("migrate")
def migrate_command(
    source: Source,
    target: Target,
    *,
    graph: Graph = None,
    vectors: Vectors = None,
    accept: Accept = None,
    on_existing: OnExisting = "refuse",
    on_conflict: OnConflict = "keep",
    delete: Annotated[bool, typer.Option("--delete", help="carry deletions, last")] = False,
    max_deletes: Annotated[float, typer.Option(help="refuse to delete more than this percentage")] = 10.0,
    max_quarantined: Annotated[int, typer.Option(min=0, help="quarantined records that are still a success")] = 0,
    where: Where = None,
    mapping: Map = None,
    dedup: Dedup = "report",
    sample: Sample = None,
    limit: Limit = None,
    parallelism: Parallelism = 2,
    parity: Parity = 0,
    min_recall: MinRecall = None,
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

      memferry migrate agents.db hybrid: --graph neo4j://host --vectors qdrant://host/agents

      memferry migrate agents.db qdrant://localhost/agents --parity 100 --min-recall 0.95

      memferry migrate agents.db ann.db --where 'scope_user == "ann"' --map rename.toml --dedup exact
    """

    def work() -> int:
        chosen = options(
            accept=accept,
            on_existing=on_existing,
            on_conflict=on_conflict,
            delete=delete,
            max_deletes_percent=max_deletes,
            max_quarantined=max_quarantined,
            parallelism=parallelism,
            parity=parity,
            min_recall=min_recall,
            where=where,
            mapping=mapping,
            dedup=dedup,
            sample=sample,
            limit=limit,
        )
        halves = Halves(graph, vectors)
        ends = (
            store_url("SOURCE", source, source_api_key_env, source_password_env, halves),
            store_url("TARGET", target, target_api_key_env, target_password_env, halves),
        )
        halves.done()
        with show_progress(quiet=quiet) as progress:
            if dry_run:
                made = migrate.plan_only(*ends, chosen, progress=progress, stop=stop_on_signals())
            else:
                result = migrate.migrate(*ends, chosen, progress=progress, stop=stop_on_signals())
        if dry_run:
            print_json(json.loads(made.to_json())) if as_json else show(plan_text(made), as_json=False)
            return 0
        show(result_text(result, ends[1]), as_json=as_json)
        if as_json:
            print_json(result.to_json())
        return result.exit_code

    guard(work, as_json=as_json)


@app.command("verify")
def verify_command(
    source: Source,
    target: Target,
    *,
    graph: Graph = None,
    vectors: Vectors = None,
    parallelism: Parallelism = 2,
    parity: Parity = 0,
    min_recall: MinRecall = None,
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
        chosen = options(parallelism=parallelism, parity=parity, min_recall=min_recall)
        halves = Halves(graph, vectors)
        ends = (
            store_url("SOURCE", source, source_api_key_env, source_password_env, halves),
            store_url("TARGET", target, target_api_key_env, target_password_env, halves),
        )
        halves.done()
        with show_progress(quiet=quiet) as progress:
            result = migrate.verify_only(*ends, chosen, progress=progress, stop=stop_on_signals())
        show(result_text(result, ends[1]), as_json=as_json)
        if as_json:
            print_json(result.to_json())
        return result.exit_code

    guard(work, as_json=as_json)
