"""Which stores are looked at now, which wait for that, and which bindings ask them for their journal.

Nothing here has to outlive the process: MemoryBackends and Jobs are told by the watches, and a binding that has no
answer asks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from memferry_operator.backend import Ask
from memferry_operator.hands.keys import Key

__all__ = ["Probes"]


class Probes:
    """Of all MemoryBackends."""

    def __init__(self) -> None:
        self._generations: dict[Key, int] = {}
        self._halves: dict[Key, frozenset[str]] = {}
        self._asked: dict[Key, dict[str, Ask]] = {}
        self._running: set[Key] = set()
        self._waiting: dict[Key, None] = {}

    def __contains__(self, backend: Key) -> bool:
        return backend in self._generations

    def tell(self, backend: Key, event: str | None, generation: int, halves: Iterable[str | None]) -> bool:
        """Takes in an event of a MemoryBackend; whether more changed than its status."""
        if event == "DELETED":
            known = self._generations.pop(backend, None) is not None
            for one in (self._halves, self._asked, self._waiting):
                one.pop(backend, None)
            self._running.discard(backend)
            return known
        changed = self._generations.get(backend) != generation
        self._generations[backend] = generation
        if named := frozenset(name for name in halves if name):
            self._halves[backend] = named
        return changed

    def wholes(self, half: Key) -> list[Key]:
        """MemoryBackends that are made of this one."""
        return [k for k, named in self._halves.items() if k.namespace == half.namespace and half.name in named]

    def ask(self, binding: Key, wanted: Mapping[str, Ask]) -> list[Key]:
        """Takes in what a binding asks for, all of it; the MemoryBackends that were not asked that before."""
        new: list[Key] = []
        for backend, asked in list(self._asked.items()):
            if backend.namespace == binding.namespace and backend.name not in wanted:
                asked.pop(binding.name, None)
                if not asked:
                    del self._asked[backend]
        for name, ask in wanted.items():
            backend = Key("backend", binding.namespace, name)
            if self._asked.setdefault(backend, {}).get(binding.name) != ask:
                self._asked[backend][binding.name] = ask
                new.append(backend)
        return new

    def asked(self, backend: Key) -> dict[str, Ask]:
        """What bindings ask it for."""
        return dict(self._asked.get(backend, {}))

    def place(self, backend: Key, most: int) -> bool:
        """Whether it may be probed now; a place that is free is held until `looked`."""
        if backend not in self._running and len(self._running) >= most:
            return False
        self._running.add(backend)
        return True

    def looked(self, backend: Key, *, probes: bool, waits: bool) -> Key | None:
        """Gives the place back where nothing runs, and says who comes next."""
        if waits:
            self._waiting[backend] = None
        else:
            self._waiting.pop(backend, None)
        if probes:
            self._running.add(backend)
            return None
        self._running.discard(backend)
        return None if waits else self._upcoming()

    def pending(self) -> list[Key]:
        """Those that are at work or come next: looked at again, whatever the watches say."""
        upcoming = self._upcoming()
        return [*self._running, *([upcoming] if upcoming else [])]

    def _upcoming(self) -> Key | None:
        """Who is probed next: bindings wait for those that are asked."""
        return next((one for one in self._waiting if one in self._asked), next(iter(self._waiting), None))
