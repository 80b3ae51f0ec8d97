"""The verb that looks at everything first: doctor."""

from __future__ import annotations

import os
import sys
import textwrap
from dataclasses import asdict
from typing import Annotated, Final

import typer

from memferry.cli.common import Json, app, guard, store_url
from memferry.cli.console import print_json, show
from memferry.phases.doctor import Check, look_at_machine, look_at_store

__all__ = ["doctor"]

_COLUMNS: Final = 80
_NAME: Final = 14


@app.command()
def doctor(
    stores: Annotated[
        list[str] | None, typer.Argument(metavar="STORE", help="store URLs; two are a source and a target")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Looks at this machine, and at stores: reach, credentials, format, disk, migrations. Changes nothing.

    Credentials come from MEMFERRY_SOURCE_... for the first store, from
    MEMFERRY_TARGET_... for the others.

    \b
    Example:
      memferry doctor agents.db qdrant://localhost/agents
    """

    def work() -> int:
        checks = [*look_at_machine(), _terminal()]
        urls = [store_url(_side(number, stores or []), text) for number, text in enumerate(stores or [])]
        for url in urls:
            checks += look_at_store(url)
        healthy = not any(check.verdict == "fail" for check in checks)
        if as_json:
            print_json({"healthy": healthy, "checks": [asdict(check) for check in checks]})
        show(_text(checks), as_json=as_json)
        return 0 if healthy else 3

    guard(work, as_json=as_json)


def _side(number: int, stores: list[str]) -> str:
    """Whose credentials: a single store may be either end."""
    variables = [f"MEMFERRY_SOURCE_{name}" for name in ("API_KEY", "PASSWORD", "CA_FILE")]
    alone = len(stores) == 1 and not any(name in os.environ for name in variables)
    return "TARGET" if number or alone else "SOURCE"


def _terminal() -> Check:
    if not sys.stderr.isatty():
        return Check("machine", "terminal", "ok", "none: progress is a line now and then")
    colours = "no colours" if os.environ.get("NO_COLOR") else "colours"
    columns = os.get_terminal_size(sys.stderr.fileno()).columns
    narrow = columns < _COLUMNS
    hint = f"reports are made for {_COLUMNS}" if narrow else None
    return Check("machine", "terminal", "warn" if narrow else "ok", f"{columns} columns, {colours}", hint)


def _text(checks: list[Check]) -> str:
    lines: list[str] = []
    about = ""
    for check in checks:
        if check.about != about:
            about = check.about
            lines += ["", about] if lines else [about]
        head = f"  {check.verdict:<5} {check.name:<{_NAME}} "
        indent = " " * 8 + " " * (_NAME + 1)
        lines += textwrap.wrap(check.detail, _COLUMNS, initial_indent=head, subsequent_indent=indent) or [head]
        if check.hint:
            # A command stays in one piece, so that it can be copied.
            lines.append(f"{indent}-> {check.hint}")
    failed = sum(check.verdict == "fail" for check in checks)
    warned = sum(check.verdict == "warn" for check in checks)
    return "\n".join([*lines, "", f"{len(checks)} checks, {warned} warnings, {failed} failed"])
