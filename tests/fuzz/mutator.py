"""Broken inputs without end, the same ones for the same seed, and how long they are made."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from memferry.errors import MemferryError

__all__ = ["fuzz", "mutated", "told"]

TARGETS: Final = 10
"""Among how many the time is shared."""
SECS: Final = float(os.environ.get("MEMFERRY_FUZZ_SECS", "10")) / TARGETS
SEED: Final = int(os.environ.get("MEMFERRY_FUZZ_SEED", "0"))

_PIECES: Final = (
    *(bytes([one]) for one in b'{}[]",:\\/?#@%&=;$`\n\r\t \x00\x7f\x80\xff+-.eE09TZ'),
    b"null",
    b"true",
    b"NaN",
    b"1e400",
    b"-0",
    b"18446744073709551616",
    b"-9223372036854775809",
    b"0.1",
    b'{"$f64":"7ff8000000000001"}',
    b'{"$number":"1e999"}',
    b'{"$bytes":"AA=="}',
    b'{"$bytes":"A"}',
    b'"\\ud800"',
    b"\xed\xa0\x80",
    b"\xf0\x9f\x91\xa9\xe2\x80\x8d",
    b"\xe2\x80\xa8",
    b"\xef\xbb\xbf",
    b"cafe\xcc\x81",
    b"[" * 200,
    b'{"a":' * 200,
    b"9" * 400,
    b"x" * 5000,
    b"9999-12-31T23:59:60.999999999+23:59",
    b"-000044-03-15",
    b"[Europe/Paris]",
)


def mutated(seed: bytes, rng: random.Random, corpus: Sequence[bytes] = ()) -> bytes:
    """A seed with some damage."""
    out = bytearray(seed)
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at = rng.randrange(len(out) + 1)
        end = min(len(out), at + rng.choice((0, 1, 1, 2, 4, 16)))
        match rng.randrange(8):
            case 0 if out:
                out[min(at, len(out) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                del out[at:end]
            case 2:
                out[at:end] = rng.choice(_PIECES)
            case 3:
                out[at:at] = out[at:end] * rng.choice((1, 2, 40))
            case 4 if corpus:
                other = rng.choice(corpus)
                start = rng.randrange(len(other) + 1)
                out[at:end] = other[start : start + rng.randrange(64)]
            case 5:
                out[at:end] = rng.randbytes(end - at)
            case 6:
                del out[at:]
            case _:
                out[at:at] = rng.choice(_PIECES)
    return bytes(out)


def fuzz(corpus: Sequence[bytes], secs: float = SECS) -> Iterator[tuple[int, bytes]]:
    """The corpus as it is, then broken, until the time is over; each with a number for the message of a failure."""
    yield from enumerate(corpus)
    ends_at, number = time.monotonic() + secs, len(corpus)
    while time.monotonic() < ends_at:
        rng = random.Random(f"{SEED} {number}")
        yield number, mutated(rng.choice(corpus), rng, corpus)
        number += 1


def told(work: Callable[[], object], number: int, text: object) -> MemferryError | None:
    """Does some work, which may end with an error of ours and with nothing else: no panic, no `KeyError`."""
    try:
        work()
    except MemferryError as error:
        return error
    except BaseException as error:
        raise AssertionError(f"seed {SEED}, number {number}: {type(error).__name__}: {error}\n{text!r}") from error
    return None
