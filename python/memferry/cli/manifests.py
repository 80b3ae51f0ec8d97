"""Verbs with a manifest: apply, manifest schema, manifest crds."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated

import typer

from memferry.cli.common import Shown, Talk, app, guard, stop_on_signals
from memferry.cli.console import failure, print_json, say, show, tell
from memferry.cli.groups import grouped
from memferry.cli.local import Local, local
from memferry.cli.several import One, migrate_all, migrate_one
from memferry.errors import MemferryError, RefusedError
from memferry.manifest import KINDS, Manifest, load_manifest, read_manifest
from memferry.manifest.crd import crds_text
from memferry.urls import StoreUrl

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
    """Runs the MemoryMigrations of a manifest, one after another; none when one is refused. The same command resumes.

    What means something only in a cluster is accepted and named.

    \b
    Examples:
      memferry apply -f migration.yaml --dry-run
      memferry apply -f migration.yaml --json | jq .outcome
    """
    stdin = cache(_stdin)  # It can be read only once.

    def stores() -> list[StoreUrl]:
        manifest = _read(file, stdin)
        chosen = [local(manifest, migration) for migration in manifest.migrations()]
        return [url for one in chosen for url in (one.source, one.target)]

    def work(progress: Shown) -> tuple[int, str | None]:
        manifest = _read(file, stdin)
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

    talk.run(work, stores)


def _stdin() -> bytes:
    return sys.stdin.buffer.read()


def _read(file: str, stdin: Callable[[], bytes]) -> Manifest:
    if file == "-":
        return load_manifest(stdin(), "stdin", Path.cwd())
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
    """Runs one migration as `migrate` does, several with one final object."""
    ones = [One(one.name, one.source, one.target, one.options, one.stop_after, one.left_out) for one in chosen]
    stop = stop_on_signals()
    if len(ones) > 1:
        return migrate_all(ones, talk, progress, stop)
    try:
        code, final = migrate_one(ones[0], talk, progress, stop)
    except MemferryError as error:
        code, final = tell(error), failure(error)
    if talk.as_json:
        print_json(ones[0].told(final))
    return code, final["outcome"]


@manifest_app.command("schema")
def schema(
    kind: Annotated[str, typer.Argument(metavar="KIND", help=", ".join(KINDS))] = "MemoryMigration",
) -> None:
    """Writes the JSON schema of a resource to stdout.

    \b
    Example:
      memferry manifest schema MemoryBackend
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

    \b
    Example:
      memferry manifest crds | kubectl apply -f -
    """
    sys.stdout.write(crds_text())
