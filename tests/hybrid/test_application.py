"""A hybrid store that an application uses."""

from __future__ import annotations

import pytest

import memferry
from memferry import Record, RefusedError, Vector
from support.hybrid import Hybrid


def test_a_put_that_is_refused_changes_neither_half(hybrid: Hybrid) -> None:
    with memferry.open(hybrid.url) as store:
        store.put([Record("entity", "a"), Record("entity", "b")])
        old = [
            Record("memory", "m", content="old", vectors=[Vector.dense([1, 1])]),
            Record("relation", "r", from_id="a", to_id="b", type="x", vectors=[Vector.dense([1, 2])]),
        ]
        store.put(old)
        before = hybrid.points()
        new = [
            Record("memory", "m", content="new", vectors=[Vector.dense([7, 7])]),
            Record("relation", "r", from_id="a", to_id="gone", type="x", vectors=[Vector.dense([9, 9])]),
            Record("memory", "never", content="never", vectors=[Vector.dense([5, 5])]),
        ]
        with pytest.raises(RefusedError, match="an entity that it ties together is not there"):
            store.put(new)
        assert [store.get(*record.identity) for record in old] == old
        assert hybrid.points() == before
