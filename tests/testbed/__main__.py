"""`python -m testbed install` prepares everything ahead; `python -m testbed servers` starts servers by hand."""

from __future__ import annotations

import argparse
import shlex
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from testbed import mem0, minilm, neo4j, qdrant
from testbed.errors import TestbedError
from testbed.kubernetes import binaries, node_tier

_INSTALLERS: dict[str, Callable[[], object]] = {
    "neo4j": neo4j.installed,
    "minilm": minilm.installed,
    "mem0": mem0.installed,
    "qdrant": qdrant.installed,
    "kubernetes": binaries.installed,
    "kubernetes-node": node_tier.installed,
}


def main() -> int:
    """Run the command line.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(prog="python -m testbed", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    install = commands.add_parser("install", help="fetch and build everything that the tests run")
    install.add_argument("parts", nargs="*", metavar="PART", help=f"only these: {', '.join(_INSTALLERS)}")
    commands.add_parser("servers", help="start Neo4j and Qdrant, print where they are, run until Ctrl-C")
    arguments = parser.parse_args()
    if arguments.command == "servers":
        return _run_servers()
    unknown = sorted(set(arguments.parts) - set(_INSTALLERS))
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)}")
    return _install(arguments.parts or list(_INSTALLERS))


def _install(parts: list[str]) -> int:
    """Install every part, even after one has failed, so that one run tells all that is missing.

    Two at once: the compiler of one spends minutes on a single core.
    """
    with ThreadPoolExecutor(max_workers=2) as pool:
        ready = list(pool.map(_ready, parts))
    failed = [part for part, one in zip(parts, ready, strict=True) if not one]
    if failed:
        _say(f"not installed: {', '.join(failed)}")
    return 1 if failed else 0


def _ready(part: str) -> bool:
    started = time.monotonic()
    try:
        _INSTALLERS[part]()
    except TestbedError as error:
        _say(f"{part}: FAILED\n{error}")
        return False
    _say(f"{part}: ready, {time.monotonic() - started:.1f} s")
    return True


def _run_servers() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both end the servers in good order
    try:
        with qdrant.QdrantServer() as points, neo4j.Neo4jServer() as graph:
            exports = {
                "MEMFERRY_QDRANT_URL": points.url,
                "MEMFERRY_NEO4J_URL": graph.url.replace("bolt://", "neo4j://"),
                "MEMFERRY_NEO4J_USER": graph.user,
                "MEMFERRY_NEO4J_PASSWORD": graph.password,
            }
            for name, value in exports.items():
                sys.stdout.write(f"export {name}={shlex.quote(value)}\n")
            sys.stdout.flush()
            _say("running until Ctrl-C; logs:")
            _say(f"  {graph.process.log_path}")
            if not points.is_external:
                _say(f"  {points.process.log_path}")
            signal.pause()
    except KeyboardInterrupt:
        _say("ended")
        return 0
    except TestbedError as error:
        _say(str(error))
        return 1
    return 0


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
