"""Writing a hybrid store: vectors first, then records and ledger in the graph's transaction.

Three things cannot be done in that order, because they would lose what is there when the process is killed before the
transaction ends: to take out vectors, to write over vectors that somebody else wrote, and to put vectors back. They
are noted in the transaction and done after it; whoever takes the lock next does what is still noted.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal

from memferry._native import Batch, Keys, Mapper, join_halves, split_halves
from memferry.backends.api import ChecksVectors, Documents, Target, as_placed, is_lock
from memferry.failpoints import failpoint
from memferry.hybrid.source import Half, HybridSource, identity_of
from memferry.model import Quarantined, Range, VectorSpec, inverted
from memferry.profiles import load_mapper

__all__ = ["HybridTarget"]

Identity = tuple[str, str]

_NOTES: Final = "later/"
"""Documents with what is to be done to vectors after a transaction."""
_WRITE, _RESTORE, _REMOVE = "write", "restore", "remove"
"""What they begin with; before a native document, but for the last."""
_SCAN: Final = 500
_MAX_DIM: Final = 65_536
"""Longer vectors, and those of no numbers, stay in the graph."""
_ANY: Final = Range(0, "", None, None)


class _HeldDocuments:
    """The graph's documents, which notice whose lock is taken."""

    def __init__(self, documents: Documents) -> None:
        self._documents = documents
        self.holder: str | None = None
        self.get = documents.get
        self.scan = documents.scan
        self.delete = documents.delete
        self.migrations = documents.migrations

    def put(self, migration: str, key: str, value: str) -> None:
        """Writes a document."""
        self._documents.put(migration, key, value)
        if is_lock(key):
            self.holder = migration


class _Page(threading.local):
    """What a thread's transaction leaves to be done after it, and what of that it has noted."""

    def __init__(self) -> None:
        self.later: dict[Identity, str] = {}
        self.noted: set[Identity] = set()


class HybridTarget:
    """Two stores written as one.

    Args:
        graph: Holds every record, without the vectors, and the ledger.
        vectors: Holds the vectors; its ledger is the graph's.
        identity: Set by the user, or None.
        look: What the vector half holds under the kinds and ids of a batch, without points that are no records.
    """

    backend = "hybrid"
    profile = "native"
    native = True
    resume: Literal["page", "range"] = "page"

    def __init__(self, graph: Target, vectors: Target, identity: str | None, look: Callable[[Batch], Batch]) -> None:
        self._graph = graph
        self._vectors = vectors
        self._look = look
        self._mapper: Mapper = load_mapper("native", "document")
        self._there = False
        self._page = _Page()
        self._looked_for: str | None = None
        self._doubtful = False
        self.ordered = graph.ordered
        self.fences = graph.fences
        self.documents = _HeldDocuments(graph.documents)
        self.identity = identity or identity_of(graph.identity, vectors.identity)

    def source(self) -> HybridSource | None:
        """The same store, to be read."""
        graph, vectors = self._graph.source(), self._vectors.source()
        if graph is None and vectors is None:
            return None
        halves = Half(graph, self._graph.fetch), Half(vectors, self._look)
        return HybridSource(*halves, self.identity, strict=False)

    def prepare(self, migration: str, vectors: tuple[VectorSpec, ...]) -> None:
        """Makes what is missing in both halves."""
        self._graph.prepare(migration, vectors)
        self._vectors.prepare(migration, _movable(vectors))

    def check_vectors(self, vectors: tuple[VectorSpec, ...]) -> None:
        """See `memferry.backends.api.ChecksVectors`."""
        for half, its in ((self._graph, vectors), (self._vectors, _movable(vectors))):
            if isinstance(half, ChecksVectors):
                half.check_vectors(its)

    def begin_range(self, part: Range) -> None:
        """See `memferry.backends.api.Target`."""
        self._vectors.begin_range(part)
        self._graph.begin_range(part)

    def end_range(self, part: Range) -> None:
        """See `memferry.backends.api.Target`."""
        self._vectors.end_range(part)
        self._graph.end_range(part)

    def image(self, records: Batch) -> Batch:
        """What the halves make of their parts."""
        rest, points = split_halves(records)
        return join_halves(self._graph.image(rest), self._vectors.image(points))[0]

    def gaps(self, records: Batch) -> list[tuple[str, int, str]]:
        """What the halves cannot hold of their parts."""
        rest, points = split_halves(records)
        return [*self._graph.gaps(rest), *self._vectors.gaps(points)]

    def fetch(self, records: Batch) -> Batch:
        """See `memferry.backends.api.Target`."""
        held = self._graph.fetch(records)
        return join_halves(held, self._points(held, self._look))[0]

    def add_places(self, keys: Keys, records: Batch) -> None:
        """See `memferry.backends.api.Placed`: those of the vectors; the graph tells kinds apart."""
        if (placed := as_placed(self._vectors)) is not None:
            placed.add_places(keys, split_halves(records)[1])

    def in_places(self, keys: Keys, records: Batch) -> bytes:
        """See `memferry.backends.api.Placed`."""
        found, points = Keys(), split_halves(records)[1]
        if (placed := as_placed(self._vectors)) is not None:
            found.add(points.filter(placed.in_places(keys, points)))
        return found.contains(records)

    def _points(self, records: Batch, fetch: Callable[[Batch], Batch]) -> Batch:
        """What the vector half holds under the kinds and ids of `records`."""
        self._there = self._there or self._vectors.source() is not None
        return fetch(records) if self._there and len(records) else Batch.concat([])

    # --- writing

    def write(self, part: Range, records: Batch, migration: str, *, fresh: bool) -> list[Quarantined]:
        """See `memferry.backends.api.Target`; the caller holds the transaction."""
        # A page that is tried again may be there already.
        fresh = fresh and not self._doubtful
        rest, points = split_halves(records)
        first, after, stale = (points, points.filter(bytes(len(points))), points.filter(bytes(len(points))))
        if not fresh:
            first, after, stale = self._order(records, points, migration)
        refused = self._vectors.write(part, first, migration, fresh=fresh)
        failpoint("half-written")
        if refused:
            rest = rest.filter(inverted(_keys(refused).contains(rest)))
        bad = self._graph.write(part, rest, migration, fresh=fresh)
        if bad:
            # Vectors of what the graph did not take go again, unless an older record is still there.
            lost = points.filter(_keys(bad).contains(points))
            there = Keys()
            if not fresh:
                there.add(self._graph.fetch(lost))
            self._note_gone(migration, lost.filter(inverted(there.contains(lost))))
            after, stale = (b.filter(inverted(_keys(bad).contains(b))) for b in (after, stale))
        self._note_gone(migration, stale)
        self._note_all(migration, _WRITE, after)
        return _whole(records, [*refused, *bad])

    def _order(self, records: Batch, points: Batch, migration: str) -> tuple[Batch, Batch, Batch]:
        """Vectors to be written before the records, those to be written after, and those to be taken out.

        What somebody else wrote is written over when the ledger has it, and no sooner.
        """
        wanted, theirs = Keys(), Keys()
        wanted.add(points)
        # Refused where another kind has the place.
        held = self._points(points, self._vectors.fetch)
        stale = self._points(records.filter(inverted(wanted.contains(records))), self._look)
        ours = zip(held.markers(), held.digests(), strict=True)
        theirs.add(held.filter(bytes(marker != (migration, digest) for marker, digest in ours)))
        later = theirs.contains(points)
        return points.filter(inverted(later)), points.filter(later), stale

    def delete(self, identities: list[Identity]) -> int:
        """Deletes records, then their vectors; and vectors alone where the record is of somebody else, or none."""
        holder = self.documents.holder
        held = _written_by(self._graph.fetch(self._named(identities)))
        ours = [identity for identity, migration in held.items() if holder in {None, migration}]
        self._graph.delete(ours)
        # The graph may keep what others tied something to.
        kept = set(self._graph.fetch(self._named(ours)).identities())
        gone = [identity for identity in identities if identity not in kept]
        # Not noted: vectors without a record are found by whoever deletes again.
        self._page.later |= dict.fromkeys(gone, _REMOVE)
        return len(gone)

    def restore(self, records: Batch) -> None:
        """Writes records back, then their vectors."""
        rest, points = split_halves(records)
        self._graph.restore(rest)
        holder = self.documents.holder
        if holder is not None:
            self._note_all(holder, _RESTORE, points)
        else:
            self._vectors.restore(points)
        self._page.later |= dict.fromkeys({*records.identities()} - {*points.identities()}, _REMOVE)

    def finish(self, migration: str, ranges: list[Range]) -> None:
        """See `memferry.backends.api.Target`."""
        self._vectors.finish(migration, ranges)
        self._graph.finish(migration, ranges)

    def drop_created(self, migration: str) -> None:
        """Drops what `prepare` made in either half."""
        self._vectors.drop_created(migration)
        self._graph.drop_created(migration)
        self._there = False

    def close(self) -> None:
        """Ends all connections."""
        self._vectors.close()
        self._graph.close()

    # --- transaction, and what comes after it

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """The graph's. What of the vectors has to come after it is done when it has ended."""
        self._settle()
        holder = self.documents.holder
        try:
            with self._graph.transaction():
                yield
            failpoint("half-committed")
            self._settle()
        except BaseException:
            # Committed or not: what is noted tells.
            self._page.later, self._page.noted = {}, set()
            self.documents.holder, self._looked_for = holder, None
            self._doubtful = True
            raise

    def _note(self, migration: str, identity: Identity, document: str) -> None:
        """Has something done after the transaction, also if the process does not live to do it."""
        self._page.later[identity] = document
        self._page.noted.add(identity)
        self.documents.put(migration, _key(identity), document)

    def _note_gone(self, migration: str, points: Batch) -> None:
        for identity in points.identities():
            self._note(migration, identity, _REMOVE)

    def _note_all(self, migration: str, how: str, points: Batch) -> None:
        bodies = self._mapper.encode(points)[0].rows()
        for identity, (_, body, _) in zip(points.identities(), bodies, strict=True):
            self._note(migration, identity, f"{how} {body.decode()}")

    def _settle(self) -> None:
        """Does what is to come after the transaction; all of it can be done twice."""
        holder = self.documents.holder
        if holder is not None and self._looked_for != holder:
            while rows := self.documents.scan(holder, _NOTES, "", _SCAN):
                self._take_up(holder, {_identity(key): text for key, text in rows})
            self._looked_for = holder
        self._do(holder, self._page.later, self._page.noted)
        self._page.later, self._page.noted = {}, set()

    def _take_up(self, holder: str, noted: dict[Identity, str]) -> None:
        """Does what a killed process noted, but for records that another migration has written since."""
        held = self._graph.fetch(self._named([*noted]))
        written: dict[Identity, str | None] = dict.fromkeys(noted, holder)
        written |= _written_by(
            self._decode([text.removeprefix(_RESTORE) for text in noted.values() if text.startswith(_RESTORE)])
        )
        found = _written_by(held)
        mine = {i: text for i, text in noted.items() if found.get(i, written[i]) == written[i]}
        self._do(holder, mine, set(noted))

    def _do(self, holder: str | None, later: dict[Identity, str], noted: set[Identity]) -> None:
        if later and self._vectors.source() is not None:
            write, restore = (
                self._decode([text.removeprefix(how) for text in later.values() if text.startswith(how)])
                for how in (_WRITE, _RESTORE)
            )
            if len(write) and holder is not None:
                # What the store does not take is missing from its record, which the proof says.
                self._vectors.write(_ANY, write, holder, fresh=False)
            if len(restore):
                self._vectors.restore(restore)
            if gone := [identity for identity, text in later.items() if text == _REMOVE]:
                # Another kind may have its vectors where these have none.
                self._vectors.delete(self._look(self._named(gone)).identities())
        if later:
            failpoint("half-settled")
        if holder is not None:
            for identity in noted:
                self.documents.delete(holder, _key(identity))

    # --- documents

    def _named(self, identities: list[Identity]) -> Batch:
        """Records with nothing but these kinds and ids."""
        return self._decode([json.dumps({"kind": kind, "id": identity}) for kind, identity in identities])

    def _decode(self, documents: list[str]) -> Batch:
        return self._mapper.decode(Batch.from_rows([("", text.encode(), []) for text in documents]))[0]


def _movable(vectors: tuple[VectorSpec, ...]) -> tuple[VectorSpec, ...]:
    """Those that go to the half for vectors."""
    return tuple(v for v in vectors if v.kind == "sparse" or 0 < v.dim <= _MAX_DIM)


def _written_by(records: Batch) -> dict[Identity, str | None]:
    """Whose markers records bear."""
    markers = zip(records.identities(), records.markers(), strict=True)
    return {identity: marker[0] if marker else None for identity, marker in markers}


def _key(identity: Identity) -> str:
    """No key is the beginning of another one: documents are deleted by how their keys begin."""
    return _NOTES + json.dumps(identity)


def _identity(key: str) -> Identity:
    kind, identity = json.loads(key.removeprefix(_NOTES))
    return kind, identity


def _keys(rows: list[Quarantined]) -> Keys:
    keys = Keys()
    keys.add_identities([(row.kind, row.id) for row in rows if row.kind is not None and row.id is not None])
    return keys


def _whole(records: Batch, refused: list[Quarantined]) -> list[Quarantined]:
    """Both halves of what one of them refused."""
    reasons: dict[tuple[str, str], list[Quarantined]] = {}
    for row in refused:
        reasons.setdefault((row.reason, row.message), []).append(row)
    found = []
    for (reason, message), rows in reasons.items():
        whole = Mapper.quarantine(records.filter(_keys(rows).contains(records)), reason, message)
        found += [Quarantined(*entry) for entry in whole]
    return found
