"""Every error memferry raises: one tree, stable codes, exit codes.

    MemferryError
    ├── RefusedError     exit 2: asked for something that is not done
    │   └── ManifestError    with everything that is wrong in a manifest
    ├── StoreError       exit 3: a store failed
    │   └── TransientError   worth trying again
    │       ├── FrozenError      writes wait for a switch
    │       ├── LeaseLostError   this client is not counted on any more
    │       └── InDoubtError     a write that may have been done or not
    └── NotProvenError   exit 1: it ran, and the proof failed

The native module raises through `from_native`; `CATALOGUE` is what `docs/errors.md` is checked against.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = [
    "CATALOGUE",
    "FrozenError",
    "InDoubtError",
    "LeaseLostError",
    "ManifestError",
    "MemferryError",
    "NotProvenError",
    "Problem",
    "RefusedError",
    "StoreError",
    "TransientError",
    "from_native",
]

CATALOGUE: Final[dict[str, str]] = {
    # raised by the native module
    "invalid": "a value, name or option that is not allowed",
    "profile": "a profile table or mapping file that contradicts itself",
    "where": "a filter that does not compile or does not answer yes or no",
    "store-missing": "there is no store where it was said to be",
    "store-format": "what is there is not the store that was named",
    "format-newer": "written by a newer memferry",
    "store-locked": "locked by another program",
    "store-corrupt": "the store is damaged",
    "disk-full": "no space is left",
    "fenced": "another run has taken the migration over, or another process the place of this client",
    "unavailable": "the store cannot be reached or does not answer",
    "throttled": "the store asked to be called later",
    "unauthorized": "the store refused the credentials",
    "refused": "the store refused the request",
    "io": "the operating system failed",
    # raised by the plan and the phases
    "url": "a store URL that cannot be read",
    "manifest": "a manifest that is not what it should be",
    "gap": "the target cannot hold something the source has, and it was not accepted",
    "existing": "the first run would overwrite records that are already there",
    "repeated-id": "two records would have one id in the target",
    "plan-changed": "an unfinished run is bound to another plan",
    "busy": "another run of this migration is at work",
    "no-migration": "the target knows no such migration",
    "rolling-back": "a rollback of this migration has not come to its end",
    "max-deletes": "more records would be deleted than allowed",
    "not-native": "not possible with this profile",
    "unsupported": "this kind of store cannot do what was asked",
    "books": "the books do not balance, which is a defect of memferry",
    "not-proven": "both ends differ, or more is quarantined or in conflict than allowed",
    "journal": "the journal of a binding has gone on, or says something else",
    "interrupted": "stopped by a signal; the same command resumes",
    "extra-missing": "an optional package is not installed",
    # raised by a client of a MemoryBinding, and by the verbs that talk to a cluster
    "cluster": "the API server refused or cannot be reached",
    "binding": "the MemoryBinding, or the store it names, is not there yet",
    "frozen": "writes are frozen for a switch, longer than the caller would wait",
    "lease-lost": "the client cannot renew its Lease, so nobody waits for it and it may not write",
    "in-doubt": "a write was under way when the client's Lease ran out; it may have been done or not",
}

_REFUSALS: Final = frozenset(
    {"invalid", "profile", "where", "store-missing", "store-format", "format-newer", "unauthorized"},
)

_PROBLEMS_SHOWN: Final = 10


class MemferryError(Exception):
    """Base of all errors.

    Attributes:
        code: Stable slug, a key of `CATALOGUE`.
        hint: What to do about it, or None.
        exit_code: What the command line exits with.
    """

    exit_code = 3

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        if code not in CATALOGUE:
            message = f"{message} (unlisted error code {code})"
        super().__init__(message)
        self.code = code
        self.hint = hint


class RefusedError(MemferryError):
    """What was asked is not done; nothing was written."""

    exit_code = 2


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        resource: Kind and name, as far as they are known.
        path: Field, as in `spec.transfer.shards`; empty for the document.
        line: Line in the file, from 1.
        text: What was got and what is allowed.
    """

    resource: str
    path: str
    line: int | None
    text: str


class ManifestError(RefusedError):
    """A manifest that is not what it should be.

    Attributes:
        problems: Everything that is wrong.
    """

    def __init__(self, file: str, problems: list[Problem]) -> None:
        lines = [
            f"{file}{f':{p.line}' if p.line else ''}: {' '.join(x for x in (p.resource, p.path) if x)}: {p.text}"
            for p in problems[:_PROBLEMS_SHOWN]
        ]
        if len(problems) > _PROBLEMS_SHOWN:
            lines.append(f"and {len(problems) - _PROBLEMS_SHOWN} more")
        super().__init__("manifest", "\n".join(lines))
        self.problems = problems


class StoreError(MemferryError):
    """A store failed for good."""


class TransientError(StoreError):
    """A store failed in a way that may pass.

    Attributes:
        retry_after_secs: How long the store asked to wait, or None.
    """

    def __init__(self, code: str, message: str, *, retry_after_secs: float | None = None) -> None:
        super().__init__(code, message)
        self.retry_after_secs = retry_after_secs


class FrozenError(TransientError):
    """Writes are frozen for a switch, longer than the caller would wait; nothing was written."""


class LeaseLostError(TransientError):
    """The client cannot renew its Lease, so a switch does not wait for it: nothing was written."""


class InDoubtError(TransientError):
    """A write was under way when the Lease ran out: it may be lost by a switch, or not.

    Do it again: a put and a delete can be done twice.
    """


class NotProvenError(MemferryError):
    """It ran to its end and the result is not what it should be."""

    exit_code = 1


def from_native(code: str, message: str, retry_after_secs: float | None) -> MemferryError:
    """Makes the exception for an error of the native module.

    Args:
        code: Slug of the native error.
        message: Its text.
        retry_after_secs: How long the store asked to wait.
    """
    if code in {"store-locked", "unavailable", "throttled"}:
        return TransientError(code, message, retry_after_secs=retry_after_secs)
    if code in _REFUSALS:
        return RefusedError(code, message)
    return StoreError(code, message)
