"""Python packages that the tests run but the project does not depend on, from pinned and hashed lists."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from pathlib import Path

from testbed import cache
from testbed.process import run_tool

__all__ = ["environment", "unpacked"]

_DATA = Path(__file__).parent / "data"
_DEADLINE_SECS = 900.0


def environment(name: str) -> Path:
    """The Python of a cached virtual environment that holds exactly `data/NAME-requirements.txt`."""
    requirements = _DATA / f"{name}-requirements.txt"

    def build(into: Path) -> None:
        # Nothing in it is started by a script of its `bin`, so the rename that follows breaks nothing.
        uv = _find_uv()
        if uv:
            make = [uv, "venv", "-q", "--allow-existing", "--python", sys.executable]
        else:
            make = [sys.executable, "-m", "venv"]
        run_tool([*make, into], what=f"making the environment of {name}")
        _install(requirements, python=into / "bin" / "python", what=f"installing {name}")

    return cache.cached(f"{name}-venv", version=_version(requirements), build=build) / "bin" / "python"


def unpacked(name: str) -> Path:
    """A cached folder with the files of `data/NAME-requirements.txt`, without their dependencies."""
    requirements = _DATA / f"{name}-requirements.txt"

    def build(into: Path) -> None:
        _install(requirements, "--no-deps", "--target", into, python=sys.executable, what=f"fetching {name}")

    return cache.cached(name, version=_version(requirements), build=build)


def _install(requirements: Path, *options: str | Path, python: str | Path, what: str) -> None:
    uv = _find_uv()
    tool: list[str | Path] = [uv, "pip", "install"] if uv else [python, "-m", "pip", "install"]
    if uv:
        tool += ["--python", python]
    run_tool([*tool, *options, "-q", "--require-hashes", "-r", requirements], what=what, deadline_secs=_DEADLINE_SECS)


def _find_uv() -> str | None:
    beside_python = Path(sys.executable).with_name("uv")
    return os.fspath(beside_python) if beside_python.exists() else shutil.which("uv")


def _version(requirements: Path) -> str:
    """Changes with the list and with the Python that an environment links to."""
    digest = hashlib.sha256(requirements.read_bytes())
    digest.update(f"{sys.base_prefix} {sys.version}".encode())
    return digest.hexdigest()[:12]
