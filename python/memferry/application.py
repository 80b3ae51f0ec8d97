"""A store as an application uses it, the same for every backend: put, get, list, delete, search."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Final, Self, TypeAlias

from memferry._native import Batch
from memferry.backends.access import Access, Capabilities
from memferry.backends.embedded.access import EmbeddedAccess
from memferry.backends.jsonl.access import JsonlAccess
from memferry.backends.neo4j.access import Neo4jAccess
from memferry.backends.qdrant.access import QdrantAccess
from memferry.batches import from_batch, to_batch
from memferry.errors import RefusedError
from memferry.hybrid import HybridAccess
from memferry.listing import RecordPage, pages, read_cursor
from memferry.model import KINDS, Limits, VectorSpec
from memferry.records import Record, Scope
from memferry.urls import Secrets, StoreUrl, is_utf8, parse_url, secrets_from_environment
from memferry.vectors import Floats, floats

__all__ = ["Hit", "Store", "open_store"]

_PAGE_BYTES: Final = 8 << 20
_FUSION: Final = 60
"""How much the first places count when two rankings are put together (reciprocal rank fusion)."""

ScopeLike: TypeAlias = Scope | Mapping[str, str] | None


@dataclass(frozen=True)
class Hit:
    """One answer of a search.

    Attributes:
        record: The record.
        score: Higher is nearer. Of one search only: it is a similarity, a rank of words, or both put together.
    """

    record: Record
    score: float


Hits: TypeAlias = list[Hit]
Found: TypeAlias = list[Record | None]


class Store:
    """A store. Threads may share it. Made by `memferry.open`."""

    def __init__(self, access: Access, url: StoreUrl) -> None:
        self._access = access
        self._url = url

    def __repr__(self) -> str:
        return f"<memferry.Store {self._url.backend}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections."""
        self._access.close()

    def capabilities(self) -> Capabilities:
        """What this store can do."""
        return self._access.capabilities()

    def put(self, records: Record | Iterable[Record], *, replace: bool = True) -> int:
        """Writes records, over those of the same kind and id.

        Embedded and Neo4j write all of them or none; see `Capabilities.atomic`.

        Args:
            records: One or many; not two of one kind and id.
            replace: Whether records that are there already are written over.

        Returns:
            How many were written.

        Raises:
            RefusedError: `invalid`, `repeated-id`, `refused` for what the store cannot hold; `existing` without
                `replace`; `unsupported` where the store is only read.
            TransientError: `store-locked` and others that may pass: try again.
        """
        self._check_writes()
        batch = to_batch([records] if isinstance(records, Record) else records)
        if len(batch):
            self._access.put(batch, replace=replace)
        return len(batch)

    def get(self, kind: str, id: str) -> Record | None:  # noqa: A002 - the field's name
        """The record of this kind and id, None where there is none."""
        return self.get_many([(kind, id)])[0]

    def get_many(self, identities: Iterable[tuple[str, str]]) -> Found:
        """The records of these kinds and ids, each in its place, None where there is none."""
        wanted = list(identities)
        found = {r.identity: r for r in from_batch(self._access.fetch(_named(wanted)))} if wanted else {}
        return [found.get(identity) for identity in wanted]

    def delete(self, kind: str, id: str) -> bool:  # noqa: A002 - the field's name
        """Deletes the record of this kind and id; whether there was one."""
        return self.delete_many([(kind, id)]) == 1

    def delete_many(self, identities: Iterable[tuple[str, str]]) -> int:
        """Deletes records by kind and id; how many were there.

        Raises:
            RefusedError: `refused` for an entity in Neo4j that still has relations.
        """
        self._check_writes()
        wanted = list(identities)
        return self._access.remove(_named(wanted)) if wanted else 0

    def list(self, *, kind: str | None = None, scope: ScopeLike = None) -> Iterator[Record]:
        """All records, page by page as they are asked for.

        Raises:
            StoreError: `store-corrupt` at the first row that is no record; `pages` goes on after those.
        """
        for page in self.pages(kind=kind, scope=scope):
            yield from page.readable()

    def pages(
        self, *, kind: str | None = None, scope: ScopeLike = None, size: int = 1000, cursor: str | None = None
    ) -> Generator[RecordPage, None, None]:
        """All records in pages of at most `size` rows of the store.

        Args:
            kind: Only this kind.
            scope: Only records with these parts of a scope.
            size: Rows read for a page.
            cursor: `RecordPage.cursor` of an earlier page, to go on after it, in another process too.

        Raises:
            RefusedError: `invalid` for a cursor that is none.
        """
        kinds = _kinds(kind)
        wanted = _parts(scope)
        if size < 1:
            raise RefusedError("invalid", f"pages: size {size}, at least 1 is needed")
        stream_name, at = read_cursor(cursor)
        source = self._access.source()
        if source is None:
            return
        try:
            yield from pages(source, kinds, wanted, Limits(size, _PAGE_BYTES), stream_name, at)
        finally:
            source.close()

    def search(
        self,
        text: str | None = None,
        *,
        vector: Floats | None = None,
        k: int = 10,
        kinds: Iterable[str] | str | None = None,
        scope: ScopeLike = None,
        vector_name: str = "",
        exact: bool = False,
    ) -> Hits:
        """The best records for words, for a vector, or for both.

        Args:
            text: Words that all must be in a record's content or name.
            vector: Compared with the dense vectors of its dimension.
            k: Most answers.
            kinds: Where to search; everywhere by default.
            scope: Only records with these parts of a scope.
            vector_name: Which vectors, where records have several.
            exact: Compare every vector, without an index.

        Returns:
            At most `k` hits, best first. With both, the two rankings are put together: near the top in either counts.

        Raises:
            RefusedError: `unsupported` where the store cannot, `invalid` without words and vector.
        """
        if text is None and vector is None:
            raise RefusedError("invalid", "search: words or a vector are needed")
        if k < 1:
            raise RefusedError("invalid", f"search: k is {k}, at least 1 is needed")
        can, parts = self.capabilities(), list(_parts(scope).items())
        for given in (text or "", vector_name, *(value for _, value in parts)):
            if not is_utf8(given):
                raise RefusedError("invalid", f"search: {given!a} holds half a character")
        rankings: list[list[tuple[float, str, str]]] = []
        if text is not None:
            chosen = self._searched("words", can.text_kinds, kinds)
            rankings.append(
                [(s, kind, i) for kind in chosen for i, s in self._access.search_text(kind, text, k, parts)]
            )
        if vector is not None:
            numbers = floats(vector)
            chosen = self._searched("vectors", can.vector_kinds, kinds)
            rankings.append(
                [
                    (score, kind, identity)
                    for kind in chosen
                    for identity, score in self._access.search_vector(kind, vector_name, numbers, k, parts, exact=exact)
                ]
            )
        for ranking in rankings:
            ranking.sort(key=lambda hit: -hit[0])
        best = (rankings[0] if len(rankings) == 1 else _fuse(rankings))[:k]
        records = self.get_many([(kind, identity) for _, kind, identity in best])
        return [Hit(record, hit[0]) for hit, record in zip(best, records, strict=True) if record is not None]

    def wait_indexed(self, deadline_secs: float = 600.0) -> bool:
        """Waits until the store has put everything into its vector index; whether it has within the deadline."""
        return self._access.wait_indexed(deadline_secs)

    def _check_writes(self) -> None:
        can = self.capabilities()
        if not can.write:
            raise RefusedError("unsupported", f"this {can.backend} store is only read")

    @staticmethod
    def _searched(what: str, can: tuple[str, ...], wanted: Iterable[str] | str | None) -> tuple[str, ...]:
        chosen = can if wanted is None else _kinds(wanted)
        refused = [kind for kind in chosen if kind not in can]
        if refused or not chosen:
            allowed = f"only {', '.join(can)}" if can else "nothing"
            raise RefusedError("unsupported", f"this store searches {allowed} by {what}")
        return chosen


def _named(identities: list[tuple[str, str]]) -> Batch:
    """A batch of nothing but kinds and ids, each once."""
    return to_batch([Record(kind, identity) for kind, identity in dict.fromkeys(identities)])  # type: ignore[arg-type]


def _kinds(kinds: Iterable[str] | str | None) -> tuple[str, ...]:
    chosen = KINDS if kinds is None else (kinds,) if isinstance(kinds, str) else tuple(dict.fromkeys(kinds))
    for kind in chosen:
        if kind not in KINDS:
            raise RefusedError("invalid", f"unknown kind `{kind}`, allowed: {', '.join(KINDS)}")
    return chosen


def _parts(scope: ScopeLike) -> dict[str, str]:
    if scope is None:
        return {}
    return Record("memory", "", scope=scope).scope.given()


def _fuse(rankings: list[list[tuple[float, str, str]]]) -> list[tuple[float, str, str]]:
    scores: dict[tuple[str, str], float] = {}
    for ranking in rankings:
        for place, (_, kind, identity) in enumerate(ranking):
            scores[kind, identity] = scores.get((kind, identity), 0.0) + 1 / (_FUSION + place + 1)
    return sorted(((score, *identity) for identity, score in scores.items()), key=lambda hit: (-hit[0], hit[1:]))


def open_store(
    url: str | os.PathLike[str] | StoreUrl,
    *,
    secrets: Secrets | None = None,
    read_only: bool = False,
    vectors: Mapping[str, int] | None = None,
) -> Store:
    """Opens a store for an application. The code stays the same when the URL changes.

    An embedded store is made where there is none, a Qdrant collection with the first record.

    Args:
        url: A store URL, as on the command line: `agents.db`, `qdrant://host/collection`, `neo4j://host`, `a.jsonl`;
            or a parsed one, as `memferry.hybrid_url(graph, vectors)`.
        secrets: Credentials; from `MEMFERRY_TARGET_API_KEY`, `_PASSWORD` and `_CA_FILE` where none are given.
        read_only: Never write.
        vectors: Dimension by name of the dense vectors to come, for a Qdrant collection that is to be made; the name
            of an only one is empty. Without it the first `put` decides, and later ones cannot bring others.

    Raises:
        RefusedError: `url`, `store-missing`, `store-format`, `unauthorized`, `extra-missing` and others.

    >>> import memferry, tempfile, os
    >>> with memferry.open(os.path.join(tempfile.mkdtemp(), "agents.db")) as store:
    ...     _ = store.put(memferry.Record("memory", "m1", content="Ann likes green tea"))
    ...     [hit.record.content for hit in store.search("tea")]
    ['Ann likes green tea']
    """
    if isinstance(url, StoreUrl):
        parsed = url if secrets is None else replace(url, secrets=secrets)
    else:
        parsed = replace(parse_url(os.fspath(url)), secrets=secrets or secrets_from_environment("TARGET"))
    return Store(_access(parsed, read_only=read_only, vectors=vectors), parsed)


def _access(url: StoreUrl, *, read_only: bool, vectors: Mapping[str, int] | None) -> Access:
    if url.backend == "embedded" and url.path:
        if url.profile != "native":
            raise RefusedError("profile", f"no profile `{url.profile}` for embedded stores, allowed: native")
        if not url.path.parent.is_dir():
            raise RefusedError("store-missing", f"no folder: {url.path.parent}")
        return EmbeddedAccess(url.path, url.identity, read_only=read_only)
    if url.backend == "jsonl" and url.path:
        if url.profile != "native":
            raise RefusedError("not-native", f"a file of profile `{url.profile}` is not opened by applications")
        return JsonlAccess(url.path, url.profile, url.identity)
    if url.backend == "qdrant":
        specs = tuple(VectorSpec(name, "dense", dim, 0) for name, dim in (vectors or {}).items())
        return QdrantAccess(url, specs, read_only=read_only)
    if url.backend == "neo4j":
        return Neo4jAccess(url, read_only=read_only)
    if url.graph is not None and url.vectors is not None:
        graph = _access(url.graph, read_only=read_only, vectors=None)
        with ExitStack() as unless_whole:
            unless_whole.callback(graph.close)
            points = _access(url.vectors, read_only=read_only, vectors=vectors)
            unless_whole.pop_all()
        return HybridAccess(graph, points, url.identity)
    raise RefusedError("unsupported", f"a {url.backend} store is not opened by applications")


def open_parsed(url: StoreUrl, *, read_only: bool) -> Store:
    """Opens a store whose URL has been read and has its credentials."""
    return Store(_access(url, read_only=read_only, vectors=None), url)
