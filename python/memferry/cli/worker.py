"""`memferry worker`: what the pods of a MemoryMigration run. People need none of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from memferry.cli.common import app

worker_app = typer.Typer(help="What the pods of a MemoryMigration run.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(worker_app, name="worker", hidden=True)

VERBS: Final = {
    "plan": "Scans both ends, refuses what cannot be, writes plan and shards, prepares the target.",
    "transfer": "Copies the shard of JOB_COMPLETION_INDEX.",
    "verify": "Finishes the target and compares every record.",
    "retire": "Deletes at the source what was moved, after one more comparison.",
    "switch": "Runs passes and does what the operator commands, until it says Stop.",
    "probe": "Looks at one MemoryBackend.",
}
"""What `memferry worker --help` says of each."""

Folder = Annotated[Path, typer.Option(help="migration.yaml, secrets/NAME/KEY, config/NAME/KEY")]
Claims = Annotated[Path, typer.Option(help="each claim under its name")]
Mounts = Annotated[
    list[Path] | None, typer.Option("--claim", help="a claim that is mounted elsewhere, in a folder of its name")
]
State = Annotated[Path, typer.Option(help="state directory")]


def _verb(name: str, doc: str) -> None:
    def command(folder: Folder, claims: Claims, state: State, claim: Mounts = None) -> None:
        from memferry.cli import pods  # noqa: PLC0415 - manifests and the cluster: nobody else waits for them

        places = pods.Places(folder, claims, state, claim)
        if name == "probe":
            pods.run_probe(places)
        else:
            pods.run_verb(name, places)

    example = f"memferry worker {name} --folder FOLDER --claims FOLDER --state FOLDER"
    command.__doc__ = f"{doc}\n\n    \b\n    Example:\n      {example}"
    worker_app.command(name)(command)


for _name, _doc in VERBS.items():
    _verb(_name, _doc)
