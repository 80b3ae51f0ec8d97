"""Records as an application sees them: frozen, typed, exact; to and from the native document of `docs/record.md`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from memferry.model import KINDS
from memferry.values import NumberText, from_json, invalid, to_json
from memferry.vectors import Vector

__all__ = ["Kind", "Record", "Scope", "Time"]

Kind: TypeAlias = Literal["entity", "memory", "observation", "relation"]
_TEXTS: Final = ("content", "name", "type", "from_id", "to_id", "owner_id", "supersedes")
_TIMES: Final = ("created_at", "updated_at", "valid_from", "valid_to", "observed_at")
_SCORES: Final = ("confidence", "strength", "importance")
_INT64: Final = 1 << 63
_SPELLED_MICROS: Final = range(-62167219200000000, 253402207200000001)
"""Instants that have a canonical text; a time of these is never a bare number."""


@dataclass(frozen=True)
class Time:
    """A time that a text alone does not say.

    Attributes:
        micros: Microseconds since 1970, or None.
        text: How the source spelled it, or None.
    """

    micros: int | None
    text: str | None = None


@dataclass(frozen=True)
class Scope:
    """Whose a record is."""

    user: str | None = None
    agent: str | None = None
    session: str | None = None
    namespace: str | None = None
    tenant: str | None = None

    def given(self) -> dict[str, str]:
        """The parts that are given."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}


_SCOPES: Final = tuple(f.name for f in fields(Scope))


@dataclass(frozen=True, eq=False)
class Record:
    """One thing that is remembered. Two records are equal when their native documents are, bit by bit.

    Attributes:
        kind: `entity`, `memory`, `observation` or `relation`.
        id: Unique within its kind.
        content: The text.
        name: Of an entity.
        type: Of an entity or a relation.
        from_id: Entity that a relation starts at.
        to_id: Entity that it ends at.
        owner_id: Entity that an observation is about.
        supersedes: Id of the version before.
        provenance: Where it came from: an object, a list or a text.
        scope: Whose it is; a mapping is taken too.
        created_at: A time as it was spelled; a `datetime` is taken too. The same for the other times.
        updated_at: When it was last changed.
        valid_from: Since when it holds.
        valid_to: Until when it holds.
        observed_at: When it was seen.
        confidence: Any double. The same for the other scores.
        strength: How strong it is.
        importance: How important it is.
        version: An i64.
        tags: Ordered; none is not the same as an empty list.
        vectors: Embeddings.
        extra: Everything else: None, bool, int, float, str, bytes, lists and dicts; see also `NumberText`, `Reserved`.
        unmapped: Members that a native document had where a field is expected, and of another type: null, say.

    >>> record = Record("memory", "m1", content="Ann likes tea", scope={"user": "ann"}, extra={"seen": 3})
    >>> Record.from_json(record.to_json()) == record
    True
    >>> record.scope.user
    'ann'
    """

    kind: Kind
    id: str
    _: KW_ONLY
    content: str | None = None
    name: str | None = None
    type: str | None = None
    from_id: str | None = None
    to_id: str | None = None
    owner_id: str | None = None
    supersedes: str | None = None
    provenance: dict[str, Any] | list[Any] | str | None = None
    scope: Scope = field(default_factory=Scope)
    created_at: str | Time | None = None
    updated_at: str | Time | None = None
    valid_from: str | Time | None = None
    valid_to: str | Time | None = None
    observed_at: str | Time | None = None
    confidence: float | None = None
    strength: float | None = None
    importance: float | None = None
    version: int | None = None
    tags: tuple[str, ...] | None = None
    vectors: tuple[Vector, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=dict)
    unmapped: Mapping[str, Any] = field(default_factory=dict)

    if TYPE_CHECKING:
        # What is taken is more than what is held.
        def __init__(
            self,
            kind: Kind,
            id: str,  # noqa: A002 - the field's name
            *,
            content: str | None = None,
            name: str | None = None,
            type: str | None = None,  # noqa: A002
            from_id: str | None = None,
            to_id: str | None = None,
            owner_id: str | None = None,
            supersedes: str | None = None,
            provenance: dict[str, Any] | list[Any] | str | None = None,
            scope: Scope | Mapping[str, str] = ...,
            created_at: str | Time | datetime | None = None,
            updated_at: str | Time | datetime | None = None,
            valid_from: str | Time | datetime | None = None,
            valid_to: str | Time | datetime | None = None,
            observed_at: str | Time | datetime | None = None,
            confidence: float | None = None,
            strength: float | None = None,
            importance: float | None = None,
            version: int | None = None,
            tags: Sequence[str] | None = None,
            vectors: Sequence[Vector] = (),
            extra: Mapping[str, Any] = ...,
            unmapped: Mapping[str, Any] = ...,
        ) -> None: ...

    def __post_init__(self) -> None:
        """Checks types and takes what stands for them.

        Raises:
            RefusedError: `invalid`, naming the field.
        """
        if self.kind not in KINDS:
            raise invalid(f"record: unknown kind `{self.kind}`, allowed: {', '.join(KINDS)}")
        self._check("id", isinstance(self.id, str), "a text")
        for name in _TEXTS:
            self._check(name, isinstance(getattr(self, name), str | None), "a text")
        self._check("provenance", isinstance(self.provenance, dict | list | str | None), "an object, list or text")
        for name in _TIMES:
            value = getattr(self, name)
            if isinstance(value, datetime):
                self._set(name, _spelled(value))
            else:
                self._check(name, isinstance(value, str | Time | None), "a text, a datetime or a Time")
                bare = isinstance(value, Time) and value.text is None
                spelled = bare and (value.micros is None or value.micros in _SPELLED_MICROS)
                self._check(name, not spelled, "a text where there is one")
        for name in _SCORES:
            value = getattr(self, name)
            self._check(name, isinstance(value, float | int | None) and not isinstance(value, bool), "a number")
            if value is not None:
                self._set(name, float(value))
        version = self.version
        whole = version is None or (type(version) is int and -_INT64 <= version < _INT64)
        self._check("version", whole, "an integer of 64 bits")
        if self.tags is not None:
            listed = not isinstance(self.tags, str) and all(isinstance(tag, str) for tag in self.tags)
            self._check("tags", listed, "a list of texts")
            self._set("tags", tuple(self.tags))
        self._set("scope", _scope(self.scope))
        self._set("vectors", tuple(self.vectors))
        self._check("vectors", all(isinstance(v, Vector) for v in self.vectors), "a list of Vector")

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check(self, name: str, allowed: bool, wanted: str) -> None:  # noqa: FBT001
        if not allowed:
            got = type(getattr(self, name)).__name__
            raise invalid(f"record {self.kind} {self.id!r}: {name}: expected {wanted}, got {got}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.kind, self.id))

    @property
    def identity(self) -> tuple[str, str]:
        """Kind and id."""
        return self.kind, self.id

    def to_json(self) -> str:
        """The native document, one line. Members are sorted; what the text says is what counts.

        Raises:
            RefusedError: `invalid`, for a value that no document can hold.
        """
        try:
            text = json.dumps(self.to_document(), ensure_ascii=False, separators=(",", ":"), sort_keys=True)
            text.encode()
        except UnicodeEncodeError as error:
            raise invalid(f"record {self.kind} {self.id!r}: a lone surrogate: {error.reason}") from None
        except (ValueError, RecursionError) as error:
            raise invalid(f"record {self.kind} {self.id!r}: {error}") from None
        return text

    def to_document(self) -> dict[str, Any]:
        """The native document as JSON values, with reserved keys."""
        document: dict[str, Any] = {"kind": self.kind, "id": self.id}
        scope = self.scope.given()
        if scope:
            document["scope"] = scope
        for name in (*_TEXTS, *_SCORES, "version", "provenance"):
            value = getattr(self, name)
            if value is not None:
                document[name] = to_json(value)
        document |= {name: _time(value) for name in _TIMES if (value := getattr(self, name)) is not None}
        if self.tags is not None:
            document["tags"] = list(self.tags)
        if self.extra:
            document["extra"] = to_json(self.extra)
        if self.vectors:
            document["vectors"] = [vector.to_json() for vector in self.vectors]
        return self._with_unmapped(document)

    def _with_unmapped(self, document: dict[str, Any]) -> dict[str, Any]:
        for name, value in to_json(self.unmapped).items():
            scope = document.get("scope", {})
            if name == "scope" and isinstance(value, dict) and not value.keys() & scope.keys():
                document["scope"] = {**value, **scope}
            elif name in document:
                raise invalid(f"record {self.kind} {self.id!r}: `{name}` is a field and unmapped too")
            else:
                document[name] = value
        return document

    @classmethod
    def from_json(cls, text: str | bytes) -> Record:
        """Reads a native document.

        Raises:
            RefusedError: `invalid`.
        """
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise invalid(f"record: {error}") from None
        if not isinstance(document, dict):
            raise invalid("record: the document is no object")
        return cls.from_document(document)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Record:
        """Reads a native document given as JSON values."""
        rest = dict(document)
        taken: dict[str, Any] = {}
        kind, identity = rest.pop("kind", None), rest.pop("id", None)
        marker = rest.get("_memferry")
        if isinstance(marker, dict) and marker.keys() == {"migration", "digest"}:
            del rest["_memferry"]  # Which migration wrote it is no part of the record.
        scope = rest.get("scope")
        if isinstance(scope, dict):
            mine = {name: scope[name] for name in _SCOPES if isinstance(scope.get(name), str)}
            others = {name: value for name, value in scope.items() if name not in mine}
            taken["scope"] = Scope(**mine)
            rest["scope"] = others
            if mine and not others:
                del rest["scope"]
        for name, value in list(rest.items()):
            if name in _READ:
                read = _READ[name](value)
                if read is not None:
                    taken[name] = read
                    del rest[name]
        if kind not in KINDS or not isinstance(identity, str):
            raise invalid(f"record: kind and id are needed, got {kind!r} and {identity!r}")
        return cls(kind, identity, unmapped=from_json(rest, whole=True), **taken)


def _scope(scope: Scope | Mapping[str, str]) -> Scope:
    """Whose a record is, however it was given."""
    if isinstance(scope, Scope):
        return scope
    unknown = set(scope) - set(_SCOPES)
    if unknown:
        raise invalid(f"scope: unknown part `{min(unknown)}`, allowed: {', '.join(_SCOPES)}")
    for name, value in scope.items():
        if not isinstance(value, str):
            raise invalid(f"scope: {name}: expected a text, got {type(value).__name__}")
    return Scope(**scope)


def _spelled(time: datetime) -> str:
    """The canonical text of an instant; a naive time stays naive."""
    if time.tzinfo is None:
        return time.isoformat(timespec="microseconds")
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def _time(time: str | Time) -> Any:
    if isinstance(time, str):
        return time
    return time.micros if time.text is None else {"micros": time.micros, "text": time.text}


def _read_text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _read_time(value: Any) -> str | Time | None:
    if isinstance(value, str):
        return value
    if type(value) is int and value not in _SPELLED_MICROS and -_INT64 <= value < _INT64:
        return Time(value)
    if isinstance(value, dict) and value.keys() == {"micros", "text"} and isinstance(value["text"], str):
        micros = value["micros"]
        if micros is None or (type(micros) is int and -_INT64 <= micros < _INT64):
            return Time(micros, value["text"])
    return None


def _read_score(value: Any) -> float | None:
    value = from_json(value)
    return value if isinstance(value, float) else None


def _read_version(value: Any) -> int | None:
    return value if type(value) is int and -_INT64 <= value < _INT64 else None


def _read_tags(value: Any) -> list[str] | None:
    return value if isinstance(value, list) and all(isinstance(tag, str) for tag in value) else None


def _read_provenance(value: Any) -> Any:
    value = from_json(value)
    return value if isinstance(value, dict | list | str) and not isinstance(value, NumberText) else None


def _read_extra(value: Any) -> dict[str, Any] | None:
    value = from_json(value)
    return value if isinstance(value, dict) and value else None


def _read_vectors(value: Any) -> list[Vector] | None:
    try:
        return [Vector.from_json(said) for said in value] or None
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        raise invalid(f"record: vectors: {error!r}") from None


_READ: Final = {
    **dict.fromkeys(_TEXTS, _read_text),
    **dict.fromkeys(_TIMES, _read_time),
    **dict.fromkeys(_SCORES, _read_score),
    "version": _read_version,
    "tags": _read_tags,
    "provenance": _read_provenance,
    "extra": _read_extra,
    "vectors": _read_vectors,
}
