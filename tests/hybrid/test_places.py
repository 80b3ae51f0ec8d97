"""Records of two kinds under one UUID: the vector half has one place for both."""

from __future__ import annotations

import uuid

import pytest

from memferry.errors import RefusedError, StoreError
from support.documents import Document, memory, vector
from support.graph import roll
from support.hybrid import Hybrid, check, findings, move

ONE = str(uuid.UUID(int=5))
MEMORY = memory(ONE, vectors=[vector([1.0, 0.5])])
OTHER = memory("other", vectors=[vector([0.5, 1.0])])
BARE: Document = {"kind": "entity", "id": ONE, "name": "e"}
ENTITY: Document = {**BARE, "vectors": [vector([0.5, 0.5])]}


def test_two_with_vectors_are_found_in_the_plan(hybrid: Hybrid) -> None:
    result = move(hybrid.file([ENTITY, MEMORY, OTHER]), hybrid.url)
    assert result.plan.repeated == (("entity", ONE), ("memory", ONE))
    assert (result.outcome, result.books.total("written"), result.books.total("quarantined")) == ("not_proven", 1, 2)
    assert result.verification is not None
    assert result.verification.equal
    assert hybrid.points().keys() == {("memory", "other")}


def test_one_without_vectors_is_in_nobodys_way(hybrid: Hybrid) -> None:
    others = [memory(f"m{n}") for n in range(20)]  # A sync does not delete a third of everything.
    origin = hybrid.file([BARE, MEMORY, *others])
    first = move(origin, hybrid.url)
    assert (first.outcome, first.books.total("written")) == ("proven", 22)
    hybrid.file([{**BARE, "name": "changed"}, MEMORY, *others])
    again = move(origin, hybrid.url)
    assert (again.outcome, again.books.total("written")) == ("proven", 1)
    hybrid.file([MEMORY, *others])
    last = move(origin, hybrid.url, delete=True)
    assert (last.outcome, last.books.total("deleted")) == ("proven", 1)
    assert findings(check(origin, hybrid.url)) == set()
    assert hybrid.points().keys() == {("memory", ONE)}


def test_vectors_of_another_kind_are_not_written_over(hybrid: Hybrid) -> None:
    origin = hybrid.file([MEMORY])
    assert move(origin, hybrid.url).outcome == "proven"
    entity = hybrid.file([ENTITY], "entity")
    with pytest.raises(RefusedError, match="1 records in the target have ids of the source"):
        move(entity, hybrid.url)
    with pytest.raises(StoreError, match=f"is memory '{ONE}', and another kind is to be written under its id"):
        move(entity, hybrid.url, on_existing="overwrite")
    assert findings(check(origin, hybrid.url)) == set()


def test_a_rollback_leaves_vectors_of_another_kind(hybrid: Hybrid) -> None:
    origin = hybrid.file([MEMORY])
    assert move(origin, hybrid.url).outcome == "proven"
    bare = move(hybrid.file([BARE], "bare"), hybrid.url)
    assert bare.outcome == "proven"
    assert roll(hybrid.url, bare.migration).deleted == 1
    assert findings(check(origin, hybrid.url)) == set()
    assert hybrid.points().keys() == {("memory", ONE)}
