"""The one exception of the testbed."""

from __future__ import annotations

__all__ = ["TestbedError"]


class TestbedError(RuntimeError):
    """Something the tests need is missing, did not start, or was used wrongly.

    The testbed never skips: what cannot run raises this, with what to do about it.
    """

    __test__ = False  # the name begins with "Test", pytest would try to collect it
