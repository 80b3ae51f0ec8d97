"""The command line as a process, in a plain environment."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["Done", "memferry"]

Done = subprocess.CompletedProcess[str]


def memferry(folder: Path, *arguments: str, text: str | None = None, **environment: str) -> Done:
    """Runs `memferry` in a folder.

    Args:
        folder: Where.
        arguments: Verb and options.
        text: What comes from stdin.
        environment: Variables beside those of the test run.
    """
    plain = {n: v for n, v in os.environ.items() if not n.startswith(("MEMFERRY_", "FORCE_COLOR", "NO_COLOR"))}
    return subprocess.run(
        [sys.executable, "-m", "memferry", *arguments],
        cwd=folder,
        env={**plain, "COLUMNS": "80", **environment},
        input=text or "",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
