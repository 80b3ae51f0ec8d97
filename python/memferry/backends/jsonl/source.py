"""Reading a JSONL file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from memferry._native import JsonlReader, Mapper, jsonl_align
from memferry.model import Limits, Page, Quarantined, Range, Stream
from memferry.profiles import load_mapper

__all__ = ["JsonlSource"]

STREAM = "lines"


class JsonlSource:
    """A JSONL file, plain or compressed. One stream; keys are byte offsets of the unpacked text."""

    backend = "jsonl"

    def __init__(
        self, path: Path, profile: str = "native", identity: str | None = None, mapper: Mapper | None = None
    ) -> None:
        # How it is packed says the name of the file, not that of a link to it: a target is written so.
        self._path = path.resolve()
        self._mapper = mapper or load_mapper(profile, "document")
        self._seekable = JsonlReader(self._path).seekable
        self.profile = profile
        self.native = profile == "native"
        self.identity = identity or f"jsonl:{self._path}"

    def streams(self) -> list[Stream]:
        """The one stream; how many lines it has is known after reading them."""
        kinds = set(self._mapper.kinds) | ({"observation"} if self._mapper.nests_observations else set())
        return [Stream(STREAM, tuple(sorted(kinds)), None, self._path.stat().st_size)]

    def split(self, stream: Stream, parts: int) -> list[tuple[str | None, str | None]]:  # noqa: ARG002
        """Cuts at line starts; a compressed file is one slice."""
        size = self._path.stat().st_size
        if not self._seekable or parts < 2:
            return [(None, None)]
        offsets = {jsonl_align(self._path, size * i // parts) for i in range(1, parts)}
        cuts = [str(offset) for offset in sorted(offsets - {0, size})]
        return list(zip([None, *cuts], [*cuts, None], strict=True))

    def reader(self) -> JsonlFileReader:
        """A reader with a file handle of its own."""
        return JsonlFileReader(JsonlReader(self._path), self._mapper)

    def witness(self) -> str:
        """A hash of the file: ranges are offsets in it."""
        with self._path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()[:32]

    def close(self) -> None:
        """File handles end with their objects."""


class JsonlFileReader:
    """Reads pages of lines by offset."""

    def __init__(self, lines: JsonlReader, mapper: Mapper) -> None:
        self._lines = lines
        self._mapper = mapper

    def read(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        """See `memferry.backends.api.Reader`."""
        start = int(cursor or part.start or 0)
        until = int(part.end) if part.end else None
        raw, read, following = self._lines.read_page(start, until, limits.records, limits.size_bytes)
        records, bad, exploded = self._mapper.decode(raw)
        quarantined = [Quarantined(*row) for row in bad]
        return Page(records, quarantined, read, exploded, None if following is None else str(following))
