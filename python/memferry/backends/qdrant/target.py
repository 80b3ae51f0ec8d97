"""Writing a Qdrant collection: acknowledged upserts first, the ledger after them."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

from memferry._native import (
    Batch,
    Keys,
    Mapper,
    gap_names,
    give_up_vectors,
    normalize_vectors,
    qdrant_given_back,
    qdrant_to_come_back,
    store_keys,
    vectors_not_finite,
)
from memferry.backends.api import Documents, Source, refuse_damaged
from memferry.backends.qdrant.documents import QdrantDocuments
from memferry.backends.qdrant.source import QdrantSource, connect, identity_of
from memferry.backends.state import MarkedSource, State
from memferry.errors import RefusedError, StoreError
from memferry.failpoints import failpoint
from memferry.model import Quarantined, Range, VectorSpec, inverted
from memferry.profiles import load_mapper
from memferry.urls import StoreUrl

__all__ = ["NAMESPACE", "QdrantTarget", "of_their_kind", "refusal_of_others", "stored_name"]

NAMESPACE: Final = str(uuid.uuid5(uuid.NAMESPACE_URL, "https://memferry.dev/point"))
"""Namespace of the UUIDs under which ids are filed that Qdrant cannot hold."""
_NOT_FINITE: Final = "vectors-not-finite"
_SEVERAL: Final = "several-vectors"
_EXACT: Final = (None, "float32")
"""Types of the numbers of a vector that come back as they are; None is the server's default."""


def stored_name(name: str) -> str:
    """Name of a vector in a native collection, see `docs/profiles.md`."""
    return name or "default"


def of_their_kind(records: Batch, found: Batch) -> Batch:
    """Those of the points found under the ids of `records` that are of their kinds too."""
    asked = Keys()
    asked.add(records)
    return found.filter(asked.contains(found))


def refusal_of_others(records: Batch, found: Batch) -> str | None:
    """Why `records` are not written where `found` was found, None where no other kind stands there."""
    asked = Keys()
    asked.add(records)
    for kind, identity in found.filter(inverted(asked.contains(found))).identities():
        return (
            f"point {store_keys([(kind, identity)], NAMESPACE)[0]} is {kind} {identity!r}, and another kind is to be "
            "written under its id; it is not written over"
        )
    return None


class QdrantTarget:
    """One collection, made where there is none; one that is there is checked, never made anew.

    Args:
        url: The store.
        accepted: Gaps that may be dropped.
        documents: Where the ledger is kept instead of in a companion collection.
    """

    backend = "qdrant"
    resume: Literal["page", "range"] = "page"
    ordered = False
    fences = False

    def __init__(
        self,
        url: StoreUrl,
        accepted: tuple[str, ...] = (),
        scratch: Path | None = None,
        documents: Documents | None = None,
    ) -> None:
        self._url = url
        self._store = connect(url)
        self._mapper: Mapper = load_mapper(url.profile, "point")
        self._accepted = list(accepted)
        self._lock = threading.Lock()
        self.profile = url.profile
        self.native = url.profile == "native"
        self.identity = identity_of(url)
        # Nothing of ours goes into another system's collection, nor beside it.
        self._state = None if self.native else State(self.identity, scratch)
        known = self._state.documents if self._state else documents
        self.documents: Documents = known or QdrantDocuments(self._store, url.name)
        self._info: dict[str, Any] | None = None
        if self._store.exists(url.name):
            self._info = json.loads(self._store.info(url.name))

    def source(self) -> Source | None:
        """The same collection, to be read."""
        if not self._store.exists(self._url.name):
            return None
        source = QdrantSource(self._url)
        return MarkedSource(source, self._state) if self._state else source

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Qdrant has none: the ledger is written after the acknowledged upsert."""
        yield

    def _cosine(self) -> set[str] | None:
        """Stored names of Cosine vectors; None while the collection is still to be made."""
        if self._info is None:
            return None
        return {v["name"] for v in self._info["vectors"] if v.get("distance") == "cosine"}

    def prepare(self, migration: str, vectors: tuple[VectorSpec, ...]) -> None:
        """Makes the collection, or checks the one that is there against the vectors to come.

        Every step may be the last one before a kill or a failure, so each looks at what is there already.
        """
        wanted, name = self._wanted(vectors), self._url.name
        if self._info is None and not self._store.exists(name):
            self.documents.put(migration, "created", name)
            self._store.create(name, json.dumps(wanted))
        info = json.loads(self._store.info(name))
        if self.documents.get(migration, "created") == name:
            self._defer_index(migration, info["indexing_threshold"])
            if self.native:
                self._store.create_payload_index(name, "kind", "keyword")
        self._info = info
        self._check(info, wanted)

    def check_vectors(self, vectors: tuple[VectorSpec, ...]) -> None:
        """See `memferry.backends.api.ChecksVectors`."""
        wanted = self._wanted(vectors)
        if self._info is not None:
            self._check(self._info, wanted)

    def _check(self, info: dict[str, Any], wanted: list[dict[str, Any]]) -> None:
        there = {v["name"]: v for v in info["vectors"]}
        for spec in wanted:
            have = there.get(spec["name"])
            if have is None or (have["kind"], have["dim"]) != (spec["kind"], spec["dim"]):
                got = f"{have['kind']} of dimension {have['dim']}" if have else "none of that name"
                raise RefusedError(
                    "refused",
                    f"collection {self._url.name}: there are vectors `{spec['name']}` to write, {spec['kind']} of "
                    f"dimension {spec['dim']}; the collection has {got}",
                    hint="name another collection; one that is there is never made anew",
                )
            # The numbers of a sparse vector are kept as they are; its type is that of the index.
            if spec["kind"] != "sparse" and have["datatype"] not in _EXACT:
                raise RefusedError(
                    "refused",
                    f"collection {self._url.name}: vectors `{spec['name']}` are kept as {have['datatype']}, allowed: "
                    "float32; the numbers would come back as others",
                    hint="name another collection; one that is there is never made anew",
                )

    def _defer_index(self, migration: str, threshold: int | None) -> None:
        """Lets the server build its index once, at the end; what it was set to is noted first, for `finish`."""
        if self.documents.get(migration, "threshold") is None:
            if self._store.count(self._url.name):
                return  # Filled by a run before, whose index stands.
            self.documents.put(migration, "threshold", json.dumps(threshold))
        self._store.set_indexing_threshold(self._url.name, 0)

    def _wanted(self, vectors: tuple[VectorSpec, ...]) -> list[dict[str, Any]]:
        wanted: dict[str, dict[str, Any]] = {}
        for spec in vectors:
            name = stored_name(spec.name) if self.native else spec.name
            entry = {"name": name, "kind": spec.kind, "dim": spec.dim}
            if spec.kind != "sparse":
                entry["distance"] = self._url.distance
            if wanted.get(name, entry) != entry:
                raise RefusedError(
                    "refused",
                    f"vectors `{name}` of the source are of several kinds or dimensions; a collection takes one",
                )
            wanted[name] = entry
        return [wanted[name] for name in sorted(wanted)]

    def begin_range(self, part: Range) -> None:
        """Nothing to do: points go straight into the collection."""

    def end_range(self, part: Range) -> None:
        """Nothing to do: every upsert was acknowledged."""

    def image(self, records: Batch) -> Batch:
        """At length one where the metric is Cosine; through the profile and back where that is not ours."""
        records = self._scaled(self._without_given_up(records))
        return records if self.native else self._given_back(self._encode(records)[0])

    def _cosine_names(self, records: Batch) -> list[str]:
        """Names of the vectors that the collection brings to length one."""
        cosine = self._cosine()
        if cosine is None and self._url.distance != "cosine":
            cosine = set()
        names = sorted({name for name, kind, _, _ in records.vector_specs() if kind != 1})
        return [n for n in names if cosine is None or (stored_name(n) if self.native else n) in cosine]

    def _scaled(self, records: Batch) -> Batch:
        """The records with the vectors that a Cosine collection leaves alone."""
        chosen = self._cosine_names(records)
        return normalize_vectors(records, chosen) if chosen else records

    def _not_finite(self, records: Batch) -> list[int]:
        """Rows with a vector that has no length one, of which a Cosine collection makes something else."""
        chosen = self._cosine_names(records)
        return vectors_not_finite(records, chosen) if chosen else []

    def _without_given_up(self, records: Batch) -> Batch:
        """The records without the vectors that no collection keeps and whose loss was accepted."""
        finite = self._cosine_names(records) if _NOT_FINITE in self._accepted else []
        unnamed = (stored_name("") if self.native else "") if _SEVERAL in self._accepted else None
        return records if not finite and unnamed is None else give_up_vectors(records, finite=finite, unnamed=unnamed)

    def _finite(self, records: Batch) -> tuple[Batch, list[Quarantined]]:
        """The records without those that have such vectors, unless their loss was accepted."""
        odd = [] if _NOT_FINITE in self._accepted else self._not_finite(records)
        if not odd:
            return records, []
        bad = Mapper.quarantine(records.take(odd), "gap", f"the target cannot hold: {_NOT_FINITE}")
        return records.take(sorted(set(range(len(records))) - set(odd))), [Quarantined(*row) for row in bad]

    def _encode(self, records: Batch, marker: str | None = None) -> tuple[Batch, list[int], list[Quarantined]]:
        raw, rows, bad, _ = self._mapper.encode(records, namespace=NAMESPACE, accepted=self._accepted, marker=marker)
        return raw, rows, [Quarantined(*row) for row in bad]

    def _given_back(self, raw: Batch) -> Batch:
        """Raw records of a foreign layout as the collection gives them back."""
        return self._mapper.decode(qdrant_given_back(raw)[0])[0]

    def fit(self, records: Batch) -> tuple[Batch, list[Quarantined]]:
        """See `memferry.backends.api.Foreign`."""
        records, odd = self._finite(records)
        raw, rows, bad = self._encode(records)
        bad += odd
        altered = [] if "doubles" in self._accepted else [rows[row] for row in qdrant_given_back(raw)[1]]
        if altered:
            whole = Mapper.quarantine(records.take(altered), "rejected", "the target cannot hold: doubles")
            bad += [Quarantined(*row) for row in whole]
            rows = sorted(set(rows) - set(altered))
        return records.take(rows), bad

    def filed(self, records: Batch) -> list[tuple[str, str]]:
        """See `memferry.backends.api.Foreign`."""
        return self.filed_under(records.identities())

    def filed_under(self, identities: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """See `memferry.backends.api.Foreign`."""
        keys = store_keys(identities, NAMESPACE)
        return [(kind, key) for (kind, _), key in zip(identities, keys, strict=True)]

    def add_places(self, keys: Keys, records: Batch) -> None:
        """See `memferry.backends.api.Placed`: a UUID is kept as the id of a point, whatever the kind."""
        keys.add_places(records, NAMESPACE)

    def in_places(self, keys: Keys, records: Batch) -> bytes:
        """See `memferry.backends.api.Placed`."""
        return keys.contains_places(records, NAMESPACE)

    def gaps(self, records: Batch) -> list[tuple[str, int, str]]:
        """See `memferry.backends.api.Target`."""
        gaps = self._mapper.gaps(records)
        if not self.native:
            identities = records.identities()
            keys = store_keys(identities, NAMESPACE)
            changed = [i for (_, i), key in zip(identities, keys, strict=True) if i != key]
            gaps += [("ids", len(changed), changed[0])] if changed else []
            # Also of records that have other gaps.
            raw, rows, _, _ = self._mapper.encode(records, namespace=NAMESPACE, accepted=gap_names())
            altered = qdrant_given_back(raw)[1]
            gaps += [("doubles", len(altered), identities[rows[altered[0]]][1])] if altered else []
        if odd := self._not_finite(records):
            gaps.append((_NOT_FINITE, len(odd), records.take(odd[:1]).identities()[0][1]))
        scaled = records.unlike(self._scaled(records))
        return [*gaps, ("vector-lengths", *scaled)] if scaled else gaps

    def fetch(self, records: Batch) -> Batch:
        """See `memferry.backends.api.Target`."""
        found, bad = self._get(records)
        refuse_damaged(bad)
        if self.native and (why := refusal_of_others(records, found)):
            raise StoreError("refused", why)
        return self._state.mark(found) if self._state else found

    def fetch_readable(self, records: Batch) -> Batch:
        """The same without points that are no records, or of another kind: for one who does not write over them."""
        found = self._get(records)[0]
        return of_their_kind(records, found) if self.native else found

    def _get(self, records: Batch) -> tuple[Batch, list[Quarantined]]:
        keys = store_keys(records.identities(), NAMESPACE)
        found, bad, _ = self._mapper.decode(self._store.get(self._url.name, keys))
        return found, [Quarantined(*row) for row in bad]

    def write(self, part: Range, records: Batch, migration: str, *, fresh: bool) -> list[Quarantined]:  # noqa: ARG002
        """See `memferry.backends.api.Target`."""
        records, odd = self._finite(records)
        records = self._scaled(self._without_given_up(records))
        raw, rows, quarantined = self._encode(records, migration if self.native else None)
        quarantined += odd
        if self._state is None:
            refused = self._store.upsert(self._url.name, raw)
        else:
            images = self._given_back(raw)
            self._state.intend(images, migration)
            failpoint("intended")
            refused = self._store.upsert(self._url.name, raw)
            failpoint("acknowledged")
            there = bytearray(b"\1" * len(images))
            for row, _ in refused:
                there[row] = 0
            self._state.confirm(images.filter(bytes(there)), migration)
        for row, reason in refused:
            whole = Mapper.quarantine(records.take([rows[row]]), "rejected", reason)
            quarantined += [Quarantined(*entry) for entry in whole]
        return quarantined

    def delete(self, identities: list[tuple[str, str]]) -> int:
        """See `memferry.backends.api.Target`."""
        self._store.delete(self._url.name, store_keys(identities, NAMESPACE))
        if self._state:
            self._state.forget(identities)
        return len(identities)

    def restore(self, records: Batch) -> None:
        """See `memferry.backends.api.Target`."""
        exact = load_mapper(self.profile, "point", filling=False)
        raw, rows, bad, _ = exact.encode(records, namespace=NAMESPACE)
        raw = qdrant_to_come_back(raw)
        if self._state:
            self._state.release(self._given_back(raw))
        refused = [
            (records.take([rows[row]]).identities()[0], why) for row, why in self._store.upsert(self._url.name, raw)
        ]
        refused += [((kind or "", identity or key), message) for key, kind, identity, _, message, _ in bad]
        for (kind, identity), why in refused:
            raise StoreError(
                "refused", f"{len(refused)} records could not be put back, first {kind} {identity!r}: {why}"
            )

    def finish(self, migration: str, ranges: list[Range]) -> None:  # noqa: ARG002
        """Lets the server build its index again."""
        threshold = self.documents.get(migration, "threshold")
        if threshold is not None:
            self._store.set_indexing_threshold(self._url.name, json.loads(threshold))
            self.documents.delete(migration, "threshold")

    def drop_created(self, migration: str) -> None:
        """Drops the collection if `prepare` made it and it is empty again."""
        if self._state:
            self._state.drop(migration)
        made = self.documents.get(migration, "created") == self._url.name
        if made and self._store.exists(self._url.name) and self._store.count(self._url.name) == 0:
            self._store.delete_collection(self._url.name)

    def close(self) -> None:
        """The connection ends with its object."""
