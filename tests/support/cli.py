"""The command line as a process, in a plain environment."""

from __future__ import annotations

import os
from pathlib import Path

from testbed.forked import Done, run

__all__ = ["Done", "memferry"]


def memferry(folder: Path, *arguments: str, text: str = "", **environment: str) -> Done:
    """Runs `memferry` in a folder.

    Args:
        folder: Where.
        arguments: Verb and options.
        text: What comes from stdin.
        environment: Variables beside those of the test run.
    """
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("MEMFERRY_", "FORCE_COLOR", "NO_COLOR"))}
    return run(
        "-m", "memferry", *arguments, environment={**plain, "COLUMNS": "80", **environment}, folder=folder, text=text
    )
