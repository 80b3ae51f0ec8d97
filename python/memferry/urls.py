"""Store URLs: `agents.db`, `jsonl:memory.jsonl`, `qdrant://host:6334/collection?profile=mem0`."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from memferry.errors import RefusedError

__all__ = [
    "Secrets",
    "StoreUrl",
    "hybrid_url",
    "is_utf8",
    "parse_url",
    "same_store",
    "secrets_from_environment",
    "without_secrets",
]

_SUFFIXES: Final = {
    ".db": "embedded",
    ".sqlite": "embedded",
    ".sqlite3": "embedded",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".gz": "jsonl",
    ".zst": "jsonl",
}
_FILES: Final = frozenset({"embedded", "jsonl"})
_SERVERS: Final = {"qdrant": 6334, "neo4j": 7687}
_OPTIONS: Final = frozenset({"profile", "tls", "identity", "distance", "key"})
_DISTANCES: Final = ("cosine", "dot", "euclid", "manhattan")
_MAX_URL_CHARS: Final = 4096
_MAX_NAME_BYTES: Final = 220
"""File systems take 255; what memferry puts beside a file has a longer name."""


@dataclass(frozen=True)
class Secrets:
    """What a store wants to know and nobody else may see; never printed.

    Attributes:
        api_key: Key of a Qdrant server.
        password: Password of a Neo4j user.
        ca_file: PEM file of the authority that signed the server's certificate.
    """

    api_key: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    ca_file: Path | None = None


@dataclass(frozen=True)
class StoreUrl:
    """A parsed store URL. Holds no secret.

    Attributes:
        text: The URL as given.
        backend: Name of the backend.
        profile: Name of the profile.
        path: File of a file backend.
        host: Host of a server backend.
        port: Its port.
        name: Collection or database.
        user: User name, if the URL gives one.
        tls: Whether to speak TLS.
        identity: Identity set by the user, or None.
        distance: Metric of a collection that has to be made.
        graph: The half of a hybrid store that holds the records.
        vectors: The half that holds their vectors.
        key: Property that holds the id of a node or relationship in a graph of others, or None.
        secrets: Credentials, from the environment or a file, never from the URL.
    """

    text: str
    backend: str
    profile: str = "native"
    path: Path | None = None
    host: str = ""
    port: int = 0
    name: str = ""
    user: str | None = None
    tls: bool = False
    identity: str | None = None
    distance: str = "cosine"
    graph: StoreUrl | None = None
    vectors: StoreUrl | None = None
    key: str | None = None
    secrets: Secrets = field(default_factory=Secrets, repr=False, compare=False)

    @property
    def parts(self) -> tuple[StoreUrl, ...]:
        """The stores that it is made of: both halves of a hybrid, else itself."""
        return (self,) if self.graph is None or self.vectors is None else (self.graph, self.vectors)


def hybrid_url(graph: StoreUrl, vectors: StoreUrl, identity: str | None = None) -> StoreUrl:
    """A store of two halves.

    Args:
        graph: The Neo4j database that holds the records and the ledger.
        vectors: The Qdrant collection that holds their vectors.
        identity: Identity set by the user, or None.

    Raises:
        RefusedError: `url`, where a half is of another backend.

    >>> hybrid_url(parse_url("neo4j://localhost"), parse_url("qdrant://localhost/agents")).text
    'hybrid: --graph neo4j://localhost --vectors qdrant://localhost/agents'
    """
    for option, url, backend in (("--graph", graph, "neo4j"), ("--vectors", vectors, "qdrant")):
        if url.backend != backend:
            raise _refuse(url.text, f"{option} of a hybrid store takes a {backend} store, not {url.backend}")
        if url.profile != "native":
            raise RefusedError("profile", f"{option} of a hybrid store: profile `{url.profile}`, allowed: native")
    text = f"hybrid: --graph {graph.text} --vectors {vectors.text}"
    return StoreUrl(text=text, backend="hybrid", identity=identity, graph=graph, vectors=vectors)


def same_store(left: StoreUrl, right: StoreUrl) -> bool:
    """Whether a store, or a half of one, stands on both sides."""
    return any(_same_part(one, other) for one in left.parts for other in right.parts)


def _same_part(left: StoreUrl, right: StoreUrl) -> bool:
    if left.path is not None and right.path is not None:
        try:
            # Links of either kind are other names of one file.
            return left.path.samefile(right.path)
        except OSError:
            return os.path.realpath(left.path) == os.path.realpath(right.path)
    return (left.backend, left.host, left.port, left.name) == (right.backend, right.host, right.port, right.name)


def secrets_from_environment(side: str, key_env: str | None = None, password_env: str | None = None) -> Secrets:
    """Credentials out of the environment.

    Args:
        side: `SOURCE` or `TARGET`: the variables are `MEMFERRY_<side>_API_KEY`, `_PASSWORD` and `_CA_FILE`.
        key_env: Another variable for the API key.
        password_env: Another one for the password.
    """
    prefix = f"MEMFERRY_{side}_"
    ca_file = os.environ.get(f"{prefix}CA_FILE")
    return Secrets(
        api_key=os.environ.get(key_env or f"{prefix}API_KEY"),
        password=os.environ.get(password_env or f"{prefix}PASSWORD"),
        ca_file=Path(ca_file) if ca_file else None,
    )


def _refuse(text: str, why: str, hint: str | None = None) -> RefusedError:
    return RefusedError("url", f"store URL `{_shown(text)}`: {why}", hint=hint)


def _shown(text: str) -> str:
    """The URL without what may be a secret: user, password and options."""
    front, _, options = text.partition("?")
    if "@" in options:
        # The `?` may stand in a password: then nothing but the backend is surely none of it.
        front = re.sub(r"(?<=//).*", "***", front, flags=re.DOTALL)
    # A password may hold a `/` too.
    return re.sub(r"(?<=//).*@|[^/\s]*@", "***@", front, flags=re.DOTALL)


def without_secrets(word: str) -> str:
    """A word of a command line as it may be told to others, before it has been looked at.

    >>> without_secrets("qdrant://localhost/agents?profile=mem0")
    'qdrant://localhost/agents?profile=mem0'
    >>> without_secrets("--graph=neo4j://ann:word@localhost?password=word")
    '--graph=neo4j://***@localhost?***'
    """
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    try:
        parse_url(value)
    except RefusedError:
        return f"{option}{equals}{_shown(value)}{'?***' if '?' in value else ''}"
    return word  # A URL that is accepted holds no secret.


def parse_url(text: str) -> StoreUrl:
    """Reads a store URL.

    Args:
        text: A path, or `backend:...`.

    Raises:
        RefusedError: `url`, with what was got and what is allowed.

    >>> parse_url("agents.db").backend
    'embedded'
    >>> parse_url("jsonl:memory.json?profile=server-memory").profile
    'server-memory'
    >>> parse_url("qdrant://localhost/agents").port
    6334
    """
    if len(text) > _MAX_URL_CHARS or "\0" in text:
        raise _refuse(_shown(text)[:80], f"longer than {_MAX_URL_CHARS} characters or with a NUL")
    if not is_utf8(text):
        raise _refuse(ascii(_shown(text))[1:-1], "that is not UTF-8", "give the file another name, or a link")
    scheme = re.match(r"([a-z][a-z0-9+]*):", text)
    if scheme is None:
        path, _, query = text.partition("?")
        backend = _SUFFIXES.get(Path(path).suffix)
        if backend is None:
            hint = "name the backend, as in `jsonl:FILE` or `embedded:FILE`"
            raise _refuse(text, f"the ending `{Path(_shown(path)).suffix}` names no backend", hint)
        return _file(text, backend, path, query)
    backend = scheme[1]
    if backend in _FILES:
        path, _, query = text[len(backend) + 1 :].partition("?")
        return _file(text, backend, path.removeprefix("//"), query)
    if backend in _SERVERS:
        return _server(text, backend)
    if backend == "neo4j+s":
        return _server(text, "neo4j", tls=True)
    if backend == "hybrid":
        place, _, query = text[len(backend) + 1 :].partition("?")
        if place:
            raise _refuse(text, "its halves are named by --graph and --vectors")
        return StoreUrl(text=text, backend=backend, identity=_options(text, backend, query).get("identity"))
    allowed = ", ".join(sorted([*_FILES, *_SERVERS, "hybrid"]))
    raise _refuse(text, f"unknown backend `{backend}`, allowed: {allowed}")


def _options(text: str, backend: str, query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    # Elsewhere a `key` is more likely a secret.
    allowed = _OPTIONS if backend == "neo4j" else _OPTIONS - {"key"}
    for name in options:
        if name not in allowed:
            raise _refuse(text, f"unknown option `{_shown(name)}`, allowed: {', '.join(sorted(allowed))}")
    return options


def _file(text: str, backend: str, path: str, query: str) -> StoreUrl:
    if not path:
        raise _refuse(text, "no file is named")
    longest = max(len(os.fsencode(part)) for part in (*Path(path).parts, Path(path).name))
    if longest > _MAX_NAME_BYTES:
        raise RefusedError(
            "invalid", f"a name of {longest} bytes in the path of a store, at most {_MAX_NAME_BYTES} fit"
        )
    _check_place(text, path)
    options = _options(text, backend, query)
    return StoreUrl(
        text=text,
        backend=backend,
        profile=options.get("profile", "native"),
        path=Path(path),
        identity=options.get("identity"),
    )


def _check_place(text: str, path: str) -> None:
    """Refuses a file that no plan and no ledger could name."""
    try:
        place = str(Path(path).resolve())
    except RuntimeError:
        raise _refuse(text, "the link leads back to itself") from None
    except OSError:
        return  # Who opens it says why.
    if not is_utf8(place):
        raise _refuse(
            text, f"its folder or the file it leads to has a name that is not UTF-8, {place!a}", "rename that"
        )


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: names of files need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _server(text: str, backend: str, *, tls: bool = False) -> StoreUrl:
    try:
        parts = urlsplit(text)
        port = parts.port or _SERVERS[backend]
    except ValueError:
        # What is said of it repeats it, and it may be a part of a password.
        raise _refuse(
            text, "that is no host and port", f"for example {backend}://localhost:{_SERVERS[backend]}"
        ) from None
    # Qdrant knows no users: what stands there is a key.
    if parts.password is not None or (backend == "qdrant" and parts.username):
        raise _refuse(
            f"{backend}://{parts.hostname}{parts.path}",
            "a password in a URL ends up in logs and shell histories",
            "put it into an environment variable and name that with --source-password-env or --target-password-env",
        )
    if not parts.hostname:
        raise _refuse(text, "no host is named")
    options = _options(text, backend, parts.query)
    distance = options.get("distance", "cosine")
    if distance not in _DISTANCES:
        raise _refuse(text, f"unknown distance `{distance}`, allowed: {', '.join(_DISTANCES)}")
    name = unquote(parts.path.strip("/"))
    if backend == "qdrant" and not name:
        raise _refuse(text, "no collection is named", f"for example {backend}://{parts.netloc}/agents")
    return StoreUrl(
        text=text,
        backend=backend,
        profile=options.get("profile", "native"),
        host=parts.hostname,
        port=port,
        name=name,
        user=parts.username,
        tls=tls or options.get("tls", "0") in {"1", "true", "yes"},
        identity=options.get("identity"),
        distance=distance,
        key=options.get("key") or None,
    )
