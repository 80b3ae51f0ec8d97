"""A plan in a file: made and read by people today, carried out tomorrow, and only if nothing has changed."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from memferry.errors import RefusedError
from memferry.phases.plan import Plan
from memferry.phases.transform import Decisions
from memferry.stores import has_ledger
from memferry.urls import StoreUrl

__all__ = ["PLAN_FILE_FORMAT", "SavedPlan"]

PLAN_FILE_FORMAT: Final = 1
_MAX_BYTES: Final = 256 << 20


@dataclass(frozen=True)
class SavedPlan:
    """A plan and what it was made for.

    Attributes:
        plan: The plan.
        made_at: When, in UTC.
        target_there: Whether the target had been written by memferry; a store that is to be made has no identity yet.
    """

    plan: Plan
    made_at: str
    target_there: bool

    @classmethod
    def of(cls, plan: Plan, target_url: StoreUrl) -> SavedPlan:
        """A plan that was made just now."""
        return cls(plan, datetime.now(UTC).isoformat(timespec="seconds"), has_ledger(target_url))

    def save(self, path: Path) -> None:
        """Writes the file, whole or not at all.

        Raises:
            RefusedError: `invalid`, it cannot be written.
        """
        value = {
            "memferry_plan": PLAN_FILE_FORMAT,
            "made_at": self.made_at,
            "target_there": self.target_there,
            "plan": json.loads(self.plan.to_json()),
        }
        new = Path(f"{path}.new")  # `.` has no name to be changed
        try:
            new.write_text(json.dumps(value, indent=1) + "\n", "utf-8")
            os.replace(new, path)  # noqa: PTH105 - says that it replaces
        except OSError as error:
            with suppress(OSError):
                new.unlink(missing_ok=True)
            raise RefusedError("invalid", f"the plan cannot be saved to {path}: {error.strerror}") from error

    @classmethod
    def load(cls, path: Path) -> SavedPlan:
        """Reads what `save` wrote.

        Raises:
            RefusedError: `invalid` where it is no plan; `format-newer`.
        """
        try:
            with path.open("rb") as file:
                value: Any = json.loads(file.read(_MAX_BYTES))
            if value["memferry_plan"] > PLAN_FILE_FORMAT:
                raise RefusedError("format-newer", f"{path}: plan file of format {value['memferry_plan']}")
            plan = Plan.from_json(json.dumps(value["plan"]))
            return cls(plan, str(value["made_at"]), bool(value["target_there"]))
        except OSError as error:
            raise RefusedError("invalid", f"{path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            hint = "`memferry plan SRC DST --save FILE` writes one"
            raise RefusedError("invalid", f"{path} is no plan of memferry", hint=hint) from error

    def asked(self) -> Decisions:
        """What the user chose of records when the plan was made."""
        made = self.plan.transform
        return Decisions(
            made.where, made.mapping, made.dedup, made.sample, made.limit, made.embedding and made.embedding.as_asked()
        )

    def check(self, now: Plan) -> None:
        """Compares with the plan that would be made now.

        Raises:
            RefusedError: `plan-changed`, naming everything that has changed.
        """
        then = self.plan
        changes = [
            f"the {side} is {here['identity']} with profile {here['profile']}, planned was {there['identity']} "
            f"with profile {there['profile']}"
            for side, here, there in (("source", now.source, then.source), ("target", now.target, then.target))
            if self._store(side, here) != self._store(side, there)
        ]
        if now.source_total != then.source_total:
            counts = ", ".join(
                f"{kind} {then.counts.get(kind, 0):,} -> {now.counts.get(kind, 0):,}"
                for kind in {**then.counts, **now.counts}
                if then.counts.get(kind) != now.counts.get(kind)
            )
            changes.append(f"the source has changed ({counts or 'the same number of records, with other contents'})")
        if (now.target_records, now.existing, now.target_total) != (
            then.target_records,
            then.existing,
            then.target_total,
        ):
            changes.append(f"the target has changed (records {then.target_records:,} -> {now.target_records:,})")
        if now.accept != then.accept:
            changes.append(f"accepted gaps are {list(now.accept)}, planned were {list(then.accept)}")
        changes += [f"`{name}` is another one" for name in then.transform.changed(now.transform)]
        if changes:
            raise RefusedError(
                "plan-changed",
                f"since the plan of {self.made_at}: {'; '.join(changes)}",
                hint="make a new plan, look at it, and save it again",
            )

    def _store(self, side: str, store: dict[str, str]) -> tuple[str | None, ...]:
        identity = store["identity"] if side == "source" or self.target_there else None
        return store["backend"], store["profile"], identity
