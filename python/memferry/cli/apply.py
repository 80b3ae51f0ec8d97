"""What `memferry apply` does: the MemoryMigrations of a manifest, as this machine runs them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

from memferry.cli.common import Shown, Talk, stop_on_signals
from memferry.cli.console import failure, print_json, say, show, tell
from memferry.cli.local import Local, local
from memferry.cli.several import One, migrate_all, migrate_one
from memferry.errors import MemferryError, RefusedError
from memferry.manifest import Manifest, load_manifest, read_manifest
from memferry.urls import StoreUrl

__all__ = ["apply"]


def apply(file: str, talk: Talk, *, dry_run: bool) -> None:
    """Runs the migrations of a manifest, and exits.

    Args:
        file: The manifest, `-` for stdin.
        talk: How it is told.
        dry_run: Validate only.
    """
    stdin = cache(_stdin)  # It can be read only once.

    def stores() -> list[StoreUrl]:
        manifest = _read(file, stdin)
        chosen = [local(manifest, migration) for migration in manifest.migrations()]
        return [url for one in chosen for url in (one.source, one.target)]

    def work(progress: Shown) -> tuple[int, str | None]:
        manifest = _read(file, stdin)
        chosen = [local(manifest, migration) for migration in manifest.migrations()]
        suspended = [m.metadata.name for m in manifest.migrations() if m.spec.suspend]
        for one in chosen:
            if one.left_out:
                say(f"{one.name}: only acted upon in a cluster: {', '.join(one.left_out)}")
        if dry_run:
            _valid(manifest, chosen, talk)
            return 0, None
        if not chosen:
            raise RefusedError("manifest", f"{file}: there is no MemoryMigration in it")
        if suspended:
            raise RefusedError("manifest", f"{file}: spec.suspend is true, nothing is begun: {', '.join(suspended)}")
        return _run(chosen, talk, progress)

    talk.run(work, stores)


def _stdin() -> bytes:
    return sys.stdin.buffer.read()


def _read(file: str, stdin: Callable[[], bytes]) -> Manifest:
    if file == "-":
        return load_manifest(stdin(), "stdin", Path.cwd())
    return read_manifest(Path(file))


def _valid(manifest: Manifest, chosen: list[Local], talk: Talk) -> None:
    if talk.as_json:
        migrations = [
            {"name": one.name, "source": one.source.text, "target": one.target.text, "left_out": one.left_out}
            for one in chosen
        ]
        print_json({"valid": True, "resources": len(manifest.documents), "migrations": migrations})
        return
    for one in chosen:
        show(f"{one.name}: {one.source.text} -> {one.target.text}", as_json=False)
    show(f"{manifest.file}: {len(manifest.documents)} resources, valid; nothing was done", as_json=False)


def _run(chosen: list[Local], talk: Talk, progress: Shown) -> tuple[int, str | None]:
    """Runs one migration as `migrate` does, several with one final object."""
    ones = [One(one.name, one.source, one.target, one.options, one.stop_after, one.left_out) for one in chosen]
    stop = stop_on_signals()
    if len(ones) > 1:
        return migrate_all(ones, talk, progress, stop)
    try:
        code, final = migrate_one(ones[0], talk, progress, stop)
    except MemferryError as error:
        code, final = tell(error), failure(error)
    if talk.as_json:
        print_json(ones[0].told(final))
    return code, final["outcome"]
