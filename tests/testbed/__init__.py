"""Real servers for the tests: installed, cached, started on loopback, and always ended.

Each part stands alone: `testbed.neo4j`, `testbed.qdrant`, `testbed.proxy`, `testbed.embeddings`,
`testbed.mem0`. Tests load the fixtures with `pytest_plugins = ["testbed.fixtures"]`;
`python -m testbed install` prepares everything ahead, `python -m testbed servers` starts the servers by hand.
"""
