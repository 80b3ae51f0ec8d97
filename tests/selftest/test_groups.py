"""Tests of one kind of server share a process: nothing else would tell that they no longer do."""

from __future__ import annotations

import pytest


def test_one_that_names_neo4j_is_given_to_its_process(request: pytest.FixtureRequest) -> None:
    """Pytest 9.2 with xdist 3.8 leaves the mark where it is and gives the test to anyone."""
    marked = request.node.get_closest_marker("xdist_group")
    assert marked
    assert marked.args == ("neo4j",)
    if request.config.getoption("loadgroup", default=False):
        assert request.node.nodeid.endswith("@neo4j")
