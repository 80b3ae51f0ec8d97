"""Test stores with nasty values, an independent check of what is in them, and a process that can be killed.

Nothing here reads a store through memferry: `sqlite3`, `json` and `tests/reference` do.
"""
