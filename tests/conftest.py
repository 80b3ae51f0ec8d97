"""Fixtures of the testbed for every test."""

pytest_plugins = ["testbed.fixtures"]
