"""Keeps a client in step with its binding: three threads that watch, renew the Lease, and open the store."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from memferry.application import Store, open_store
from memferry.binding.cluster import AbsentError, Cluster, binding_path
from memferry.binding.current import Current
from memferry.binding.lease import Identity, OwnLease, Said
from memferry.binding.projection import Projection, read_folder, read_secret
from memferry.binding.state import ClientState, Seen
from memferry.errors import MemferryError, TransientError
from memferry.manifest.binding_status import BindingStatus

__all__ = ["Link", "clock"]

_AGAIN_SECS: Final = 0.5
_LONGEST_SECS: Final = 5.0
"""Between two tries."""
_CLOCK: Final = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock() -> float:
    """Seconds that also pass while the process is stopped, and on Linux while the machine is asleep."""
    return time.clock_gettime(_CLOCK)


class Link:
    """One client of one binding, and its three threads.

    Args:
        cluster: Where the binding is.
        identity: Who this is.
        lease_secs: How long a renewal of the Lease counts.
        claims: Where claims are mounted.
        secret_folder: Where the binding's Secret is mounted, where it is not read through the API.
        vectors: Dimension by name of the vectors to come, for a collection that is to be made.
        now: Tells the time.
    """

    def __init__(
        self,
        cluster: Cluster,
        identity: Identity,
        *,
        lease_secs: int,
        claims: Path,
        secret_folder: Path | None,
        vectors: Mapping[str, int] | None,
        now: Callable[[], float] = clock,
    ) -> None:
        self.now = now
        self.identity = identity
        self.changed = threading.Condition()
        self.state = ClientState(lease_secs)
        self.current = Current(self.changed)
        self.errors = 0
        self.problems: dict[str, MemferryError] = {}
        """What went wrong last in each thread, until it goes well."""
        self._cluster = cluster
        self._lease = OwnLease(cluster, identity, lease_secs, now)
        self._lease_secs = lease_secs
        self._claims = claims
        self._secret_folder = secret_folder
        self._vectors = vectors
        self._scratch = Path(tempfile.mkdtemp(prefix="memferry-binding-"))
        self._clean = weakref.finalize(self, _remove, self._scratch, os.getpid())
        self._closing = False
        self._reopen = False
        self._end_watch: Callable[[], None] = lambda: None
        self._listeners: list[Callable[[], None]] = []
        steps = {"watch": self._watch, "lease": self._keep_lease, "store": self._keep_open}
        self._threads = [
            threading.Thread(target=step, name=f"memferry-{name}", daemon=True) for name, step in steps.items()
        ]

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends everything; the Lease says that nothing is in flight and nothing will start.

        A write that takes longer than the Lease lasts is left alone; the Lease runs out by itself then.
        """
        with self.changed:
            self._closing = True
            self.state.end("closed")
            idle = self.changed.wait_for(lambda: self.state.in_flight == 0, timeout=self._lease_secs)
            self.notify()
        self._end_watch()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        if idle:
            # Where it cannot be said, it runs out by itself.
            with suppress(MemferryError):
                self._lease.release()
        self.current.exchange(None)()
        self._cluster.close()
        self._clean()

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Calls `listener`, from any thread, when something has changed; gives what ends that."""

        def unlisten() -> None:
            with self.changed:
                self._listeners.remove(listener)

        with self.changed:
            self._listeners.append(listener)
        return unlisten

    def count_error(self) -> None:
        """The store failed the application; told with the next renewal of the Lease."""
        with self.changed:
            self.errors += 1

    def reopen(self) -> None:
        """The credentials may have been changed: the store is opened anew where they have."""
        with self.changed:
            self._reopen = True
            self.notify()

    def notify(self) -> None:
        """Has everyone look again who waits; the caller holds `changed`."""
        self.changed.notify_all()
        for listener in self._listeners:
            listener()

    def _pause(self, secs: float, until: Callable[[], bool] = lambda: False) -> None:
        with self.changed:
            self.changed.wait_for(lambda: self._closing or until(), timeout=secs)

    def _told(self, thread: str, error: MemferryError | None) -> None:
        with self.changed:
            if error is None:
                self.problems.pop(thread, None)
            else:
                self.problems[thread] = error
            self.notify()

    # --- the binding

    def _watch(self) -> None:
        wait_secs = _AGAIN_SECS
        while not self._closing:
            try:
                with _ours():
                    for event in self._cluster.watch(binding_path(), self.identity.binding, self._stopper):
                        wait_secs = _AGAIN_SECS
                        if event.get("type") in {"ADDED", "MODIFIED"}:
                            self._saw(event["object"], None)
                self._told("watch", None)
            except MemferryError as error:
                if self._closing:
                    return
                self._told("watch", error)
                self._pause(wait_secs)
                wait_secs = min(wait_secs * 2, _LONGEST_SECS)

    def _stopper(self, stop: Callable[[], None]) -> None:
        def end() -> None:
            with suppress(OSError, RuntimeError, ValueError):
                stop()

        with self.changed:
            self._end_watch = end
            closing = self._closing
        if closing:
            end()

    def _read(self) -> None:
        """Reads the binding itself, not what a watch remembers."""
        began = self.now()
        try:
            found = self._cluster.get(binding_path(self.identity.binding))
        except AbsentError as error:
            raise TransientError("binding", f"no MemoryBinding {self.identity.binding}") from error
        self._saw(found, began)

    def _saw(self, resource: dict[str, Any], read_began: float | None) -> None:
        seen = _seen(resource)
        with self.changed:
            if self.state.saw(seen, read_began=read_began):
                self.errors = 0
            self.notify()
        if seen is None and read_began is not None:
            raise TransientError("binding", f"MemoryBinding {self.identity.binding} has no status yet")

    # --- the Lease

    def _keep_lease(self) -> None:
        beat_secs = self._lease_secs / 3
        while not self._closing:
            began, said = self.now(), self._said()
            try:
                with _ours():
                    self._lease.renew(said)
                    with self.changed:
                        self.state.renewed(began, self.now())
                        unread = self.state.unread(self.now())
                        self.notify()
                    if unread:
                        self._read()
                self._told("lease", None)
            except (TransientError, AbsentError) as error:
                if isinstance(error, AbsentError):
                    with self.changed:
                        self.state.lost()
                self._told("lease", error)
                self._pause(min(_AGAIN_SECS, beat_secs))
                continue
            except MemferryError as error:
                if error.code == "fenced":
                    self.state.end("fenced")
                    self._told("lease", error)
                    return
                self._told("lease", error)
                self._pause(beat_secs)
                continue
            self._pause(beat_secs, self._news_after(said))

    def _said(self) -> Said:
        with self.changed:
            problem = self.problems.get("store")
            return Said(self.state.acknowledgement(), self.errors, problem.code if problem else "")

    def _news_after(self, said: Said) -> Callable[[], bool]:
        """Whether there is something to say at once; counts of errors are not."""

        def news() -> bool:
            now = self._said()
            return (now.acknowledgement, now.problem) != (said.acknowledgement, said.problem)

        return news

    # --- the store

    def _keep_open(self) -> None:
        opened: Projection | None = None
        wait_secs = _AGAIN_SECS
        while not self._closing:
            wanted = self._wanted()
            if wanted is None:
                self._pause(60.0, lambda: self._wanted() is not None)
                continue
            try:
                with _ours():
                    opened = self._follow(wanted, opened)
                self._reopen = False
                self._told("store", None)
                wait_secs = _AGAIN_SECS
            except MemferryError as error:
                self._told("store", error)
                short = error.code == "binding"  # The Secret comes right after the status.
                self._pause(_AGAIN_SECS / 5 if short else wait_secs, self._sought(wanted))
                wait_secs = min(wait_secs * 2, _LONGEST_SECS)

    def _follow(self, wanted: str, opened: Projection | None) -> Projection:
        """Opens the store of a MemoryBackend where it is not open as its Secret says; what that says."""
        found = self._projection()
        if found.active != wanted:
            told = f"the Secret of binding {self.identity.binding} is still of `{found.active}`"
            raise TransientError("binding", told)
        if opened is None or found.data != opened.data or self.current.active != wanted:
            url = found.store(self._claims, self._scratch)
            self._exchange(open_store(url, vectors=self._vectors), wanted)
        return found

    def _exchange(self, store: Store, active: str) -> None:
        with self.changed:
            left = self.current.exchange(store, active)
            self.state.opened(active)
        left()

    def _sought(self, wanted: str) -> Callable[[], bool]:
        return lambda: self._wanted() != wanted

    def _wanted(self) -> str | None:
        """The MemoryBackend whose store is to be opened; None where it is open."""
        seen = self.state.seen
        if seen is None or (seen.active == self.current.active and not self._reopen):
            return None
        return seen.active

    def _projection(self) -> Projection:
        if self._secret_folder is not None:
            return read_folder(self._secret_folder)
        try:
            return read_secret(self._cluster, self.identity.binding)
        except AbsentError as error:
            raise TransientError("binding", f"binding {self.identity.binding} has no Secret yet") from error


@contextmanager
def _ours() -> Iterator[None]:
    """Whatever fails is told and tried again: without one of its threads a client never follows its binding again."""
    try:
        yield
    except MemferryError:
        raise
    except OSError as error:
        raise TransientError("io", f"{type(error).__name__}: {error}") from error
    except Exception as error:
        # Its text may quote what could not be read, and with it a credential.
        raise TransientError("binding", f"a defect of memferry: {type(error).__name__}") from error


def _remove(folder: Path, pid: int) -> None:
    """A child that was forked ends in order too, and the folder is the parent's."""
    if os.getpid() == pid:
        shutil.rmtree(folder, ignore_errors=True)


def _seen(resource: dict[str, Any]) -> Seen | None:
    try:
        status = BindingStatus.model_validate(resource.get("status") or {})
    except ValidationError:
        return None
    if not status.active or not status.revision:
        return None
    return Seen(status.active, status.revision, status.mode, status.frozen_until)
