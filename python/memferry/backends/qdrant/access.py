"""A collection as an application uses it."""

from __future__ import annotations

import json
from typing import Final

from memferry._native import Batch, Keys, store_keys
from memferry.backends.access import Capabilities, Scopes
from memferry.backends.qdrant.target import NAMESPACE, QdrantTarget, of_their_kind, refusal_of_others, stored_name
from memferry.errors import RefusedError, StoreError
from memferry.model import KINDS, VectorSpec
from memferry.urls import StoreUrl

__all__ = ["QdrantAccess"]

_FARTHER_IS_MORE: Final = frozenset({"euclid", "manhattan"})


class QdrantAccess(QdrantTarget):
    """A collection with the native profile, made with the first record where there is none.

    Args:
        url: The store.
        vectors: Vectors of a collection that has to be made; those of the first records where none are named.
        read_only: Never write.
    """

    def __init__(self, url: StoreUrl, vectors: tuple[VectorSpec, ...] = (), *, read_only: bool = False) -> None:
        super().__init__(url)
        self._read_only = read_only
        self._vectors = vectors
        if not self.native:
            raise RefusedError("not-native", f"a collection of profile `{url.profile}` is not opened by applications")
        if read_only and self._info is None:
            raise RefusedError("store-missing", f"no collection: {url.name}")

    def capabilities(self) -> Capabilities:
        """See `memferry.backends.access.Access`."""
        cosine = self._cosine()
        exact = self._url.distance != "cosine" if cosine is None else not cosine
        writes = not self._read_only
        return Capabilities("qdrant", writes, atomic=False, text_kinds=(), vector_kinds=KINDS, exact_vectors=exact)

    def fetch(self, records: Batch) -> Batch:
        """See `memferry.backends.access.Access`."""
        if self._info is None and not self._store.exists(self._url.name):
            return records.filter(bytes(len(records)))
        found, bad, _ = self._mapper.decode(
            self._store.get(self._url.name, store_keys(records.identities(), NAMESPACE))
        )
        for key, _, _, reason, message, _ in bad:
            raise StoreError("store-corrupt", f"point {key}: {message} ({reason})")
        return of_their_kind(records, found)

    def _make(self, records: Batch) -> None:
        specs = tuple(
            VectorSpec(name, ("dense", "sparse", "multi")[kind], dim, count)
            for name, kind, dim, count in records.vector_specs()
        )
        wanted = self._wanted(specs)
        if self._info is None and not self._store.exists(self._url.name):
            declared = {spec["name"]: spec for spec in wanted} | {v["name"]: v for v in self._wanted(self._vectors)}
            self._store.create(self._url.name, json.dumps([declared[name] for name in sorted(declared)]))
            self._store.create_payload_index(self._url.name, "kind", "keyword")
        if self._info is None:
            self._info = json.loads(self._store.info(self._url.name))
        self._check(self._info, wanted)
        if odd := self._not_finite(records):
            kind, identity = records.take(odd[:1]).identities()[0]
            raise RefusedError("refused", f"{kind} {identity!r}: a vector with NaN or infinity has no cosine")

    def _refuse_taken(self, records: Batch, *, replace: bool) -> None:
        """Refuses records in whose points others stand, there or among them, and those that are there already."""
        places = Keys()
        self.add_places(places, records)
        if len(twice := places.repeated()):
            first, second = records.filter(self.in_places(twice, records)).identities()[:2]
            raise RefusedError("refused", f"{first[0]} and {second[0]} {first[1]!r}: a collection has one point an id")
        identities = records.identities()
        keys = store_keys(identities, NAMESPACE)
        # A key that is not the id has the kind in it: only the same record can be there.
        asked = [key for key, (_, identity) in zip(keys, identities, strict=True) if key == identity or not replace]
        if not asked:
            return
        there, bad, _ = self._mapper.decode(self._store.get(self._url.name, asked, with_vectors=False))
        if why := refusal_of_others(records, there):
            raise RefusedError("refused", why)
        if not replace:
            for key, _, _, reason, message, _ in bad:
                raise StoreError("store-corrupt", f"point {key}: {message} ({reason})")
            for kind, identity in there.identities():
                raise RefusedError("existing", f"{kind} {identity!r} is there already")

    def put(self, records: Batch, *, replace: bool) -> None:
        """See `memferry.backends.access.Access`; acknowledged when it returns, batch by batch."""
        self._make(records)
        self._refuse_taken(records, replace=replace)
        records = self.image(records)
        # Accepted, so that two vectors of one stored name are refused by that name.
        raw, rows, bad, _ = self._mapper.encode(records, namespace=NAMESPACE, accepted=["several-vectors"])
        for _, bad_kind, bad_id, reason, message, _ in bad:
            raise RefusedError("refused", f"{bad_kind} {bad_id!r}: {message} ({reason})")
        for row, reason in self._store.upsert(self._url.name, raw):
            kind, identity = records.take([rows[row]]).identities()[0]
            raise StoreError("refused", f"{kind} {identity!r}: {reason}")

    def remove(self, records: Batch) -> int:
        """See `memferry.backends.access.Access`."""
        there = self.fetch(records).identities()
        return self.delete(there) if there else 0

    def search_text(self, kind: str, words: str, limit: int, scope: Scopes) -> list[tuple[str, float]]:  # noqa: ARG002
        """Refused."""
        raise RefusedError(
            "unsupported",
            "a Qdrant collection is not searched by words",
            hint="search it by a vector, or use an embedded store or Neo4j",
        )

    def search_vector(
        self, kind: str, name: str, vector: list[float], limit: int, scope: Scopes, *, exact: bool
    ) -> list[tuple[str, float]]:
        """See `memferry.backends.access.Access`; the collection's own metric."""
        if self._info is None:
            if not self._store.exists(self._url.name):
                return []
            self._info = json.loads(self._store.info(self._url.name))
        stored = stored_name(name)
        known = {v["name"]: v for v in self._info["vectors"] if v["kind"] == "dense"}
        if stored not in known or known[stored]["dim"] != len(vector):
            return []
        hits = self._store.query(
            self._url.name,
            stored,
            vector,
            limit,
            filter=[("kind", kind), *((f"scope.{part}", value) for part, value in scope)],
            exact=exact,
        )
        sign = -1.0 if known[stored].get("distance") in _FARTHER_IS_MORE else 1.0
        found = self._store.get(self._url.name, [key for key, _ in hits])
        ids = dict(zip((key for key, _, _ in found.rows()), self._ids(found), strict=True))
        return [(ids[key], sign * score) for key, score in hits if key in ids]

    def _ids(self, raw: Batch) -> list[str]:
        records, bad, _ = self._mapper.decode(raw)
        for key, _, _, reason, message, _ in bad:
            raise StoreError("store-corrupt", f"point {key}: {message} ({reason})")
        return [identity for _, identity in records.identities()]

    def wait_indexed(self, deadline_secs: float) -> bool:
        """See `memferry.backends.access.Access`."""
        return self._store.wait_green(self._url.name, deadline_secs)
