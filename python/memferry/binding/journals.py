"""The journals of a binding, written from where a person is: the stores say what is true before the cluster does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from memferry.errors import MemferryError, RefusedError
from memferry.manifest.projection import NotThereError
from memferry.phases.journal import Entry, read_journal, write_journal
from memferry.stores import open_source
from memferry.urls import StoreUrl

__all__ = ["Journals"]

Reach = Callable[[str, Path], StoreUrl]
"""Gives the store of a MemoryBackend; the folder is for certificates."""


@dataclass
class Journals:
    """Those of one binding.

    Args:
        binding: Its name.
        serves: The MemoryBackend that is to serve.
        others: MemoryBackends that may have served instead.
        reach: How their stores are reached.
    """

    binding: str
    serves: str
    others: tuple[str, ...]
    reach: Reach
    _problems: dict[str, str] = field(default_factory=dict)

    def write(self, revision: int) -> tuple[int, list[str]]:
        """Says that the side serves, in its own journal first.

        Args:
            revision: The least that it may have.

        Returns:
            The revision it has, which is above everything that was there, and what was left undone, in sentences.

        Raises:
            RefusedError: `journal`, that of the side itself cannot be written from here.
        """
        self._problems.clear()
        with tempfile.TemporaryDirectory(prefix="memferry-") as folder:
            stores: dict[str, StoreUrl] = {}
            for name in (self.serves, *self.others):
                scratch = Path(folder, name)
                scratch.mkdir()
                with _Noting(self._problems, name):
                    stores[name], stands = self._look(name, scratch)
                    revision = max(revision, stands + 1)
            self._refuse()
            entry = Entry(revision, "Serving", self.serves)
            for name, url in stores.items():
                with _Noting(self._problems, name):
                    if write_journal(url, self.binding, entry) != "store":
                        raise RefusedError("journal", "it may not be written")
                self._refuse()
        return revision, [f"the journal in {name} was not written: {why}" for name, why in self._problems.items()]

    def _refuse(self) -> None:
        """Goes no further without the journal of the side itself."""
        if why := self._problems.get(self.serves):
            raise RefusedError(
                "journal",
                f"the journal in {self.serves} cannot be written from here, and nothing was changed: {why}",
                hint="run it where that store is reached, as in a pod of the application; or --without-journal",
            )

    def _look(self, name: str, scratch: Path) -> tuple[StoreUrl, int]:
        """The store, and the revision in its journal. One that is away is not waited for."""
        url = self.reach(name, scratch)
        if url.profile != "native":
            raise RefusedError("journal", "that of a store of another system is in the state directory of the workers")
        open_source(url).close()
        found = read_journal(url, self.binding)
        return url, found.revision if found else 0


class _Noting:
    """Keeps what fails, by MemoryBackend."""

    def __init__(self, problems: dict[str, str], name: str) -> None:
        self._problems, self._name = problems, name

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, MemferryError | NotThereError | OSError):
            return False
        code = f"{error.code}: " if isinstance(error, MemferryError) else ""
        self._problems[self._name] = f"{code}{error}"
        return True
