"""Several collections in one run: `qdrant://host/a,b`, `qdrant://host/notes-*`, each into a place that `{}` names."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable
from typing import Final
from urllib.parse import quote, unquote

from memferry.backends import collections_of
from memferry.errors import RefusedError
from memferry.urls import StoreUrl, parse_url

__all__ = ["PLACE", "pairs"]

PLACE: Final = "{}"
"""What the name of a collection takes the place of in the URL of a target."""
_QDRANT: Final = re.compile(r"(qdrant://[^/?#]+/)([^?#]*)(.*)", re.DOTALL)


def pairs(
    source: str, target: str, known: Callable[[StoreUrl], list[str]] | None = None
) -> list[tuple[str, str, str]] | None:
    """Name, source and target of each collection that a source URL names; None where it names one store.

    Args:
        source: URL of the source, as given.
        target: URL of the target, as given.
        known: Collections of the server behind a URL.

    Raises:
        RefusedError: `url`, where names stand twice or targets are not told apart; `store-missing`, where a pattern
            fits nothing.

    >>> pairs("qdrant://host/a,b?profile=plain", "copy-{}.db")
    [('a', 'qdrant://host/a?profile=plain', 'copy-a.db'), ('b', 'qdrant://host/b?profile=plain', 'copy-b.db')]
    >>> pairs("agents.db", "copy.db") is None
    True
    """
    found = _QDRANT.fullmatch(source)
    if found is None or not re.search(r"[,*]", found[2]):
        if PLACE in target:
            raise RefusedError(
                "url",
                f"target `{target}`: {PLACE} stands for the name of a collection, and the source names no several",
                hint="as in `memferry migrate 'qdrant://host/*' 'copy-{}.db'`",
            )
        return None
    front, wanted, rest = found.groups()
    names = _names(source, front, wanted.strip("/").split(","), rest, known or collections_of)
    if "identity=" in rest:
        raise RefusedError("url", f"store URL `{source}`: several collections cannot have one identity")
    if PLACE not in target:
        raise RefusedError(
            "url",
            f"target `{target}`: {len(names)} collections need a place each",
            hint=f"put {PLACE} where the name of the collection shall stand, as in `copy-{PLACE}.db`",
        )
    return [(name, f"{front}{quote(name, safe='')}{rest}", _placed(target, name)) for name in names]


def _placed(target: str, name: str) -> str:
    """The target of a collection; a name is a part of a file's name, never a path."""
    backend = parse_url(target.replace(PLACE, "x")).backend
    if backend not in {"embedded", "jsonl"}:
        return target.replace(PLACE, quote(name, safe=""))
    if "/" in name or "?" in name or name in {".", ".."}:
        raise RefusedError("url", f"target `{target}`: collection `{name}` cannot be the name of a file")
    return target.replace(PLACE, name)


def _names(source: str, front: str, wanted: list[str], rest: str, known: Callable[[StoreUrl], list[str]]) -> list[str]:
    names: list[str] = []
    there: list[str] | None = None
    for text in wanted:
        if not text:
            raise RefusedError("url", f"store URL `{source}`: a name between two commas is empty")
        if "*" not in text:
            names.append(unquote(text))
            continue
        if there is None:
            there = known(parse_url(f"{front}x{rest}"))
        # Only `*` means something; the brackets of other patterns are a part of names.
        pattern = "*".join(re.sub(r"[\[?]", r"[\g<0>]", unquote(part)) for part in text.split("*"))
        fitting = [name for name in there if fnmatch.fnmatchcase(name, pattern)]
        if not fitting:
            raise RefusedError("store-missing", f"store URL `{source}`: no collection is called `{text}`")
        names += [name for name in fitting if name not in names]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise RefusedError("url", f"store URL `{source}`: named twice: {', '.join(twice)}")
    return names
