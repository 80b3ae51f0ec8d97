"""Plain Python over an embedded store: sqlite3, json, hashlib. `read_store.py STORE ROWS` prints rows a CPU second.

Does what memferry does with a row: reads every column, checks that `extra` is canonical, makes the canonical text of
the record, a digest of it with the bytes of the vector, and the key by which equal texts are found.
"""

import hashlib
import json
import sqlite3
import sys
import time
import unicodedata


def main() -> None:
    """Reads the memories of the store."""
    began, rows = time.process_time(), 0
    store = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
    found = store.execute(
        "SELECT m.*, v.* FROM memory m JOIN memory_vector v ON vector_id = seq * 256 LIMIT ?", (int(sys.argv[2]),)
    )
    names = [column[0] for column in found.description]
    for row in found:
        record = {name: value for name, value in zip(names, row, strict=True) if value is not None}
        vector = record.pop("data")
        record.pop("marker_digest", None)
        if tags := record.get("tags"):
            record["tags"] = json.loads(tags)
        if extra := record.get("extra"):
            record["extra"] = json.loads(extra)
            assert json.dumps(record["extra"], sort_keys=True, separators=(",", ":"), ensure_ascii=False) == extra
        text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        hashlib.sha256(text.encode() + vector).digest()
        key = unicodedata.normalize("NFC", record["content"].strip())
        hashlib.sha256(key.encode()).digest()
        rows += 1
    print(rows / (time.process_time() - began))


if __name__ == "__main__":
    main()
