"""Reading a Qdrant collection."""

from __future__ import annotations

import uuid

from memferry._native import Mapper, QdrantStore
from memferry.backends.api import WRITE_SECS
from memferry.model import Limits, Page, Quarantined, Range, Stream
from memferry.profiles import load_mapper
from memferry.urls import StoreUrl

__all__ = ["QdrantSource", "connect"]

STREAM = "points"


def connect(url: StoreUrl) -> QdrantStore:
    """A client of the server behind `url`."""
    scheme = "https" if url.tls else "http"
    ca_file = url.secrets.ca_file
    return QdrantStore(
        f"{scheme}://{url.host}:{url.port}",
        api_key=url.secrets.api_key,
        ca_pem=ca_file.read_text("utf-8") if ca_file else None,
        timeout_secs=WRITE_SECS,
    )


def identity_of(url: StoreUrl) -> str:
    """Address and collection: a foreign collection has no id of its own."""
    return url.identity or f"qdrant:{url.host}:{url.port}/{url.name}"


class QdrantSource:
    """One collection. One stream; keys are point ids, numbers before UUIDs."""

    backend = "qdrant"

    def __init__(self, url: StoreUrl) -> None:
        self._url = url
        self._store = connect(url)
        self._mapper = load_mapper(url.profile, "point")
        self._store.info(url.name)
        self.profile = url.profile
        self.native = url.profile == "native"
        self.identity = identity_of(url)

    def streams(self) -> list[Stream]:
        """The one stream."""
        return [Stream(STREAM, tuple(sorted(self._mapper.kinds)), self._store.count(self._url.name))]

    def split(self, stream: Stream, parts: int) -> list[tuple[str | None, str | None]]:  # noqa: ARG002
        """Cuts the space of UUIDs; numbers come before them, so they are in the first slice."""
        cuts = [str(uuid.UUID(int=(1 << 128) * i // parts)) for i in range(1, parts)]
        return list(zip([None, *cuts], [*cuts, None], strict=True))

    def reader(self) -> QdrantReader:
        """The client serves all threads."""
        return QdrantReader(self._store, self._url.name, self._mapper)

    def witness(self) -> None:
        """Nothing: ranges are of keys, and hold however the store changes."""

    def close(self) -> None:
        """The connection ends with its object."""


class QdrantReader:
    """Scrolls through ranges of point ids."""

    def __init__(self, store: QdrantStore, collection: str, mapper: Mapper) -> None:
        self._store = store
        self._collection = collection
        self._mapper = mapper

    def read(self, part: Range, cursor: str | None, limits: Limits) -> Page:
        """See `memferry.backends.api.Reader`."""
        raw, read, following = self._store.scroll(
            self._collection,
            cursor or part.start,
            part.end,
            limits.records,
            limits.size_bytes,
        )
        records, bad, exploded = self._mapper.decode(raw)
        return Page(records, [Quarantined(*row) for row in bad], read, exploded, following)
