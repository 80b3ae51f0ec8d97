"""The canonical encoding and the digest: section 5 of `docs/record.md`."""

from __future__ import annotations

import struct

import xxhash

from reference.document import Record, Vector
from reference.json_values import canonical
from reference.times import Time

MAGIC = b"memferry-record-1\n"


def _block(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def _text(text: str) -> bytes:
    return _block(text.encode())


def _optional(data: bytes | None) -> bytes:
    return b"\0" if data is None else b"\1" + _block(data)


def _pairs(indices: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Indices and numbers of a sparse vector, in the order of the indices."""
    count = len(indices) // 4
    numbers = (data[4 * at : 4 * at + 4] for at in range(count))
    pairs = sorted(zip(struct.unpack(f"<{count}I", indices), numbers, strict=True))
    return struct.pack(f"<{count}I", *(index for index, _ in pairs)), b"".join(number for _, number in pairs)


def _vector(vector: Vector) -> bytes:
    model = None if vector.model is None else vector.model.encode()
    normalized = 2 if vector.normalized is None else int(vector.normalized)
    fixed = struct.pack("<IBB", vector.dim, normalized, vector.kind)
    indices, data = (None, vector.data) if vector.indices is None else _pairs(vector.indices, vector.data)
    return _text(vector.name) + _optional(model) + fixed + _optional(indices) + _block(data)


def _time(tag: int, time: Time) -> bytes:
    original = None if time.text is None else time.text.encode()
    return struct.pack("<B?q", tag, time.micros is not None, time.micros or 0) + _optional(original)


def encode(record: Record) -> bytes:
    """The canonical encoding of a record."""
    parts = [MAGIC, bytes([0x01, record.kind, 0x02]), _text(record.id)]
    parts += [bytes([tag]) + _text(text) for tag, text in enumerate(record.texts, 0x10) if text is not None]
    parts += [_time(tag, time) for tag, time in enumerate(record.times, 0x30) if time is not None]
    parts += [struct.pack("<Bd", tag, score) for tag, score in enumerate(record.scores, 0x40) if score is not None]
    if record.version is not None:
        parts.append(struct.pack("<Bq", 0x50, record.version))
    if record.tags is not None:
        parts += [struct.pack("<BQ", 0x51, len(record.tags)), *map(_text, record.tags)]
    if record.extra:
        parts += [b"\x52", _text(canonical(record.extra))]
    if record.vectors:
        by_name = sorted(record.vectors, key=lambda vector: vector.name.encode())
        parts += [struct.pack("<BQ", 0x53, len(by_name)), *map(_vector, by_name)]
    return b"".join(parts)


def digest(record: Record) -> str:
    """Hex digest of a record."""
    return xxhash.xxh3_128_hexdigest(encode(record))


def identity(record: Record) -> str:
    """Hex key under which a record is counted and looked up."""
    return xxhash.xxh3_128_hexdigest(bytes([record.kind]) + record.id.encode())
