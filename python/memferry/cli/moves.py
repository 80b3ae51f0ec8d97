"""Verbs with two ends: plan, migrate, verify."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from memferry.cli.common import Choices, Ends, Parallelism, Talk, app, guard, options, stop_on_signals
from memferry.cli.console import print_json, show
from memferry.cli.groups import grouped
from memferry.cli.text import plan_text, result_text
from memferry.phases import migrate


@app.command()
@grouped
def plan(ends: Ends, choices: Choices, talk: Talk) -> None:
    """Reads both ends and says what a migration would do. Writes nothing.

    Example: memferry plan agents.db jsonl:memory.jsonl
    """

    def work() -> int:
        with talk.progress() as progress:
            made = migrate.plan_only(*ends.urls(), options(choices), progress=progress, stop=stop_on_signals())
        print_json(json.loads(made.to_json())) if talk.as_json else show(plan_text(made), as_json=False)
        return 0

    guard(work, as_json=talk.as_json)


@app.command("migrate")
@grouped
def migrate_command(
    ends: Ends,
    choices: Choices,
    talk: Talk,
    *,
    on_conflict: Annotated[
        str, typer.Option(help="records changed in the target since we wrote them: keep or source")
    ] = "keep",
    delete: Annotated[bool, typer.Option("--delete", help="carry deletions, last")] = False,
    max_deletes: Annotated[float, typer.Option(help="refuse to delete more than this percentage")] = 10.0,
    max_quarantined: Annotated[int, typer.Option(min=0, help="quarantined records that are still a success")] = 0,
    parallelism: Parallelism = 2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="plan only")] = False,
) -> None:
    """Plans, copies, verifies and reports. The same command resumes after a kill, and syncs after success.

    Examples:
      memferry migrate agents.db jsonl:memory.jsonl.zst

      memferry migrate jsonl:memory.json?profile=server-memory agents.db

      memferry migrate agents.db copy.db --delete --json | jq .outcome
    """

    def work() -> int:
        chosen = options(
            choices,
            on_conflict=on_conflict,
            delete=delete,
            max_deletes_percent=max_deletes,
            max_quarantined=max_quarantined,
            parallelism=parallelism,
        )
        urls = ends.urls()
        with talk.progress() as progress:
            if dry_run:
                made = migrate.plan_only(*urls, chosen, progress=progress, stop=stop_on_signals())
            else:
                result = migrate.migrate(*urls, chosen, progress=progress, stop=stop_on_signals())
        if dry_run:
            print_json(json.loads(made.to_json())) if talk.as_json else show(plan_text(made), as_json=False)
            return 0
        show(result_text(result, urls[1]), as_json=talk.as_json)
        if talk.as_json:
            print_json(result.to_json())
        return result.exit_code

    guard(work, as_json=talk.as_json)


@app.command("verify")
@grouped
def verify_command(ends: Ends, talk: Talk, *, parallelism: Parallelism = 2) -> None:
    """Reads both ends completely and compares every record.

    Example: memferry verify agents.db jsonl:memory.jsonl
    """

    def work() -> int:
        chosen = options(Choices(), parallelism=parallelism)
        urls = ends.urls()
        with talk.progress() as progress:
            result = migrate.verify_only(*urls, chosen, progress=progress, stop=stop_on_signals())
        show(result_text(result, urls[1]), as_json=talk.as_json)
        if talk.as_json:
            print_json(result.to_json())
        return result.exit_code

    guard(work, as_json=talk.as_json)
