"""Embeddings of a record: f32, from and to any buffer."""

from __future__ import annotations

import base64
import struct
import sys
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from memferry.values import invalid

__all__ = ["Floats", "Vector", "floats"]

Floats: TypeAlias = Any
"""Numbers of a vector: any buffer of float or double (an `array`, a NumPy array), or an iterable of floats."""


def floats(values: Floats) -> list[float]:
    """Numbers of a vector as a list; see `Floats`.

    >>> floats(array("f", [0.5, 1.0]))
    [0.5, 1.0]
    """
    return array("f", _f32(values)).tolist()


def _f32(values: Floats) -> bytes:
    """Numbers in single precision, in the order of this machine; bytes are taken as they are."""
    try:
        try:
            view = memoryview(values)
        except TypeError:
            return array("f", values).tobytes()
        if view.format in {"f", "<f", "=f"} and view.ndim == 1:
            return view.tobytes()
        if view.ndim != 1 or view.format not in {"d", "<d", "=d"}:
            raise invalid(f"vector: a buffer of floats or doubles in one dimension is needed, got {view.format!r}")
        return array("f", array("d", view.tobytes())).tobytes()
    except (TypeError, OverflowError) as error:
        raise invalid(f"vector: {error}") from None


def _little(data: bytes, code: str = "f") -> bytes:
    """Between this machine's byte order and the little-endian one of the record."""
    if sys.byteorder == "little":
        return data
    swapped = array(code, data)
    swapped.byteswap()
    return swapped.tobytes()


@dataclass(frozen=True)
class Vector:
    """An embedding, exactly as it is held: f32, little-endian.

    Attributes:
        data: The numbers as bytes; `values` reads them.
        dim: Numbers a row; 0 for sparse.
        kind: `dense`, `sparse` or `multi`.
        name: Name within the record; empty for the only one.
        model: What made it.
        normalized: Whether it is of length one, if that is known.
        indices: Of a sparse vector, u32 little-endian.

    >>> vector = Vector.dense([0.5, 0.25], model="mini")
    >>> vector.dim, list(vector.values)
    (2, [0.5, 0.25])
    """

    data: bytes
    dim: int
    kind: Literal["dense", "sparse", "multi"] = "dense"
    name: str = ""
    model: str | None = None
    normalized: bool | None = None
    indices: bytes | None = None

    @classmethod
    def dense(
        cls, values: Floats, *, name: str = "", model: str | None = None, normalized: bool | None = None
    ) -> Vector:
        """One row of numbers; doubles are rounded to single precision."""
        data = _little(_f32(values))
        return cls(data, len(data) // 4, "dense", name, model, normalized)

    @classmethod
    def multi(
        cls, rows: Iterable[Floats], *, name: str = "", model: str | None = None, normalized: bool | None = None
    ) -> Vector:
        """Several rows of one length."""
        parts = [_f32(row) for row in rows]
        if len({len(part) for part in parts}) != 1:
            raise invalid("vector: the rows of a multi vector must be there and of one length")
        return cls(_little(b"".join(parts)), len(parts[0]) // 4, "multi", name, model, normalized)

    @classmethod
    def sparse(cls, values: Mapping[int, float], *, name: str = "", model: str | None = None) -> Vector:
        """Numbers by their index."""
        order = sorted(values)
        try:
            indices = struct.pack(f"<{len(order)}I", *order)
        except struct.error as error:
            raise invalid(f"vector: an index is no u32: {error}") from None
        return cls(_little(_f32([values[i] for i in order])), 0, "sparse", name, model, None, indices)

    @property
    def values(self) -> memoryview[float]:
        """The numbers, without copying where the machine is little-endian too."""
        return memoryview(_little(self.data)).cast("f")

    def to_json(self) -> dict[str, Any]:
        """As in a native document."""
        said: dict[str, Any] = {"kind": self.kind, "dim": self.dim, "data": _base64(self.data)}
        if self.name:
            said["name"] = self.name
        if self.model is not None:
            said["model"] = self.model
        if self.normalized is not None:
            said["normalized"] = self.normalized
        if self.indices is not None:
            said["indices"] = _base64(self.indices)
        return said

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> Vector:
        """Reads what `to_json` gives."""
        indices = said.get("indices")
        return cls(
            base64.b64decode(said["data"]),
            said["dim"],
            said["kind"],
            said.get("name", ""),
            said.get("model"),
            said.get("normalized"),
            None if indices is None else base64.b64decode(indices),
        )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
