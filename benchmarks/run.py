"""Benchmarks: ratios of two things done side by side in one run. `make bench`, or `--only NAME`, `--records N`."""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from graph import neo4j
from local import copy, keys, memory, read
from measure import ROOT, Row
from points import qdrant

sys.path.append(str(ROOT / "tests"))  # The testbed starts the servers.

PARTS: dict[str, tuple[Callable[[Path, int], list[Row]], float]] = {
    "read": (read, 1.0),
    "copy": (copy, 0.2),
    "memory": (memory, 1.0),
    "keys": (keys, 1.0),
    "qdrant": (qdrant, 0.1),
    "neo4j": (neo4j, 0.2),
}
"""Each with the part of `--records` that it takes."""


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS, help="these parts, all without it")
    parser.add_argument("--records", type=int, default=1_000_000, help="records of the largest store (1,000,000)")
    arguments = parser.parse_args()
    print(f"Python {platform.python_version()}, memferry {version('memferry')}, {os.cpu_count()} cores", flush=True)
    print("| what | against | reach | measured | |\n|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="memferry-bench-") as name:
        for part in arguments.only or PARTS:
            measure, share = PARTS[part]
            began = time.monotonic()
            for row in measure(Path(name), int(arguments.records * share)):
                print(row, flush=True)
            print(f"{part}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
