"""What happens to a record between decode and encode: map, filter, dedup.

`Deciding` in `deciding.py` looks at the source while the plan scans it; `Decisions` is what it comes to, part of the
plan and its hash; `Transform` carries that out, the same in scan, copy and proof. See `docs/mapping.md`.
"""

from __future__ import annotations

import json
import threading
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from memferry._native import Batch, check_mapping, check_where
from memferry._native import Transform as NativeTransform
from memferry.endpoint import EndpointSettings
from memferry.errors import RefusedError
from memferry.model import Quarantined, rows_with
from memferry.phases.embedding import Embedder, Embedding, Outcome

__all__ = [
    "DEDUP",
    "Applied",
    "Decisions",
    "Dedup",
    "Duplicates",
    "Transform",
    "load_mapping",
    "parse_mapping",
]

Dedup = Literal["report", "exact", "off"]
DEDUP: Final = ("report", "exact", "off")
MAX_LIMIT: Final = 100_000
"""Most records of `limit`, and most merges: both are written into the plan one by one."""
MAX_SAMPLE: Final = (1 << 63) - 1
"""What any program counts to."""
EXAMPLES: Final = 3
_FILTERED, _DEDUPLICATED, _QUARANTINED = 1, 2, 3


def load_mapping(path: Path) -> str:
    """Reads a mapping file: TOML, as JSON with sorted keys.

    Args:
        path: The file.

    Raises:
        RefusedError: `profile`, naming the file and the place in it.
    """
    try:
        return parse_mapping(path.read_bytes(), str(path))
    except OSError as error:
        raise RefusedError("profile", f"{path}: {error.strerror or error}") from error


def parse_mapping(data: bytes, name: str) -> str:
    """Reads a mapping table: TOML, as JSON with sorted keys.

    Args:
        data: The table.
        name: What to call it in errors.

    Raises:
        RefusedError: `profile`, naming it and the place in it.
    """
    try:
        table = tomllib.loads(data.decode("utf-8"))
        text = json.dumps(table, sort_keys=True, allow_nan=False, default=lambda value: value.isoformat())
        check_mapping(text)
    except (RefusedError, ValueError) as error:  # what is no TOML and no UTF-8 is a ValueError
        raise RefusedError("profile", f"{name}: {error}", hint="docs/mapping.md has an example") from error
    return text


@dataclass(frozen=True)
class Decisions:
    """Which records go on, and how. The first six are the user's, the others the plan's.

    Attributes:
        where: A CEL expression that is true for records to move.
        mapping: A mapping file in its JSON form.
        dedup: Whether records that say the same are counted, merged or not looked for.
        sample: Move only so many records, spread over all.
        limit: Move only so many records, the first ones.
        embedding: Which vectors are replaced, and by what.
        merged: Kind, id of the record that goes, id of the one it is merged into.
        largest: Largest identity of the sample, in hex.
        kept: Kind and id of the only records that go on.
    """

    where: str | None = None
    mapping: str | None = None
    dedup: Dedup = "report"
    sample: int | None = None
    limit: int | None = None
    embedding: Embedding | None = None
    merged: tuple[tuple[str, str, str], ...] = ()
    largest: str | None = None
    kept: tuple[tuple[str, str], ...] | None = None

    @property
    def partial(self) -> bool:
        """Whether some records are meant to stay behind."""
        return self.where is not None or self.sample is not None or self.limit is not None

    @property
    def alters(self) -> bool:
        """Whether the target gets anything else than what the source has."""
        return self.partial or self.mapping is not None or self.dedup == "exact" or self.embedding is not None

    def check(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            RefusedError: `invalid`, `where`, `profile`.
        """
        if self.dedup not in DEDUP:
            raise RefusedError("invalid", f"dedup: got `{self.dedup}`, allowed: {', '.join(DEDUP)}")
        if self.sample is not None and self.limit is not None:
            raise RefusedError("invalid", "sample and limit exclude each other")
        if self.dedup == "exact" and (self.sample is not None or self.limit is not None):
            raise RefusedError("invalid", "dedup `exact` needs every record; it goes with neither sample nor limit")
        for name, value, most in (("sample", self.sample, MAX_SAMPLE), ("limit", self.limit, MAX_LIMIT)):
            if value is not None and not 1 <= value <= most:
                raise RefusedError("invalid", f"{name}: got {value}, allowed: 1 to {most}")
        if self.where is not None:
            check_where(self.where)
        if self.mapping is not None:
            check_mapping(self.mapping)
        if self.embedding is not None:
            self.embedding.check()

    def changed(self, asked: Decisions) -> list[str]:
        """Names of what was asked otherwise."""
        names = ("where", "mapping", "dedup", "sample", "limit")
        changed = [name for name in names if getattr(self, name) != getattr(asked, name)]
        same = asked.embedding is None if self.embedding is None else self.embedding.same_as(asked.embedding)
        return changed if same else [*changed, "embedding"]

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Decisions:
        """Reads what `dataclasses.asdict` and JSON made of one."""
        kept = value.get("kept")
        value = {
            **value,
            "embedding": Embedding.from_json(value.get("embedding")),
            "merged": tuple((kind, loser, winner) for kind, loser, winner in value.get("merged", ())),
            "kept": None if kept is None else tuple((kind, identity) for kind, identity in kept),
        }
        return cls(**value)


@dataclass(frozen=True)
class Duplicates:
    """Records that say the same: one kind, scope, owner and text.

    Attributes:
        groups: How many texts stand more than once.
        records: How many records have one of them.
        examples: Ids of some groups, the kind first.
    """

    groups: int = 0
    records: int = 0
    examples: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Duplicates:
        """Reads what `dataclasses.asdict` and JSON made of one."""
        return cls(value["groups"], value["records"], tuple(tuple(example) for example in value["examples"]))


@dataclass(frozen=True)
class Applied:
    """What came of a batch.

    Attributes:
        records: Those that go on.
        filtered: How many stay behind, by kind.
        deduplicated: How many were merged into others, by kind.
        quarantined: Those that could not be decided or mapped.
        lost: What the mapping dropped: gap, records, id of the first.
        left_out: Those filtered and quarantined; in the target they count as present, nobody judges them.
        taken: Observations that go into the list of their entity, which may stand in another batch.
        nested: Observations that were brought into these records.
        embedded: How many get a new vector, where they are only shown as they will be.
        embedded_bytes: The bytes of their texts.
    """

    records: Batch
    filtered: tuple[tuple[str, int], ...] = ()
    deduplicated: tuple[tuple[str, int], ...] = ()
    quarantined: tuple[Quarantined, ...] = ()
    lost: tuple[tuple[str, int, str], ...] = ()
    left_out: Batch | None = None
    taken: int = 0
    nested: int = 0
    embedded: int = 0
    embedded_bytes: int = 0

    def then(self, after: Applied) -> Applied:
        """What comes of these records and of what was done with them afterwards."""
        left_out = [batch for batch in (self.left_out, after.left_out) if batch is not None]
        return replace(
            after,
            filtered=self.filtered,
            deduplicated=self.deduplicated,
            quarantined=self.quarantined + after.quarantined,
            lost=self.lost + after.lost,
            left_out=Batch.concat(left_out) if left_out else None,
        )


class Transform:
    """Carries out the decisions of a plan. Threads may share it."""

    def __init__(
        self,
        decisions: Decisions,
        accepted: tuple[str, ...] | None = None,
        endpoint: EndpointSettings | None = None,
        stop: threading.Event | None = None,
        sample: bytes | None = None,
    ) -> None:
        """Compiles the decisions.

        Args:
            decisions: What to do.
            accepted: Gaps that the mapping may drop; None for all, while they are being looked for: then nothing is
                embedded, and records are only shown as they will be.
            endpoint: How an endpoint for embeddings is asked.
            stop: Looked at before it is.
            sample: A vector that it gave, to show records as they will be.
        """
        chosen = {
            "where": decisions.where,
            "map": decisions.mapping,
            "merged": decisions.merged,
            "sample": decisions.largest,
            "kept": decisions.kept,
        }
        one_by_one = (decisions.where, decisions.mapping, decisions.largest, decisions.kept)
        nothing = not decisions.merged and all(value is None for value in one_by_one)
        self._native = None if nothing else NativeTransform(json.dumps({**chosen, "accepted": accepted}))
        self._embedder: Embedder | None = None
        self._preview = accepted is None
        if decisions.embedding is not None:
            self._embedder = Embedder(decisions.embedding, accepted, endpoint or EndpointSettings(), stop, sample)

    def apply(self, batch: Batch) -> Applied:
        """Runs over a batch."""
        applied = Applied(batch) if self._native is None else _applied(batch, self._native.apply(batch))
        if self._embedder is None:
            return applied
        records = applied.records
        if not self._preview:
            return applied.then(_applied(records, self._embedder.apply(records)))
        embedded, size = self._embedder.extent(records)
        after = _applied(records, self._embedder.preview(records))
        return applied.then(replace(after, embedded=embedded, embedded_bytes=size))


def _applied(batch: Batch, outcome: Outcome) -> Applied:
    records, fates, bad, lost = outcome
    quarantined = tuple(Quarantined(*row) for row in bad)
    filtered, merged, left_out = _counts(batch, fates, _FILTERED), _counts(batch, fates, _DEDUPLICATED), None
    if filtered or quarantined:
        left_out = batch.filter(rows_with(fates, _FILTERED, _QUARANTINED))
    return Applied(records, filtered, merged, quarantined, tuple(lost), left_out)


def _counts(batch: Batch, fates: bytes, fate: int) -> tuple[tuple[str, int], ...]:
    if fate not in fates:
        return ()
    return tuple((kind, n) for kind, n in batch.filter(bytes(f == fate for f in fates)).counts() if n)
