"""Re-embedding: the vector of one name is replaced by one of another model. See `docs/re-embedding.md`.

`Embedding` is what the user asked for, part of the plan and its hash; `Embedder` carries it out, the same in copy and
proof. What an endpoint answered is kept in the state directory before it is used, so that nothing is asked twice and
every pass has the same numbers.
"""

from __future__ import annotations

import json
import math
import struct
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

from memferry._native import Batch, EmbeddingCache, blake3_hex, text_key
from memferry._native import Embedding as NativeEmbedding
from memferry.backends.state import state_directory
from memferry.endpoint import Endpoint, EndpointSettings, TextRefusedError, check_endpoint_url
from memferry.errors import MemferryError, RefusedError, StoreError, TransientError
from memferry.model import KINDS
from memferry.retry import retrying

__all__ = ["TEXTS", "Embedder", "Embedding", "EmbeddingText", "Outcome", "cache_file", "reached"]

EmbeddingText = Literal["content-or-name", "content", "name"]
TEXTS: Final = ("content-or-name", "content", "name")
_KINDS: Final = KINDS[:3]
"""Kinds with a text of their own."""
_MAX_DIMENSIONS: Final = 65_535

_PROBE: Final = "memferry asks which model answers here."
_ALIKE: Final = 0.999
"""Cosine of two answers of one model to one text; another model is far from it."""

Outcome = tuple[Batch, bytes, list[tuple[str, str | None, str | None, str, str, bytes]], list[tuple[str, int, str]]]
"""Records, a byte a row, quarantined rows, dropped gaps."""


@dataclass(frozen=True)
class Embedding:
    """Which vectors are replaced, and by what.

    Attributes:
        url: Base URL of an OpenAI-compatible endpoint; an unfinished run may go on with another one.
        model: The model, as the endpoint calls it, and as it is recorded.
        dimensions: What the endpoint is asked for; None for what the model gives, which the plan then holds.
        vector: Name of the vector, the old one and the new one; empty for the only one.
        text: Which text of a record is embedded.
        kinds: Kinds whose records get a vector even where they had none.
        keep_old: Name under which the old vector is kept, None where it is given up.
        asked: Whether the dimensions were named by the user: then they are named to the endpoint, too.
    """

    url: str
    model: str
    dimensions: int | None = None
    vector: str = ""
    text: EmbeddingText = "content-or-name"
    kinds: tuple[str, ...] = ()
    keep_old: str | None = None
    asked: bool = False

    def check(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            RefusedError: `invalid`, `url`.
        """
        check_endpoint_url(self.url)
        if not self.model:
            raise RefusedError("invalid", "embedding model: a name is needed")
        if self.dimensions is not None and not 1 <= self.dimensions <= _MAX_DIMENSIONS:
            raise RefusedError("invalid", f"embedding dimensions: got {self.dimensions}, allowed: 1 to 65,535")
        if self.text not in TEXTS:
            raise RefusedError("invalid", f"embedding text: got `{self.text}`, allowed: {', '.join(TEXTS)}")
        for kind in self.kinds:
            if kind not in _KINDS:
                raise RefusedError("invalid", f"embedding kinds: got `{kind}`, allowed: {', '.join(_KINDS)}")
        if self.keep_old == self.vector:
            raise RefusedError("invalid", "the old vector cannot be kept under the name of the new one")

    def same_as(self, asked: Embedding | None) -> bool:
        """Whether `asked` comes to the same; where it is asked is not part of it."""
        if asked is None:
            return False
        mine = self if asked.dimensions is not None else replace(self, dimensions=None, asked=False)
        return replace(mine, url="") == replace(asked, url="", asked=mine.asked)

    def as_asked(self) -> Embedding:
        """What the user asked for: without dimensions that the model chose."""
        return self if self.asked else replace(self, dimensions=None)

    @classmethod
    def from_json(cls, value: dict[str, Any] | None) -> Embedding | None:
        """Reads what `dataclasses.asdict` and JSON made of one."""
        return None if value is None else cls(**{**value, "kinds": tuple(value["kinds"])})


def cache_file(model: str, dimensions: int) -> Path:
    """Where the vectors of a model are kept."""
    name = blake3_hex(json.dumps([model, dimensions]).encode())[:32]
    return state_directory() / "embeddings" / f"{name}.db"


def reached(embedding: Embedding, settings: EndpointSettings) -> tuple[Embedding, bytes]:
    """The embedding with the dimensions that its endpoint gives, and a vector of it; asks for one short text.

    Raises:
        RefusedError: `unauthorized`; `invalid`, where they are not those that were asked for.
        StoreError: It failed.
    """
    settings.check()
    if embedding.dimensions is not None:
        embedding = replace(embedding, asked=True)
    with Endpoint(embedding.url, embedding.model, embedding.dimensions, settings) as endpoint:
        sample = retrying(lambda: endpoint.embed([_PROBE]))[0]
    got = len(sample) // 4
    if embedding.dimensions not in {None, got} or not 1 <= got <= _MAX_DIMENSIONS:
        raise RefusedError("invalid", f"model {embedding.model} gives {got} dimensions, not {embedding.dimensions}")
    if not all(map(math.isfinite, _numbers(sample))):
        raise StoreError("refused", f"model {embedding.model} gives vectors with NaN or infinities in them")
    return replace(embedding, dimensions=got), sample


class Embedder:
    """Puts new vectors into records. Threads may share it."""

    def __init__(
        self,
        embedding: Embedding,
        accepted: tuple[str, ...] | None,
        settings: EndpointSettings,
        stop: threading.Event | None = None,
        sample: bytes | None = None,
    ) -> None:
        """Prepares; nothing is asked before a text is needed.

        Args:
            embedding: What to do, its dimensions known.
            accepted: Gaps that may be dropped; None for all, while they are being looked for.
            settings: How the endpoint is asked.
            stop: Looked at before every request.
            sample: A vector of the model, to show records as they will be.
        """
        named = {name: getattr(embedding, name) for name in ("model", "dimensions", "vector", "keep_old", "text")}
        native = {**named, "kinds": embedding.kinds, "accepted": accepted}
        self._native = NativeEmbedding(json.dumps(native))
        self._embedding = embedding
        self._sample = sample or bytes(4 * (embedding.dimensions or 0))
        self._settings = settings
        self._url = settings.url or embedding.url
        self._stop = stop or threading.Event()
        self._lock = threading.Lock()
        self._requests = threading.Semaphore(settings.parallelism)
        self._asked: dict[bytes, Future[None]] = {}
        self._refused: dict[bytes, str] = {}
        self._probing = threading.Lock()
        self._probed = False
        self._opened: EmbeddingCache | None = None

    def preview(self, records: Batch) -> Outcome:
        """What records will look like; nothing is asked."""
        return self._native.preview(records, self._sample)

    def extent(self, records: Batch) -> tuple[int, int]:
        """How many records get a new vector, and the bytes of their texts."""
        return self._native.extent(records)

    def apply(self, records: Batch) -> Outcome:
        """The records with their new vectors.

        Raises:
            StoreError: The endpoint failed, and trying again did not help.
            MemferryError: `interrupted`.
        """
        cache = self._cache()
        self._ask(records, cache)
        return self._native.apply(records, cache, list(self._refused.items()))

    def _cache(self) -> EmbeddingCache:
        with self._lock:
            if self._opened is None:
                assert self._embedding.dimensions is not None  # noqa: S101 - for the type checker
                path = cache_file(self._embedding.model, self._embedding.dimensions)
                try:
                    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                except OSError as error:
                    raise StoreError("io", f"the state directory cannot be written: {error}") from error
                self._opened = EmbeddingCache(path, self._embedding.model, self._embedding.dimensions)
            return self._opened

    def _ask(self, records: Batch, cache: EmbeddingCache) -> None:
        """Has every text of `records` in the cache or refused; each is asked by one thread."""
        mine: list[tuple[bytes, str]] = []
        theirs: list[Future[None]] = []
        with self._lock:
            # Under the lock: else a text that another thread has just kept would be taken for one that nobody asks.
            for key, text in self._native.missing(records, cache):
                if key in self._asked:
                    theirs.append(self._asked[key])
                elif key not in self._refused:
                    mine.append((key, text))
            promised: Future[None] = Future()
            self._asked.update(dict.fromkeys((key for key, _ in mine), promised))
        try:
            if mine:
                self._request_all(mine, cache)
        except BaseException as error:
            promised.set_exception(error)
            raise
        else:
            promised.set_result(None)
        finally:
            with self._lock:
                for key, _ in mine:
                    del self._asked[key]
        for future in theirs:
            future.result()

    def _request_all(self, texts: list[tuple[bytes, str]], cache: EmbeddingCache) -> None:
        asked = self._embedding.dimensions if self._embedding.asked else None
        with Endpoint(self._url, self._embedding.model, asked, self._settings) as endpoint:
            self._probe(endpoint, cache)
            with ThreadPoolExecutor(self._settings.parallelism, "memferry-embedding") as pool:
                batches = [pool.submit(self._request, endpoint, cache, batch) for batch in self._batches(texts)]
                try:
                    for batch in batches:
                        batch.result()
                finally:
                    pool.shutdown(cancel_futures=True)

    def _batches(self, texts: list[tuple[bytes, str]]) -> Iterator[list[tuple[bytes, str]]]:
        batch: list[tuple[bytes, str]] = []
        size = 0
        for key, text in texts:
            batch.append((key, text))
            size += len(text.encode())
            if len(batch) >= self._settings.batch or size >= self._settings.batch_bytes:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def _request(self, endpoint: Endpoint, cache: EmbeddingCache, batch: list[tuple[bytes, str]]) -> None:
        """Asks for a batch and keeps the answer; halves one that is not taken, down to the text that is meant."""
        try:
            with self._requests:
                vectors = self._tried(endpoint, [text for _, text in batch])
        except TextRefusedError as error:
            if len(batch) == 1:
                with self._lock:
                    self._refused[batch[0][0]] = str(error)
                return
            half = len(batch) // 2
            self._request(endpoint, cache, batch[:half])
            self._request(endpoint, cache, batch[half:])
            return
        cache.keep([key for key, _ in batch], vectors)

    def _tried(self, endpoint: Endpoint, texts: list[str]) -> list[bytes]:
        if self._stop.is_set():
            raise MemferryError("interrupted", "interrupted", hint="the same command resumes")
        try:
            return retrying(lambda: endpoint.embed(texts))
        except TransientError as error:
            # It was tried again here; a page that does so once more would only wait twice as long.
            raise StoreError(error.code, str(error)) from error

    def _probe(self, endpoint: Endpoint, cache: EmbeddingCache) -> None:
        """Once: whether the model that answers is the one whose vectors are kept.

        Raises:
            RefusedError: `plan-changed`.
        """
        with self._probing:
            if self._probed:
                return
            now, then = self._tried(endpoint, [_PROBE])[0], cache.get(_PROBE)
            cache.keep([text_key(_PROBE)], [now])
            if then is not None and _cosine(now, then) < _ALIKE:
                raise RefusedError(
                    "plan-changed",
                    f"{self._url} answers for model {self._embedding.model} with other vectors than before",
                    hint="it is another model under the same name; docs/re-embedding.md says how to begin anew",
                )
            self._probed = True


def _numbers(vector: bytes) -> tuple[float, ...]:
    return struct.unpack(f"<{len(vector) // 4}f", vector[: len(vector) // 4 * 4])


def _cosine(left: bytes, right: bytes) -> float:
    one, other = _numbers(left), _numbers(right)
    lengths = math.sqrt(math.fsum(x * x for x in one) * math.fsum(y * y for y in other))
    return math.fsum(x * y for x, y in zip(one, other, strict=True)) / lengths if lengths else 1.0
