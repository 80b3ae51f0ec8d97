"""What a person sees: data to stdout, talk to stderr."""

from __future__ import annotations

import codecs
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from memferry.errors import ManifestError, MemferryError

if TYPE_CHECKING:
    from stamina.instrumentation import RetryDetails

__all__ = ["fail", "failure", "one_line", "print_json", "say", "show", "talking_to", "tell", "tell_retry", "terminal"]

_err = Console(stderr=True, highlight=False)
_listener: list[Callable[[str], None]] = []
"""Who is told instead of stderr, at most one."""


def terminal() -> Console | None:
    """The console of stderr; None while stderr is not for people."""
    return None if _listener else _err


@contextmanager
def talking_to(listener: Callable[[str], None]) -> Iterator[None]:
    """Tells `listener` what would go to stderr while the block runs."""
    _listener.append(listener)
    try:
        yield
    finally:
        _listener.pop()


def _printable(text: str) -> str:
    """A text as a terminal may be given it: ids and texts of records may hold what would move its cursor.

    >>> _printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def say(text: str, style: str = "") -> None:
    """A line for people, to stderr."""
    if not _listener:
        with suppress(OSError):  # Nobody can be told, and the work is as good as it was.
            _err.print(Text(_printable(text), style=style), soft_wrap=True)
    elif text:
        _listener[-1](text)


def show(text: str, *, as_json: bool) -> None:
    """A report for people: to stdout, unless that is kept for the final object."""
    text = _printable(text)
    if not as_json:
        sys.stdout.write(text + "\n")
    elif not _listener:
        with suppress(OSError):  # as in `say`
            sys.stderr.write(text + "\n")


def tell_retry(details: RetryDetails) -> None:
    """Says why nothing happens for a while."""
    say(f"{details.caused_by}; trying again in {details.wait_for:.1f} s", "yellow")


def one_line(value: Any) -> str:
    """A value as JSON for programs: UTF-8, whatever stands in a name that is not.

    >>> one_line({"é": "\\udcff"})
    '{"é": "\\\\udcff"}'
    """
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def print_json(value: Any) -> None:
    """The final object, one line, to stdout."""
    encoding = codecs.lookup(sys.stdout.encoding or "utf-8").name
    sys.stdout.write((one_line(value) if encoding == "utf-8" else json.dumps(value)) + "\n")


def failure(error: MemferryError, *, migration: str | None = None) -> dict[str, Any]:
    """The final object of what did not come to its end."""
    outcome = {1: "not_proven", 2: "refused"}.get(error.exit_code, "failed")
    outcome = "interrupted" if error.code == "interrupted" else outcome
    told: dict[str, Any] = {"code": error.code, "message": str(error)}
    if error.hint:
        told["hint"] = error.hint
    if isinstance(error, ManifestError):
        told["problems"] = [asdict(problem) for problem in error.problems]
    return {"migration": migration, "outcome": outcome, "error": told}


def tell(error: MemferryError) -> int:
    """Tells an error to people, once; the exit code."""
    say(f"error[{error.code}]: {error}", "bold red")
    if error.hint:
        say("")
        say(f"hint: {error.hint}", "cyan")
    return 130 if error.code == "interrupted" else error.exit_code


def fail(error: MemferryError, *, as_json: bool, migration: str | None = None) -> int:
    """Tells an error once; the exit code."""
    code = tell(error)
    if as_json:
        with suppress(OSError):  # It may be stdout that failed.
            print_json(failure(error, migration=migration))
    return code
