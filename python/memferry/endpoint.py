"""An OpenAI-compatible `/embeddings` endpoint. One request at a time; tries again nothing, see `memferry.retry`."""

from __future__ import annotations

import base64
import binascii
import email.utils
import os
import struct
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from memferry.errors import RefusedError, StoreError, TransientError

if TYPE_CHECKING:
    import httpx

__all__ = [
    "Endpoint",
    "EndpointSettings",
    "TextRefusedError",
    "check_endpoint_url",
    "key_from_file",
    "settings_from_environment",
]

_MAX_WAIT_SECS: Final = 60.0
"""The longest wait that an endpoint can ask for; then it is asked again."""
_MAX_TOLD_CHARS: Final = 300
_MAX_KEY_BYTES: Final = 64 << 10
_UNAVAILABLE: Final = frozenset({408, 409, 425, 500, 502, 503, 504, 529})
_NOT_THESE_TEXTS: Final = frozenset({400, 413, 422})
"""What an endpoint says of texts it does not take, and of requests it does not understand."""


class TextRefusedError(StoreError):
    """The endpoint does not take these texts, or nothing at all."""


@dataclass(frozen=True)
class EndpointSettings:
    """How an endpoint is asked; nothing of it changes what it answers.

    Attributes:
        api_key: Its key; never printed.
        batch: Most texts of a request.
        batch_bytes: Text after which a request ends; one text may go beyond it.
        parallelism: Requests at a time.
        timeout_secs: How long an answer may take.
        url: Asked instead of the endpoint that the plan names; None for that.
    """

    api_key: str | None = field(default=None, repr=False)
    batch: int = 64
    batch_bytes: int = 256 << 10
    parallelism: int = 4
    timeout_secs: float = 60.0
    url: str | None = None

    def check(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            RefusedError: `invalid`.
        """
        for name, value, most in (("batch", self.batch, 2048), ("parallelism", self.parallelism, 64)):
            if not 1 <= value <= most:
                raise RefusedError("invalid", f"embedding {name}: got {value}, allowed: 1 to {most}")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.isprintable()):
            raise RefusedError("invalid", "the API key of the embedding endpoint has characters that no header takes")


def key_from_file(path: Path) -> str:
    """Reads a key from a file with nothing else in it.

    Raises:
        RefusedError: `invalid`.
    """
    try:
        with path.open("rb") as file:
            return file.read(_MAX_KEY_BYTES).decode().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RefusedError("invalid", f"the key file {path} cannot be read: {error}") from error


def check_endpoint_url(url: str) -> None:
    """Refuses what is no base URL, and one that has a secret in it.

    Raises:
        RefusedError: `url`.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        usable = False
    if not usable:
        raise RefusedError("url", "embedding endpoint: a URL as in `https://api.openai.com/v1` is needed")
    if parts.username is not None or parts.query or parts.fragment:
        raise RefusedError(
            "url",
            f"embedding endpoint `{parts.scheme}://{parts.hostname}{parts.path}`: neither user, query nor fragment",
            hint="the key comes from MEMFERRY_EMBEDDING_API_KEY, or a variable or file that you name",
        )


class Endpoint:
    """Connections to an endpoint; threads may share it."""

    def __init__(self, url: str, model: str, dimensions: int | None, settings: EndpointSettings) -> None:
        """Prepares to ask.

        Args:
            url: The base URL, as OpenAI's clients take it.
            model: The model to ask for.
            dimensions: What to ask for where the model has a choice; None for its own.
            settings: Key and bounds.

        Raises:
            RefusedError: `extra-missing`.
        """
        try:
            import httpx  # noqa: PLC0415 - an optional package
        except ModuleNotFoundError as error:
            raise RefusedError(
                "extra-missing", "embedding needs the package httpx", hint="pip install 'memferry[embeddings]'"
            ) from error
        self._errors = (httpx.TransportError, httpx.DecodingError)
        self._url = url.rstrip("/").removesuffix("/embeddings") + "/embeddings"
        self._asked: dict[str, Any] = {"model": model}
        if dimensions is not None:
            self._asked["dimensions"] = dimensions
        self._key = settings.api_key
        headers = {"Authorization": f"Bearer {settings.api_key}"} if settings.api_key else {}
        self._client = httpx.Client(headers=headers, timeout=settings.timeout_secs, follow_redirects=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends all connections."""
        self._client.close()

    def embed(self, texts: list[str]) -> list[bytes]:
        """The vectors of some texts, in their order, `f32` little-endian; not looked at.

        Raises:
            TransientError: `throttled`, `unavailable`.
            TextRefusedError: `refused`: it does not take these texts.
            StoreError: `refused`: what it gave is no answer.
            RefusedError: `unauthorized`.
        """
        # As OpenAI's own client asks; who does not know base64 gives numbers.
        body = {**self._asked, "input": texts, "encoding_format": "base64"}
        try:
            response = self._client.post(self._url, json=body)
        except self._errors as error:
            what = str(error) or type(error).__name__
            raise TransientError("unavailable", f"embedding endpoint {self._url}: {what}") from error
        if response.status_code != 200:
            raise self._failure(response)
        try:
            return _vectors(response.json()["data"], len(texts))
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise StoreError("refused", f"embedding endpoint {self._url}: no answer to it: {error}") from error

    def _failure(self, response: httpx.Response) -> Exception:
        status, place = response.status_code, f"embedding endpoint {self._url}"
        if status in {401, 403}:
            # What it says may have the key in it.
            hint = "MEMFERRY_EMBEDDING_API_KEY, or the variable or file that you named, holds the key"
            return RefusedError("unauthorized", f"{place}: it does not take the key (HTTP {status})", hint=hint)
        if status == 429:
            wait = _wait_secs(response.headers.get("retry-after"))
            return TransientError("throttled", f"{place}: it asks to be called later", retry_after_secs=wait)
        told = f"{place}: HTTP {status}: {_told(response, self._key)}"
        if status in _UNAVAILABLE:
            wait = _wait_secs(response.headers.get("retry-after"))
            return TransientError("unavailable", told, retry_after_secs=wait)
        return TextRefusedError("refused", told) if status in _NOT_THESE_TEXTS else StoreError("refused", told)


def _told(response: httpx.Response, key: str | None) -> str:
    """What the endpoint says, without the key, which it may repeat."""
    try:
        error = response.json()["error"]
        text = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError):
        text = response.text
    said = str(text).replace(key, "***") if key else str(text)
    return " ".join(said.split())[:_MAX_TOLD_CHARS]


def _wait_secs(header: str | None) -> float | None:
    """What `Retry-After` asks for: seconds or a date."""
    if header is None:
        return None
    try:
        secs = float(header)
    except ValueError:
        try:
            secs = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(secs, 0.1), _MAX_WAIT_SECS)


def _vectors(data: list[dict[str, Any]], wanted: int) -> list[bytes]:
    """The vectors of an answer in the order of the texts."""
    if len(data) != wanted:
        raise ValueError(f"{len(data)} vectors for {wanted} texts")
    vectors: dict[int, bytes] = {one["index"]: _floats(one["embedding"]) for one in data}
    return [vectors[place] for place in range(wanted)]


def _floats(embedding: object) -> bytes:
    if isinstance(embedding, str):
        try:
            return base64.b64decode(embedding, validate=True)
        except binascii.Error as error:
            raise ValueError("a vector that is no base64") from error
    if not isinstance(embedding, list) or not all(type(number) in {int, float} for number in embedding):
        raise ValueError("a vector that is no list of numbers")
    return struct.pack(f"<{len(embedding)}f", *embedding)


def settings_from_environment(**chosen: Any) -> EndpointSettings:
    """Settings with the key of `MEMFERRY_EMBEDDING_API_KEY`, where none is given."""
    chosen.setdefault("api_key", os.environ.get("MEMFERRY_EMBEDDING_API_KEY"))
    return EndpointSettings(**chosen)
