"""Both ends of a migration, for every backend, and the check of what arrived that shares no code with memferry."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from faults.running import final, run
from support.checker import Contents, differences, last_json, read_embedded, read_jsonl
from support.documents import Document, plain_documents, write_jsonl
from support.killing import Ended

__all__ = ["RECORDS", "Ends", "connected_documents"]

RECORDS: Final = 400


def connected_documents(count: int, seed: int) -> list[Document]:
    """Ordinary documents whose relations have both ends, as a graph wants them."""
    found = plain_documents(count, seed)
    entities = sorted(str(one["id"]) for one in found if one["kind"] == "entity")
    for number, one in enumerate(found):
        if one["kind"] == "relation":
            one["to_id"] = entities[number % len(entities)]
    return found


@dataclass(frozen=True)
class Ends:
    """Where a run reads and writes.

    Attributes:
        source: URL of the source.
        target: URL of the target.
        secrets: `SOURCE_PASSWORD` and the like.
        folder: For what is made beside them.
        records: What the source holds.
    """

    source: str
    target: str
    folder: Path
    records: list[Document]
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def migrate(self) -> list[str]:
        """The command."""
        return ["migrate", self.source, self.target, "--json", "--quiet", "--parallelism", "2"]

    def through(self, *, source: str | None = None, target: str | None = None) -> Ends:
        """The same stores by other addresses."""
        return replace(self, source=source or self.source, target=target or self.target)

    def finish(self, *more: str, **environment: Any) -> dict[str, Any]:
        """The command once more, to its end; it must be proven, and everything must be there."""
        ended = run(*self.migrate, *more, **self.secrets, **environment)
        return self.arrived(ended)

    def arrived(self, ended: Ended) -> dict[str, Any]:
        """Checks a run that ended: proven, books in balance, nothing missing, extra or different."""
        told = final(ended, "proven", 0)
        kinds: dict[str, dict[str, int]] = told["kinds"]
        columns = ("written", "unchanged", "deduplicated", "filtered", "conflicts", "quarantined", "nested")
        assert all(k["read"] + k["exploded"] == sum(k[c] for c in columns) for k in kinds.values()), kinds
        assert sum(k["read"] for k in kinds.values()) == len(self.records)
        assert sum(k["quarantined"] + k["conflicts"] for k in kinds.values()) == 0
        self.check()
        return told

    def check(self) -> None:
        """Nothing missing, extra or different in the target."""
        expected = read_jsonl(write_jsonl(self.folder / "expected.jsonl", self.records))
        assert differences(expected, self.read()) == []

    def read(self) -> Contents:
        """What is in the target; a server is read into a file by memferry, and the file without it."""
        if "://" not in self.target:
            path = Path(self.target.partition("?")[0])
            return read_embedded(path) if path.suffix == ".db" else read_jsonl(path)
        back = Path(tempfile.mkdtemp(dir=self.folder)) / "back.jsonl"
        secrets = {name.replace("TARGET", "SOURCE"): value for name, value in self.secrets.items()}
        ended = run("migrate", self.target, back, "--json", **secrets)
        assert ended.code == 0, ended.err
        assert last_json(ended.out)["outcome"] == "proven"
        return read_jsonl(back)
