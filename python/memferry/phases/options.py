"""What a user may choose of a run, how its course is told, and how it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from memferry.endpoint import EndpointSettings
from memferry.errors import MemferryError
from memferry.model import Limits, OnConflict, OnExisting
from memferry.phases.transform import Decisions

__all__ = ["Options", "Progress", "Stop"]

Progress = Callable[[str, int, int | None], None]
"""Called with phase, records so far, records in all (or None)."""


class Stop(threading.Event):
    """Set by a signal; phases look at it between pages."""

    def check(self) -> None:
        """Raises `interrupted` once the event is set."""
        if self.is_set():
            raise MemferryError("interrupted", "interrupted", hint="the same command resumes")


@dataclass(frozen=True)
class Options:
    """What a user may choose.

    Attributes:
        accept: Gaps accepted by name.
        on_existing: What to do with records that someone else wrote.
        on_conflict: What to do with records that changed in the target since we wrote them.
        delete: Carry deletions.
        max_deletes_percent: Refuse to delete more than this share of the target.
        max_quarantined: Quarantined records that still count as success.
        parallelism: Ranges at a time.
        source_frozen: Not proven if the source changed between plan and proof, whatever the target holds.
        limits: Bounds of a page.
        parity: How many searches both ends are asked for comparison, after the proof; 0 for none.
        neighbours: How many answers each of them is to give.
        min_recall: Not proven if the target finds less than this share of the nearest neighbours.
        transform: Which records go on, and how.
        endpoint: How an endpoint for embeddings is asked.
        max_records_per_second: No faster than this, on the whole.
    """

    accept: tuple[str, ...] = ()
    on_existing: OnExisting = "refuse"
    on_conflict: OnConflict = "keep"
    delete: bool = False
    max_deletes_percent: float = 10.0
    max_quarantined: int = 0
    parallelism: int = 2
    source_frozen: bool = False
    limits: Limits = field(default_factory=Limits)
    parity: int = 0
    neighbours: int = 10
    min_recall: float | None = None
    transform: Decisions = field(default_factory=Decisions)
    endpoint: EndpointSettings = field(default_factory=EndpointSettings)
    max_records_per_second: float | None = None
