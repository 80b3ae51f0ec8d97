"""Verbs with a manifest: apply, manifest schema, manifest crds."""

from __future__ import annotations

import sys
from typing import Annotated, Final

import typer

from memferry.cli.common import Talk, app, guard
from memferry.cli.console import print_json
from memferry.cli.groups import grouped
from memferry.errors import RefusedError

KINDS: Final = ("MemoryMigration", "MemoryBackend", "MemoryBinding", "ConfigMap")
"""As `memferry.manifest` has them; written down so that no other verb waits for its models."""

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
    from memferry.cli.apply import apply  # noqa: PLC0415 - the models of manifests: nobody else waits for them

    apply(file, talk, dry_run=dry_run)


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
        from memferry import manifest  # noqa: PLC0415

        if kind not in KINDS:
            raise RefusedError("invalid", f"got `{kind}`, allowed: {', '.join(KINDS)}")
        print_json(manifest.KINDS[kind].model_json_schema())
        return 0

    guard(work, as_json=False)


@manifest_app.command("crds")
def crds() -> None:
    """Writes the custom resource definitions to stdout.

    \b
    Example:
      memferry manifest crds | kubectl apply -f -
    """
    from memferry.manifest.crd import crds_text  # noqa: PLC0415

    sys.stdout.write(crds_text())
