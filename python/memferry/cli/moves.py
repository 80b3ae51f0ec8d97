"""Verbs with two ends: plan, migrate, verify."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from memferry.cli.common import (
    Choices,
    Embeds,
    Ends,
    Parallelism,
    Searches,
    Shown,
    Talk,
    apart,
    app,
    command,
    options,
    stop_on_signals,
)
from memferry.cli.console import print_json, say, show
from memferry.cli.groups import grouped
from memferry.cli.several import One, migrate_all, plan_all, verify_all
from memferry.cli.text import plan_text, quick_text, result_text
from memferry.errors import RefusedError
from memferry.phases import migrate
from memferry.phases.estimate import quick_plan
from memferry.phases.planfile import SavedPlan
from memferry.phases.transform import Decisions

Save = Annotated[Path | None, typer.Option(metavar="FILE", help="keep the plan, for `migrate --plan`")]
Quick = Annotated[bool, typer.Option("--quick", help="estimates from counts only; looks for no gaps")]
PlanFile = Annotated[
    Path | None, typer.Option("--plan", metavar="FILE", help="only if this plan still holds; its choices count")
]
Frozen = Annotated[bool, typer.Option("--source-frozen", help="not proven if SRC changes between plan and proof")]


@app.command()
@grouped
def plan(ends: Ends, choices: Choices, embeds: Embeds, talk: Talk, *, save: Save = None, quick: Quick = False) -> None:
    """Reads both ends and says what a migration would do. Writes nothing.

    \b
    Examples:
      memferry plan agents.db jsonl:memory.jsonl
      memferry plan agents.db copy.db --save plan.json
      memferry plan agents.db ann.db \\
          --where 'scope_user == "ann" && "work" in tags'
    """

    def work(progress: Shown) -> tuple[int, str | None]:
        chosen, several = options(choices, embeds), ends.each()
        if several is not None:
            if quick or save:
                raise RefusedError("invalid", "--quick and --save are for one collection at a time")
            ones = [One(name, *urls, chosen) for name, urls in several]
            return plan_all(ones, talk, progress, stop_on_signals())
        urls = ends.urls()
        if save:
            apart("--save", save, urls)
        if quick:
            if save:
                raise RefusedError("invalid", "--quick makes no plan that could be saved; leave one of them out")
            guess = quick_plan(*urls)
            print_json(guess.to_json()) if talk.as_json else show(quick_text(guess), as_json=False)
            return 0, None
        with progress() as tell:
            made = migrate.plan_only(*urls, chosen, progress=tell, stop=stop_on_signals())
        if save:
            SavedPlan.of(made, urls[1]).save(save)
        print_json(json.loads(made.to_json())) if talk.as_json else show(plan_text(made), as_json=False)
        if save:
            say(f"saved; to carry it out: memferry migrate {shlex.join([ends.source, ends.target])} --plan {save}")
        return 0, None

    talk.run(work, ends.urls)


@app.command("migrate")
@grouped
def migrate_command(
    ends: Ends,
    choices: Choices,
    embeds: Embeds,
    searches: Searches,
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
    plan_file: PlanFile = None,
    source_frozen: Frozen = False,
) -> None:
    """Plans, copies, verifies and reports. The same command resumes after a kill, and syncs after success.

    \b
    Examples:
      memferry migrate agents.db jsonl:memory.jsonl.zst
      memferry migrate jsonl:memory.json?profile=server-memory agents.db
      memferry migrate agents.db copy.db --delete --json | jq .outcome
      memferry migrate agents.db hybrid: --graph neo4j://host \\
          --vectors qdrant://host/agents
      memferry migrate agents.db qdrant://localhost/agents --parity 100 \\
          --min-recall 0.95
      memferry migrate 'qdrant://localhost/notes,chats' 'qdrant://other/{}'
      memferry migrate 'qdrant://localhost/*?profile=plain' \\
          'backup/{}.jsonl.zst'
      memferry migrate agents.db copy.db --plan plan.json \\
          --events events.ndjson
      memferry migrate agents.db ann.db --where 'scope_user == "ann"' \\
          --map rename.toml --dedup exact
      memferry migrate agents.db new.db \\
          --embed-url https://api.openai.com/v1 \\
          --embed-model text-embedding-3-small --accept re-embedded
    """

    def work(progress: Shown) -> tuple[int, str | None]:
        saved = SavedPlan.load(plan_file) if plan_file else None
        asked = replace(choices.decisions(), embedding=embeds.embedding())
        chosen = options(
            replace(choices, accept=list(saved.plan.accept)) if saved and not choices.accept else choices,
            embeds,
            transform=saved.asked() if saved and asked == Decisions() else asked,
            on_conflict=on_conflict,
            delete=delete,
            max_deletes_percent=max_deletes,
            max_quarantined=max_quarantined,
            parallelism=parallelism,
            source_frozen=source_frozen,
            parity=searches.parity,
            min_recall=searches.min_recall,
        )
        several, stop = ends.each(), stop_on_signals()
        if several is not None:
            if saved:
                raise RefusedError("invalid", "--plan is for one collection at a time")
            ones = [One(name, *urls, chosen) for name, urls in several]
            return (plan_all if dry_run else migrate_all)(ones, talk, progress, stop)
        urls = ends.urls()
        approve = saved.check if saved else lambda _: None
        if dry_run:
            with progress() as tell:
                made = migrate.plan_only(*urls, chosen, progress=tell, stop=stop)
            approve(made)
            print_json(json.loads(made.to_json())) if talk.as_json else show(plan_text(made), as_json=False)
            return 0, None
        with progress() as tell:
            result = migrate.migrate(*urls, chosen, progress=tell, stop=stop, approve=approve, command=command())
        show(result_text(result, urls[1]), as_json=talk.as_json)
        if talk.as_json:
            print_json(result.to_json())
        return result.exit_code, result.outcome

    talk.run(work, ends.urls)


@app.command("verify")
@grouped
def verify_command(ends: Ends, searches: Searches, talk: Talk, *, parallelism: Parallelism = 2) -> None:
    """Reads both ends completely and compares every record.

    \b
    Example:
      memferry verify agents.db jsonl:memory.jsonl
    """

    def work(progress: Shown) -> tuple[int, str | None]:
        chosen = options(Choices(), parallelism=parallelism, parity=searches.parity, min_recall=searches.min_recall)
        several = ends.each()
        if several is not None:
            ones = [One(name, *urls, chosen) for name, urls in several]
            return verify_all(ones, talk, progress, stop_on_signals())
        urls = ends.urls()
        with progress() as tell:
            result = migrate.verify_only(*urls, chosen, progress=tell, stop=stop_on_signals())
        show(result_text(result, urls[1]), as_json=talk.as_json)
        if talk.as_json:
            print_json(result.to_json())
        return result.exit_code, result.outcome

    talk.run(work, ends.urls)
