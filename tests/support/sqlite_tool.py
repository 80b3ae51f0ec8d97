"""Run as a script: executes statements on a SQLite file, read as JSON from stdin; prints how many rows they changed.

A process of its own, for a second SQLite library in one process drops the locks of the first. Parameters that are
`{"hex": ...}` are blobs. `{"path", "statements": [[sql, [parameter]]], "kinds": [kind]}`; the full-text index of
`kinds` is rebuilt, as an application that keeps it would.
"""

import json
import sqlite3
import sys
from typing import Any


def _plain(value: Any) -> Any:
    return bytes.fromhex(value["hex"]) if isinstance(value, dict) else value


def main() -> None:
    """Runs what stdin says."""
    work = json.load(sys.stdin)
    connection = sqlite3.connect(work["path"])
    changed = 0
    with connection:
        for sql, parameters in work["statements"]:
            cursor = connection.execute(sql, [_plain(value) for value in parameters])
            changed += max(0, cursor.rowcount)
        for kind in work["kinds"]:
            connection.execute(f"INSERT INTO {kind}_fts ({kind}_fts) VALUES ('rebuild')")
    connection.close()
    sys.stdout.write(f"{changed}\n")


if __name__ == "__main__":
    main()
