"""Whether what the application writes after a switch could be carried home again, as the plan sees it."""

from __future__ import annotations

import os

from memferry.backends.api import Source
from memferry.phases.plan import Plan
from memferry.urls import StoreUrl

__all__ = ["way_back_lost"]

_WRITTEN_BY_RECORD = ("embedded", "qdrant", "neo4j", "hybrid")


def way_back_lost(plan: Plan, source_url: StoreUrl, source: Source) -> list[str]:
    """What stands in the way home; nothing where it is lossless.

    Args:
        plan: The plan of the way there.
        source_url: Where home is.
        source: Home, open.
    """
    lost = []
    if not source.native:
        lost.append(f"the source has the layout of another system, profile {source.profile}")
    if plan.target["profile"] != "native":
        lost.append(f"the target has the layout of another system, profile {plan.target['profile']}")
    if source.backend not in _WRITTEN_BY_RECORD:
        lost.append(f"a {source.backend} source is written as a whole only")
    path = source_url.path
    if path is not None and not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)):
        lost.append("the source cannot be written")
    decided = plan.transform
    for name, given in (
        ("where", decided.where),
        ("mapping", decided.mapping),
        ("sample", decided.sample),
        ("limit", decided.limit),
        ("embedding", decided.embedding),
    ):
        if given is not None:
            lost.append(f"`{name}` cannot be inverted")
    if decided.dedup == "exact":
        lost.append("merged records cannot be taken apart")
    lost += [f"the gap {gap.name} drops something of {gap.records} records" for gap in plan.gaps]
    if plan.counts.get("unknown"):
        lost.append(f"{plan.counts['unknown']} rows of the source are no records")
    if plan.repeated:
        lost.append(f"{len(plan.repeated)} ids stand more than once in the source")
    return lost
