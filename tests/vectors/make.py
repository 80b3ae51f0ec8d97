"""Makes `record-1.json`, the test vectors of `docs/record.md`: `PYTHONPATH=tests python tests/vectors/make.py`."""

from __future__ import annotations

import base64
import json
import struct
from pathlib import Path
from typing import Final

import reference

FILE: Final = Path(__file__).with_name("record-1.json")
WORKED_EXAMPLE: Final = (
    '{"kind":"memory","id":"m1","scope":{"user":"ann"},"content":"Tea","created_at":"2024-06-15T10:30:00Z",'
    '"confidence":0.5,"tags":["x"],"extra":{"n":1e16},"color":null}'
)
_LONGEST_HEX: Final = 512


def _memory(members: str = "") -> str:
    return '{"kind":"memory","id":"a"' + ("," + members if members else "") + "}"


def base64_of(data: bytes) -> str:
    """Base64 with padding, as text."""
    return base64.b64encode(data).decode()


def _base64(format_: str, *numbers: float) -> str:
    return base64_of(struct.pack(f"<{len(numbers)}{format_}", *numbers))


def _dense(name: str, *numbers: float) -> str:
    return f'{{"name":"{name}","kind":"dense","dim":{len(numbers)},"data":"{_base64("f", *numbers)}"}}'


def _sparse(indices: tuple[int, ...], numbers: tuple[float, ...]) -> str:
    return f'{{"kind":"sparse","dim":0,"indices":"{_base64("I", *indices)}","data":"{_base64("f", *numbers)}"}}'


def _numbers() -> dict[str, str]:
    texts = {
        "2^53": "9007199254740992",
        "beyond 2^53": "9007199254740993",
        "i64 max": "9223372036854775807",
        "i64 min": "-9223372036854775808",
        "beyond 2^63": "9223372036854775808",
        "u64 max": "18446744073709551615",
        "beyond u64": "18446744073709551616",
        "below i64": "-9223372036854775809",
        "smallest double": "5e-324",
        "digits a double does not hold": "9007199254740993.0",
        "double 2^53": "9007199254740992.0",
        "largest double": "1.7976931348623157e308",
        "beyond the largest double": "1.7976931348623159e308",
        "1e15": "1e15",
        "1e16": "1e16",
        "1e17": "1e17",
        "1e-5": "1e-5",
        "1e-6": "1e-6",
        "seventeen digits": "123456789012345680.0",
        "same number, other spelling": "1.50E+1",
        "double that is whole": "1.0",
        "integer one": "1",
        "minus zero": "-0.0",
        "minus zero as integer": "-0",
        "exact digits of 0.1": "0.1000000000000000055511151231257827",
        "quiet NaN with payload": '{"$f64":"7ff8000000000001"}',
        "signaling NaN": '{"$f64":"7ff0000000000001"}',
        "infinity": '{"$f64":"7ff0000000000000"}',
        "minus infinity": '{"$f64":"fff0000000000000"}',
    }
    documents = {f"number: {name}": _memory(f'"extra":{{"n":{text}}}') for name, text in texts.items()}
    documents["score: NaN with payload"] = _memory('"confidence":{"$f64":"7ff8000000000001"}')
    documents["score: minus zero"] = _memory('"strength":-0.0')
    documents["score: an integer is no double"] = _memory('"importance":1')
    documents["version: i64 min"] = _memory('"version":-9223372036854775808')
    documents["version: beyond i64 is unmapped"] = _memory('"version":9223372036854775808')
    return documents


def _texts() -> dict[str, str]:
    hostile = '`) DETACH DELETE n // \\"}],{\\"$f64\\":1} \'; DROP TABLE memories;--'
    return {
        "worked example": WORKED_EXAMPLE,
        "nothing but kind and id": _memory(),
        "empty id": '{"kind":"memory","id":""}',
        "content: empty": _memory('"content":""'),
        "content: null": _memory('"content":null'),
        "content: of another type": _memory('"content":["a"]'),
        "content: NFC": _memory('"content":"caf\u00e9"'),
        "content: NFD": _memory('"content":"cafe\u0301"'),
        "content: escapes": _memory('"content":"\\u0000\\b\\t\\n\\f\\r\\u001f\\"\\\\\\/\\u007f\\u2028\\ud83d\\ude00"'),
        "names that look like queries": f'{{"kind":"entity","id":"{hostile}","name":"{hostile}","type":"{hostile}"}}',
        "tags: none": _memory('"tags":[]'),
        "tags: null": _memory('"tags":null'),
        "tags: repeated, ordered": _memory('"tags":["b","a","b",""]'),
        "tags: 1,000": _memory('"tags":[' + ",".join(f'"tag {i}"' for i in range(1000)) + "]"),
        "scope: all five": _memory(
            '"scope":{"user":"u","agent":"g","session":"s","namespace":"n","tenant":"t"}',
        ),
        "scope: an unknown member": _memory('"scope":{"user":"u","app":"x"}'),
        "scope: empty": _memory('"scope":{}'),
        "provenance: object": _memory('"provenance":{"b":1,"a":[1.0,null]}'),
        "provenance: number": _memory('"provenance":1'),
        "extra: empty": _memory('"extra":{}'),
        "extra: null": _memory('"extra":null'),
        "extra: $ keys of the data": _memory('"extra":{"$$f64":"x","$$$":1,"$$":{"$$bytes":"AA=="}}'),
        "extra: bytes": _memory('"extra":{"b":{"$bytes":"AAH/"}}'),
        "extra: keys sorted by bytes": _memory('"extra":{"\ufb01":1,"\U0001f600":2,"z":3,"Z":4,"":5,"\u00e9":6}'),
        "extra: nested deep": _memory('"extra":{"x":' + "[" * 189 + "]" * 189 + "}"),
        "unknown member nested deep": _memory('"x":' + "[" * 190 + "]" * 190),
        "unknown members": _memory('"extra":{"k":1},"unknown":{"b":2,"a":null}'),
        "marker is no part": _memory(f'"_memferry":{{"migration":"m","digest":"{"0" * 32}"}}'),
        "white space and order": ' { "id" : "a" ,\n"kind"\t: "memory" } ',
        "relation": '{"kind":"relation","id":"r","from_id":"a","to_id":"b","type":"knows","strength":0.5}',
        "observation": '{"kind":"observation","id":"a#0","owner_id":"a","content":"x","extra":{"$position":0}}',
    }


def _times() -> dict[str, str]:
    texts = {
        "canonical text": '"2024-06-15T10:30:00.123456Z"',
        "seconds": '"2024-06-15T10:30:00Z"',
        "naive": '"2024-06-15T10:30:00"',
        "date": '"2024-06-15"',
        "offset": '"2024-06-15T12:30:00+02:00"',
        "nanoseconds": '"2024-06-15T10:30:00.123456789Z"',
        "before 1970, rounded down": '"1969-12-31T23:59:59.9999999Z"',
        "before 1970": '"1066-10-14T09:00:00.000000Z"',
        "leap second": '"2016-12-31T23:59:60Z"',
        "last second of 9999": '"9999-12-31T23:59:59Z"',
        "after 9999": '"+010000-01-01T00:00:00Z"',
        "no time": '"yesterday"',
        "no such day": '"2023-02-29T00:00:00Z"',
        "empty": '""',
        "huge micros": "9223372036854775807",
        "small integer is unmapped": "1718447400000000",
        "pair": '{"micros":1718447400000000,"text":"in June"}',
        "pair with the canonical text": '{"micros":0,"text":"1970-01-01T00:00:00.000000Z"}',
        "pair of nulls": '{"micros":null,"text":null}',
        "naive, after the last instant": '"9999-12-30T23:00:00"',
        "offset, after the last instant": '"9999-12-30T20:00:00-05:00"',
        "offset with a fraction": '"2024-06-15T10:30:00+02:00:30.5"',
        "pair that has a shorter form": '{"micros":0,"text":"1970-01-01T00:00:00Z"}',
        "null": "null",
    }
    documents = {f"time: {name}": _memory(f'"created_at":{text}') for name, text in texts.items()}
    all_five = ("created_at", "updated_at", "valid_from", "valid_to", "observed_at")
    documents["time: all five"] = _memory(",".join(f'"{name}":"2024-06-1{i}"' for i, name in enumerate(all_five)))
    return documents


def _vectors() -> dict[str, str]:
    bits = base64.b64encode(bytes.fromhex("0000c07f0100c07f00000080000080ff")).decode()
    several = _dense("text", 1.0), _dense("image", -1.5, 0.0), _dense("", 0.1)
    sparse = _sparse((7, 2**32 - 1), (0.5, -0.5))
    multi = f'{{"kind":"multi","dim":2,"data":"{_base64("f", 1, 2, 3, 4, 5, 6)}"}}'
    full = f'{{"name":"v","model":"m","normalized":true,"kind":"dense","dim":1,"data":"{_base64("f", 1)}"}}'
    return {
        "vectors: none": _memory('"vectors":[]'),
        "vectors: dense": _memory(f'"vectors":[{_dense("", 0.25, -3.0)}]'),
        "vectors: model, normalized": _memory(f'"vectors":[{full}]'),
        "vectors: NaN, minus zero, infinity": _memory(f'"vectors":[{{"kind":"dense","dim":4,"data":"{bits}"}}]'),
        "vectors: sparse": _memory(f'"vectors":[{sparse}]'),
        "vectors: sparse in another order": _memory(f'"vectors":[{_sparse((2**32 - 1, 7), (-0.5, 0.5))}]'),
        "vectors: multi": _memory(f'"vectors":[{multi}]'),
        "vectors: several": _memory(f'"vectors":[{",".join(several)}]'),
        "vectors: several in another order": _memory(f'"vectors":[{",".join(reversed(several))}]'),
    }


def _refused() -> dict[str, bytes]:
    return {
        "not JSON": b"{",
        "key given twice": _memory('"x":1,"x":1').encode(),
        "lone surrogate": _memory('"x":"\\ud800"').encode(),
        "invalid UTF-8": _memory('"x":"?"').encode().replace(b"?", b"\xff"),
        "nested too deep": _memory('"x":' + "[" * 191 + "]" * 191).encode(),
        "no object": b"[]",
        "no kind": b'{"id":"a"}',
        "no id": b'{"kind":"memory"}',
        "id is no text": b'{"kind":"memory","id":1}',
        "finite double as bits": _memory('"x":{"$f64":"3ff8000000000000"}').encode(),
        "bits in upper case": _memory('"x":{"$f64":"7FF8000000000001"}').encode(),
        "bits with a sign": _memory('"x":{"$f64":"+7ff800000000001"}').encode(),
        "number as text that is an integer": _memory('"x":{"$number":"5"}').encode(),
        "number as text that is none": _memory('"x":{"$number":"1,\\"y\\":2"}').encode(),
        "$top of the data": _memory('"extra":{"$top":{"x":1}}').encode(),
        "index of a sparse vector given twice": _memory(f'"vectors":[{_sparse((7, 7), (1, 2))}]').encode(),
        "vector of a wrong length": _memory('"vectors":[{"kind":"dense","dim":2,"data":"AAAAAA=="}]').encode(),
    }


def _reason(document: bytes) -> str:
    try:
        reference.decode(document)
    except reference.RefusedError as error:
        return error.reason
    raise AssertionError(document)


def _vector(name: str, document: str) -> dict[str, str]:
    record = reference.decode(document)
    encoding = reference.encode(record)
    vector = {"name": name, "document": document, "identity": reference.identity(record)}
    if len(encoding) <= _LONGEST_HEX:
        vector["encoding"] = encoding.hex()
    return vector | {"digest": reference.digest(record)}


def content() -> str:
    """What the file should hold."""
    documents = _texts() | _numbers() | _times() | _vectors()
    refused = [{"name": n, "document_hex": d.hex(), "reason": _reason(d)} for n, d in _refused().items()]
    vectors = [_vector(name, document) for name, document in documents.items()]
    whole = {"format": "memferry-record-1", "vectors": vectors, "refused": refused}
    return json.dumps(whole, indent=1, ensure_ascii=True) + "\n"


if __name__ == "__main__":
    FILE.write_text(content(), "utf-8")
