"""Every test here moves in small pages and ranges."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.moving import small_ranges
from support.stores import STORES, Place, place


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_ranges(monkeypatch)


@pytest.fixture
def make_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str, str], Place]:
    """Makes a place for a store: kind, name."""
    return lambda kind, stem: place(kind, request, tmp_path, stem)


@pytest.fixture(params=STORES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for a source of every kind."""
    return place(request.param, request, tmp_path, "source")


@pytest.fixture(params=STORES)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place for a target of every kind."""
    return place(request.param, request, tmp_path, "target")


@pytest.fixture
def back(request: pytest.FixtureRequest, tmp_path: Path, source: Place) -> Place:
    """Another place of the kind of the source."""
    return place(request.node.callspec.params["source"], request, tmp_path, "back")
