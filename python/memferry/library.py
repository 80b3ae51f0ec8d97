"""The verbs of the command line as functions: plan, migrate, verify, rollback."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from memferry._native import gap_names
from memferry.backends.api import Target
from memferry.endpoint import EndpointSettings, settings_from_environment
from memferry.errors import RefusedError
from memferry.ledger import Ledger, migrations
from memferry.model import OnConflict, OnExisting
from memferry.phases import migrate as phases
from memferry.phases.embedding import Embedding
from memferry.phases.migrate import Result
from memferry.phases.plan import Options, Plan, Progress, Stop
from memferry.phases.rollback import RolledBack
from memferry.phases.rollback import rollback as roll_back
from memferry.phases.transform import Decisions, Dedup, load_mapping
from memferry.stores import ledger_hint, open_target, read_ledger
from memferry.urls import Secrets, StoreUrl, parse_url, secrets_from_environment

__all__ = ["choose", "find_ledger", "migrate", "open_known", "plan", "rollback", "store_url", "verify"]

Place = str | os.PathLike[str] | StoreUrl


def _silent(phase: str, done: int, total: int | None) -> None:
    """Tells nobody."""


def store_url(side: str, url: Place, secrets: Secrets | None = None) -> StoreUrl:
    """Reads a URL; the credentials are those given, or those of the environment.

    Args:
        side: `SOURCE` or `TARGET`, for the names of the variables.
        url: A store URL, a path, or a parsed URL (as `hybrid_url` makes one), which has its credentials in it.
        secrets: Credentials.
    """
    if isinstance(url, StoreUrl):
        return url
    return replace(parse_url(os.fspath(url)), secrets=secrets or secrets_from_environment(side))


def _one_of(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise RefusedError("invalid", f"{name}: got `{value}`, allowed: {', '.join(allowed)}")


def choose(
    *,
    accept: Iterable[str] = (),
    on_existing: str = "refuse",
    on_conflict: str = "keep",
    max_deletes_percent: float = 10.0,
    max_quarantined: int = 0,
    parallelism: int = 2,
    parity: int = 0,
    min_recall: float | None = None,
    where: str | None = None,
    mapping: str | os.PathLike[str] | None = None,
    dedup: str = "report",
    sample: int | None = None,
    limit: int | None = None,
    embedding: Embedding | None = None,
    endpoint: EndpointSettings | None = None,
    transform: Decisions | None = None,
    **others: object,
) -> Options:
    """Checks what the user chose.

    Raises:
        RefusedError: `invalid`, with what is allowed.
    """
    known = gap_names()
    gaps = tuple(sorted(set(accept)))
    for gap in gaps:
        _one_of("accept", gap, tuple(known))
    _one_of("on-existing", on_existing, ("refuse", "keep", "overwrite"))
    _one_of("on-conflict", on_conflict, ("keep", "source"))
    if not 0 <= max_deletes_percent <= 100:  # neither is NaN
        raise RefusedError("invalid", f"max-deletes: got {max_deletes_percent}, a percentage from 0 to 100 is needed")
    if max_quarantined < 0:
        raise RefusedError("invalid", f"max-quarantined: got {max_quarantined}, a number of records is needed")
    if parallelism < 1:
        raise RefusedError("invalid", f"parallelism: got {parallelism}, at least 1 is needed")
    if parity < 0:
        raise RefusedError("invalid", f"parity: got {parity}, a number of searches is needed")
    if min_recall is not None and not (parity and 0 <= min_recall <= 1):
        raise RefusedError("invalid", f"min-recall: got {min_recall}, a share from 0 to 1 and a parity are needed")
    decisions = transform or Decisions(
        where=where,
        mapping=None if mapping is None else load_mapping(Path(mapping)),
        dedup=dedup,  # type: ignore[arg-type] # `check` refuses others
        sample=sample,
        limit=limit,
        embedding=embedding,
    )
    decisions.check()
    return Options(
        accept=gaps,
        on_existing=on_existing,  # type: ignore[arg-type]
        on_conflict=on_conflict,  # type: ignore[arg-type]
        max_deletes_percent=max_deletes_percent,
        max_quarantined=max_quarantined,
        parallelism=parallelism,
        parity=parity,
        min_recall=min_recall,
        transform=decisions,
        # A run that is taken up goes on with the endpoint that is named now.
        endpoint=replace(
            endpoint or settings_from_environment(), url=decisions.embedding.url if decisions.embedding else None
        ),
        **others,  # type: ignore[arg-type]
    )


def plan(
    source: Place,
    target: Place,
    *,
    accept: Iterable[str] = (),
    on_existing: OnExisting = "refuse",
    where: str | None = None,
    mapping: str | os.PathLike[str] | None = None,
    dedup: Dedup = "report",
    sample: int | None = None,
    limit: int | None = None,
    embedding: Embedding | None = None,
    endpoint: EndpointSettings | None = None,
    parallelism: int = 2,
    source_secrets: Secrets | None = None,
    target_secrets: Secrets | None = None,
    progress: Progress = _silent,
    stop: Stop | None = None,
) -> Plan:
    """Reads both ends and says what a migration would do. Writes nothing.

    Args:
        source: Store URL, as in `agents.db` or `jsonl:memory.jsonl`.
        target: Store URL.
        accept: Gaps to accept by name.
        on_existing: What to do with records of others that have ids of the source.
        where: A CEL expression that is true for records to move.
        mapping: A mapping file, see `docs/mapping.md`.
        dedup: Whether records that say the same are counted, merged or not looked for.
        sample: Move only so many records, spread over all.
        limit: Move only so many records, the first ones.
        embedding: Replace vectors by those of another model.
        endpoint: How its endpoint is asked; the key is that of `MEMFERRY_EMBEDDING_API_KEY` where this is not given.
        parallelism: Ranges at a time.
        source_secrets: Credentials; from `MEMFERRY_SOURCE_API_KEY`, `_PASSWORD`, `_CA_FILE` where none are given.
        target_secrets: The same, from `MEMFERRY_TARGET_...`.
        progress: Called after every page with phase, records so far and records in all, from any thread.
        stop: Set it to end between two pages.

    Raises:
        RefusedError: What would be refused: `gap`, `existing`, `repeated-id` and others.
        MemferryError: `interrupted`, or a store failed.

    >>> import memferry, tempfile, os
    >>> folder = tempfile.mkdtemp()
    >>> with memferry.open(os.path.join(folder, "a.db")) as store:
    ...     _ = store.put(memferry.Record("memory", "m1", content="Ann likes tea"))
    >>> memferry.plan(os.path.join(folder, "a.db"), os.path.join(folder, "b.jsonl")).counts
    {'memory': 1}
    """
    chosen = choose(
        accept=accept,
        on_existing=on_existing,
        where=where,
        mapping=mapping,
        dedup=dedup,
        sample=sample,
        limit=limit,
        embedding=embedding,
        endpoint=endpoint,
        parallelism=parallelism,
    )
    ends = store_url("SOURCE", source, source_secrets), store_url("TARGET", target, target_secrets)
    return phases.plan_only(*ends, chosen, progress=progress, stop=stop)


def migrate(
    source: Place,
    target: Place,
    *,
    accept: Iterable[str] = (),
    on_existing: OnExisting = "refuse",
    on_conflict: OnConflict = "keep",
    delete: bool = False,
    max_deletes_percent: float = 10.0,
    max_quarantined: int = 0,
    where: str | None = None,
    mapping: str | os.PathLike[str] | None = None,
    dedup: Dedup = "report",
    sample: int | None = None,
    limit: int | None = None,
    embedding: Embedding | None = None,
    endpoint: EndpointSettings | None = None,
    parallelism: int = 2,
    parity: int = 0,
    min_recall: float | None = None,
    source_secrets: Secrets | None = None,
    target_secrets: Secrets | None = None,
    progress: Progress = _silent,
    stop: Stop | None = None,
) -> Result:
    """Plans, copies, verifies. The same call resumes what was interrupted, and syncs what was done.

    Args:
        source: Store URL, as in `agents.db` or `jsonl:memory.jsonl`.
        target: Store URL.
        accept: Gaps to accept by name.
        on_existing: What to do with records of others that have ids of the source.
        on_conflict: What to do with records that were changed in the target since they were written.
        delete: Carry deletions, last.
        max_deletes_percent: Refuse to delete more than this share.
        max_quarantined: Quarantined records that are still a success.
        where: A CEL expression that is true for records to move.
        mapping: A mapping file, see `docs/mapping.md`.
        dedup: Whether records that say the same are counted, merged or not looked for.
        sample: Move only so many records, spread over all.
        limit: Move only so many records, the first ones.
        embedding: Replace vectors by those of another model.
        endpoint: How its endpoint is asked; the key is that of `MEMFERRY_EMBEDDING_API_KEY` where this is not given.
        parallelism: Ranges at a time.
        parity: How many searches both ends are asked for comparison, after the proof.
        min_recall: Not proven if the target finds less than this share of the nearest neighbours.
        source_secrets: Credentials; from `MEMFERRY_SOURCE_API_KEY`, `_PASSWORD`, `_CA_FILE` where none are given.
        target_secrets: The same, from `MEMFERRY_TARGET_...`.
        progress: Called after every page with phase, records so far and records in all, from any thread.
        stop: Set it to end between two pages.

    Returns:
        What it came to: look at `outcome`; nothing is raised for a run that came to its end unproven.

    Raises:
        RefusedError: Before anything is written.
        MemferryError: `interrupted`, or a store failed.

    >>> import memferry, tempfile, os
    >>> folder = tempfile.mkdtemp()
    >>> with memferry.open(os.path.join(folder, "a.db")) as store:
    ...     _ = store.put(memferry.Record("memory", "m1", content="Ann likes tea"))
    >>> memferry.migrate(os.path.join(folder, "a.db"), os.path.join(folder, "b.jsonl")).outcome
    'proven'
    """
    chosen = choose(
        accept=accept,
        on_existing=on_existing,
        on_conflict=on_conflict,
        delete=delete,
        max_deletes_percent=max_deletes_percent,
        max_quarantined=max_quarantined,
        where=where,
        mapping=mapping,
        dedup=dedup,
        sample=sample,
        limit=limit,
        embedding=embedding,
        endpoint=endpoint,
        parallelism=parallelism,
        parity=parity,
        min_recall=min_recall,
    )
    ends = store_url("SOURCE", source, source_secrets), store_url("TARGET", target, target_secrets)
    return phases.migrate(*ends, chosen, progress=progress, stop=stop)


def verify(
    source: Place,
    target: Place,
    *,
    parallelism: int = 2,
    parity: int = 0,
    min_recall: float | None = None,
    source_secrets: Secrets | None = None,
    target_secrets: Secrets | None = None,
    progress: Progress = _silent,
    stop: Stop | None = None,
) -> Result:
    """Reads both ends of a migration completely and compares every record.

    Args:
        source: Store URL.
        target: Store URL.
        parallelism: Ranges at a time.
        parity: As for `migrate`.
        min_recall: As for `migrate`.
        source_secrets: As for `migrate`.
        target_secrets: As for `migrate`.
        progress: As for `migrate`.
        stop: As for `migrate`.

    Raises:
        RefusedError: `no-migration`.
        MemferryError: `interrupted`, or a store failed.
    """
    ends = store_url("SOURCE", source, source_secrets), store_url("TARGET", target, target_secrets)
    chosen = choose(parallelism=parallelism, parity=parity, min_recall=min_recall)
    return phases.verify_only(*ends, chosen, progress=progress, stop=stop)


def rollback(
    target: Place,
    *,
    migration: str | None = None,
    secrets: Secrets | None = None,
    stop: Stop | None = None,
) -> RolledBack:
    """Takes out what a migration wrote and puts back what it wrote over.

    Args:
        target: Store URL.
        migration: Id, where the target knows several.
        secrets: Credentials; from `MEMFERRY_TARGET_API_KEY`, `_PASSWORD`, `_CA_FILE` where none are given.
        stop: Set it to end between two pages; the same call goes on.

    Raises:
        RefusedError: `no-migration`; `existing` for a file that was changed since.
    """
    url = store_url("TARGET", target, secrets)
    opened = open_known(url)
    try:
        return roll_back(opened, find_ledger(opened, migration, url), stop=stop)
    finally:
        opened.close()


def open_known(url: StoreUrl) -> Target:
    """Opens a target that knows a migration; what knows none is only read.

    Raises:
        RefusedError: `no-migration`.
    """
    with read_ledger(url) as documents:
        if documents is None or not migrations(documents):
            raise RefusedError("no-migration", f"{url.text} knows no migration", hint=ledger_hint(url))
    return open_target(url)


def find_ledger(target: Target, migration: str | None, url: StoreUrl) -> Ledger:
    """The ledger of a migration into `target`; of the only one where none is named.

    Raises:
        RefusedError: `no-migration`, naming those there are.
    """
    known = migrations(target.documents)
    if migration is None and len(known) == 1:
        return Ledger(target.documents, known[0])
    if migration in known:
        return Ledger(target.documents, str(migration))
    if not known:
        raise RefusedError("no-migration", f"{url.text} knows no migration")
    raise RefusedError("no-migration", f"name one (--migration): {', '.join(known)}")
