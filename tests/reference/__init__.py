"""A second implementation of `docs/record.md` in plain Python, to hold the native one against.

It shares no code with the product: the standard library reads JSON, `decimal` sorts numbers, `xxhash` hashes.
"""

from reference.document import Marker, Record, Vector, decode
from reference.encoding import digest, encode, identity
from reference.json_values import Number, RefusedError, Value, canonical, parse_canonical, parse_json

__all__ = [
    "Marker",
    "Number",
    "Record",
    "RefusedError",
    "Value",
    "Vector",
    "canonical",
    "decode",
    "digest",
    "encode",
    "identity",
    "parse_canonical",
    "parse_json",
]
