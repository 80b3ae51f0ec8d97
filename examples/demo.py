"""`make demo`: moves the demo store to a file and to JSONL, is killed once half-way, resumes, and proves the result."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DEMO = Path(__file__).parent / "demo" / "agents.db"


def memferry(*arguments: str, kill_at: str | None = None) -> int:
    """Runs the command line as a user would; with `kill_at` it is killed with SIGKILL at that point."""
    environment = {**os.environ, **({"MEMFERRY_FAILPOINT": kill_at} if kill_at else {})}
    print(f"\n$ memferry {' '.join(arguments)}", flush=True)
    code = subprocess.run([sys.executable, "-m", "memferry", *arguments], env=environment, check=False).returncode
    if kill_at:
        print(f"killed half-way (signal {-code})", flush=True)
    return code


def main() -> None:
    """Runs the demo in a scratch folder."""
    with tempfile.TemporaryDirectory(prefix="memferry-demo-") as folder:
        os.chdir(folder)
        shutil.copy(DEMO, "agents.db")
        memferry("inspect", "agents.db")
        memferry("plan", "agents.db", "copy.db")
        killed = memferry("migrate", "agents.db", "copy.db", kill_at="committed:2")
        memferry("status", "copy.db")
        codes = [
            memferry("migrate", "agents.db", "copy.db"),
            memferry("migrate", "copy.db", "memory.jsonl.zst"),
            memferry("verify", "copy.db", "memory.jsonl.zst"),
        ]
        print("\n$ head -c 300 of the JSONL", flush=True)
        codes.append(memferry("migrate", "memory.jsonl.zst", "memory.jsonl", "--quiet"))
        with Path("memory.jsonl").open(encoding="utf-8") as lines:
            document = json.loads(next(lines))
        print(json.dumps(document)[:300])
        if killed != -9 or any(codes):
            sys.exit(f"the demo failed: killed {killed}, then {codes}")


if __name__ == "__main__":
    main()
