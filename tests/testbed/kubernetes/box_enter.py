"""Join cgroups, then become another program: `python box_enter.py CGROUP... -- PROGRAM ARG...`."""

import os
import sys
from pathlib import Path


def main() -> None:
    """Join, then exec."""
    at = sys.argv.index("--")
    for group in sys.argv[1:at]:
        (Path(group) / "cgroup.procs").write_text(str(os.getpid()))
    os.execvp(sys.argv[at + 1], sys.argv[at + 1 :])


if __name__ == "__main__":
    main()
