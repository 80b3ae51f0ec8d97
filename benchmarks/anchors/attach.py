"""`ATTACH` and `INSERT ... SELECT` into the same tables and indexes: `attach.py STORE TARGET`."""

import sqlite3
import sys


def main() -> None:
    """Copies the memories."""
    path, target = sys.argv[1:]
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as source:
        schema = [row[0] for row in source.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL")]
    store = sqlite3.connect(target)
    store.execute("PRAGMA page_size = 8192")
    store.execute("PRAGMA journal_mode = wal")
    store.execute("PRAGMA synchronous = normal")
    for table in ("TABLE memory (", "TABLE memory_vector (", "VIRTUAL TABLE memory_fts "):
        store.execute(next(sql for sql in schema if sql.startswith(f"CREATE {table}")))
    store.execute("ATTACH ? AS source", (path,))
    with store:
        for table in ("memory", "memory_vector"):
            store.execute(f"INSERT INTO {table} SELECT * FROM source.{table}")  # noqa: S608 - two names of our own
        store.execute("INSERT INTO memory_fts (memory_fts) VALUES ('rebuild')")
    store.close()


if __name__ == "__main__":
    main()
