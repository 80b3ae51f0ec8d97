"""Verbs with a manifest: apply, manifest schema, manifest crds."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from memferry.cli.common import Shown, Talk, app, command, guard, stop_on_signals
from memferry.cli.console import failure, print_json, say, show, tell
from memferry.cli.groups import grouped
from memferry.cli.local import Local, local
from memferry.cli.text import plan_text, result_text
from memferry.errors import MemferryError, RefusedError
from memferry.manifest import KINDS, Manifest, load_manifest, read_manifest
from memferry.manifest.crd import crds_text
from memferry.phases import migrate

manifest_app = typer.Typer(help="What a manifest may say.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(manifest_app, name="manifest")


@app.command("apply")
@grouped
def apply_command(
    talk: Talk,
    *,
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="manifest file, `-` for stdin")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="validate only")] = False,
) -> None:
    """Runs the MemoryMigrations of a manifest, one after another. The same command resumes.

    What means something only in a cluster is accepted and named.

    Examples:
      memferry apply -f migration.yaml --dry-run

      memferry apply -f migration.yaml --json | jq .outcome
    """

    def work(progress: Shown) -> tuple[int, str | None]:
        manifest = _read(file)
        chosen = [local(manifest, migration) for migration in manifest.migrations()]
        suspended = [m.metadata.name for m in manifest.migrations() if m.spec.suspend]
        for one in chosen:
            if one.left_out:
                say(f"{one.name}: only acted upon in a cluster: {', '.join(one.left_out)}")
        if dry_run:
            _valid(manifest, chosen, talk)
            return 0, None
        if not chosen:
            raise RefusedError("manifest", f"{file}: there is no MemoryMigration in it")
        if suspended:
            raise RefusedError("manifest", f"{file}: spec.suspend is true, nothing is begun: {', '.join(suspended)}")
        return _run(chosen, talk, progress)

    talk.run(work)


def _read(file: str) -> Manifest:
    if file == "-":
        return load_manifest(sys.stdin.buffer.read(), "stdin", Path.cwd())
    return read_manifest(Path(file))


def _valid(manifest: Manifest, chosen: list[Local], talk: Talk) -> None:
    if talk.as_json:
        migrations = [
            {"name": one.name, "source": one.source.text, "target": one.target.text, "left_out": one.left_out}
            for one in chosen
        ]
        print_json({"valid": True, "resources": len(manifest.documents), "migrations": migrations})
        return
    for one in chosen:
        show(f"{one.name}: {one.source.text} -> {one.target.text}", as_json=False)
    show(f"{manifest.file}: {len(manifest.documents)} resources, valid; nothing was done", as_json=False)


def _run(chosen: list[Local], talk: Talk, progress: Shown) -> tuple[int, str | None]:
    """Runs migrations until one does not come out well."""
    objects: list[dict[str, Any]] = []
    code = 0
    for one in chosen:
        try:
            code, final = _one(one, talk, progress)
        except MemferryError as error:
            code, final = tell(error), failure(error)
        objects.append({"name": one.name, **final, "left_out": one.left_out})
        if code:
            break
    not_begun = [one.name for one in chosen[len(objects) :]]
    if not_begun:
        say(f"not begun: {', '.join(not_begun)}")
    if talk.as_json and len(chosen) == 1:
        print_json(objects[0])
    elif talk.as_json:
        print_json({"outcome": objects[-1]["outcome"], "migrations": objects, "not_begun": not_begun})
    return code, objects[-1]["outcome"]


def _one(one: Local, talk: Talk, progress: Shown) -> tuple[int, dict[str, Any]]:
    show(f"{one.name}: {one.source.text} -> {one.target.text}", as_json=talk.as_json)
    ends, stop = (one.source, one.target, one.options), stop_on_signals()
    with progress() as tell_progress:
        if one.stop_after == "Plan":
            plan = migrate.plan_only(*ends, progress=tell_progress, stop=stop)
        else:
            result = migrate.migrate(*ends, progress=tell_progress, stop=stop, command=command())
    if one.stop_after == "Plan":
        show(plan_text(plan), as_json=talk.as_json)
        return 0, {"outcome": "planned", **json.loads(plan.to_json())}
    show(result_text(result, one.target), as_json=talk.as_json)
    return result.exit_code, result.to_json()


@manifest_app.command("schema")
def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=", ".join(KINDS))] = "MemoryMigration",
) -> None:
    """Writes the JSON schema of a resource to stdout.

    Example: memferry manifest schema MemoryBackend
    """

    def work() -> int:
        if kind not in KINDS:
            raise RefusedError("invalid", f"got `{kind}`, allowed: {', '.join(KINDS)}")
        print_json(KINDS[kind].model_json_schema())
        return 0

    guard(work, as_json=False)


@manifest_app.command("crds")
def crds() -> None:
    """Writes the custom resource definitions to stdout.

    Example: memferry manifest crds | kubectl apply -f -
    """
    sys.stdout.write(crds_text())
