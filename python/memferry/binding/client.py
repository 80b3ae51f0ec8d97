"""A store that is the one its MemoryBinding names, whichever that is: `memferry.binding.connect`."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from memferry.application import Found, Hits, Store
from memferry.backends.access import Capabilities
from memferry.binding.cluster import Cluster, connected
from memferry.binding.lease import Identity
from memferry.binding.link import Link
from memferry.binding.projection import default_claims
from memferry.binding.state import Denied, Mode, Permit, Reason
from memferry.errors import (
    FrozenError,
    InDoubtError,
    LeaseLostError,
    MemferryError,
    RefusedError,
    StoreError,
    TransientError,
)
from memferry.listing import RecordPage
from memferry.manifest.protocol import LEASE_SECS
from memferry.records import Record

__all__ = ["AT_ONCE", "FREEZE_WAIT_SECS", "BoundStore", "Standing", "connect"]

FREEZE_WAIT_SECS: Final = 30.0
"""As long as a freeze lasts at most where a migration says nothing else."""
_CONNECT_SECS: Final = 60.0
AT_ONCE: Final = frozenset({"closed", "fenced", "lease-lost"})
"""What no write waits for: it ends never, or nobody knows when."""


@dataclass(frozen=True)
class Standing:
    """How a client stands.

    Attributes:
        binding: Its MemoryBinding.
        active: The MemoryBackend that serves.
        revision: Of the binding.
        mode: Whether clients may write.
        writable: Whether a write would begin now.
        reason: Why it would not.
        in_flight: Writes under way.
        errors: How often the store failed since the revision was first seen.
        problems: What goes wrong now: code by part, of `watch`, `lease` and `store`.
    """

    binding: str
    active: str
    revision: int
    mode: Mode | None
    writable: bool
    reason: Reason | None
    in_flight: int
    errors: int
    problems: Mapping[str, str]


class BoundStore:
    """The store of a MemoryBinding. Threads may share it, processes not. Made by `memferry.binding.connect`.

    Has the methods of `memferry.Store`. While writes are frozen a write waits in the thread that called it, at most
    `freeze_wait_secs`; reads go on all the time.
    """

    def __init__(self, link: Link, *, freeze_wait_secs: float) -> None:
        self._link = link
        self._freeze_wait_secs = freeze_wait_secs
        self._pid = os.getpid()

    def __repr__(self) -> str:
        return f"<memferry.binding.BoundStore {self._link.identity.binding}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits for writes under way, says so to the cluster, and ends all connections."""
        self._check_process()
        self._link.close()

    def standing(self) -> Standing:
        """How this client stands: for health checks and metrics."""
        link = self._link
        with link.changed:
            seen, reason = link.state.seen, link.state.refusal(link.now())
            return Standing(
                binding=link.identity.binding,
                active=seen.active if seen else "",
                revision=seen.revision if seen else 0,
                mode=seen.mode if seen else None,
                writable=reason is None,
                reason=reason,
                in_flight=link.state.in_flight,
                errors=link.errors,
                problems={part: error.code for part, error in link.problems.items()},
            )

    # --- writes

    def put(self, records: Record | Iterable[Record], *, replace: bool = True) -> int:
        """See `memferry.Store.put`.

        Raises:
            FrozenError: Writes were frozen for longer than this waits.
            LeaseLostError: The cluster cannot be reached, so that no switch would wait for this write.
            InDoubtError: That happened while it was under way: do it again.
        """
        given = records if isinstance(records, Record) else list(records)
        with self._writing() as store:
            return store.put(given, replace=replace)

    def delete(self, kind: str, id: str) -> bool:  # noqa: A002 - the field's name
        """See `memferry.Store.delete`; raises as `put` does."""
        with self._writing() as store:
            return store.delete(kind, id)

    def delete_many(self, identities: Iterable[tuple[str, str]]) -> int:
        """See `memferry.Store.delete_many`; raises as `put` does."""
        given = list(identities)
        with self._writing() as store:
            return store.delete_many(given)

    # --- reads

    def capabilities(self) -> Capabilities:
        """What the store can do that is open now."""
        with self._reading() as store:
            return store.capabilities()

    def get(self, kind: str, id: str) -> Record | None:  # noqa: A002 - the field's name
        """See `memferry.Store.get`."""
        with self._reading() as store:
            return store.get(kind, id)

    def get_many(self, identities: Iterable[tuple[str, str]]) -> Found:
        """See `memferry.Store.get_many`."""
        with self._reading() as store:
            return store.get_many(identities)

    def list(self, **wanted: Any) -> Iterator[Record]:
        """See `memferry.Store.list`; a listing ends in the store it began in."""
        for page in self.pages(**wanted):
            yield from page.readable()

    def pages(self, **wanted: Any) -> Generator[RecordPage, None, None]:
        """See `memferry.Store.pages`; a cursor is of the store it comes from."""
        with self._reading() as store:
            yield from store.pages(**wanted)

    def search(self, text: str | None = None, **wanted: Any) -> Hits:
        """See `memferry.Store.search`."""
        with self._reading() as store:
            return store.search(text, **wanted)

    def wait_indexed(self, deadline_secs: float = 600.0) -> bool:
        """See `memferry.Store.wait_indexed`."""
        with self._reading() as store:
            return store.wait_indexed(deadline_secs)

    # --- how

    @contextmanager
    def _reading(self) -> Iterator[Store]:
        self._check_process()
        with self._link.current.used() as store:
            if store is None:
                raise self.refused("closed" if self.standing().reason == "closed" else "opening")
            with self._counting():
                yield store

    @contextmanager
    def _writing(self) -> Iterator[Store]:
        link = self._link
        deadline = link.now() + self._freeze_wait_secs
        with link.changed:
            while isinstance(begun := self.try_begin(), Denied):
                left = deadline - link.now()
                if begun.reason in AT_ONCE or left <= 0:
                    raise self.refused(begun.reason)
                link.changed.wait(left)
        with self.finishing(*begun) as store:
            yield store

    def try_begin(self) -> tuple[Permit, ExitStack, Store] | Denied:
        """Begins a write where one may be begun; it has to be finished by `finishing`, or `abandon`."""
        self._check_process()
        link = self._link
        with link.changed:
            permit = link.state.begin(link.now())
            if isinstance(permit, Denied):
                return permit
            held = ExitStack()
            store = held.enter_context(link.current.used())
            assert store is not None, "a store is open where a write may begin"  # noqa: S101
            return permit, held, store

    @contextmanager
    def finishing(self, permit: Permit, held: ExitStack, store: Store) -> Iterator[Store]:
        """The write that has begun; at its end it is known whether it counts.

        Raises:
            InDoubtError: It was done, and may have come too late.
        """
        link = self._link
        with held:
            try:
                with self._counting():
                    yield store
            finally:
                with link.changed:
                    sure = link.state.finish(permit, link.now())
                    link.notify()
            if not sure:
                link.count_error()
                raise InDoubtError(
                    "in-doubt",
                    f"a write under revision {permit.revision} came to its end after the Lease had run out: it may be "
                    "lost by a switch",
                )

    def abandon(self, permit: Permit, held: ExitStack, _store: Store) -> None:
        """The write that has begun is not done: nothing of it reached the store."""
        link = self._link
        with held, link.changed:
            link.state.finish(permit, link.now())
            link.notify()

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Counts failures of the store; new credentials are looked for where it does not take the old ones."""
        try:
            yield
        except StoreError:
            self._link.count_error()
            raise
        except RefusedError as error:
            if error.code == "unauthorized":
                self._link.count_error()
                self._link.reopen()
            raise

    def refused(self, reason: Reason) -> MemferryError:
        """The error for what is not begun."""
        link = self._link
        with link.changed:
            seen, problems = link.state.seen, dict(link.problems)
        of = f"binding {link.identity.binding}"
        if reason == "frozen" and seen is not None:
            until = f", until {seen.frozen_until} at the latest" if seen.frozen_until else ""
            return FrozenError("frozen", f"{of} is frozen for a switch, revision {seen.revision}{until}")
        if reason in {"lease-lost", "unread"}:
            why = problems.get("lease")
            return LeaseLostError("lease-lost", f"{of}: the Lease ran out{f': {why}' if why else ''}")
        if reason == "fenced":
            return StoreError("fenced", f"{of}: another process of this pod has taken Lease {link.identity.lease}")
        if reason == "closed":
            return RefusedError("invalid", f"{of} has been closed")
        if reason == "contradiction":
            return TransientError("binding", f"{of}: two things are said of one revision; the next one settles it")
        why = problems.get("store") or problems.get("lease") or problems.get("watch")
        return TransientError("binding", f"{of}: {why or 'its store is not open yet'}")

    def wait_open(self, deadline_secs: float) -> None:
        """Waits until the binding was read, the Lease written and the store opened.

        Raises:
            TransientError: `binding` or another code of what is in the way.
        """
        link = self._link
        with link.changed:
            link.changed.wait_for(lambda: self._through() is None, timeout=deadline_secs)
            reason = self._through()
        if reason is not None:
            raise self.refused(reason)

    def _through(self) -> Reason | None:
        reason = self._link.state.refusal(self._link.now())
        if reason == "frozen":
            return None if self._link.current.active else "opening"
        return reason

    def listen(self, listener: Callable[[], None]) -> Callable[[], None]:
        """See `Link.listen`."""
        return self._link.listen(listener)

    @property
    def freeze_wait_secs(self) -> float:
        """How long a write waits."""
        return self._freeze_wait_secs

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise RefusedError(
                "invalid",
                "this store was connected before the process forked: its Lease is the parent's",
                hint="connect in each worker, with a name for each: connect(..., client=NAME)",
            )


def connect(
    binding: str,
    *,
    namespace: str | None = None,
    kubeconfig: str | os.PathLike[str] | None = None,
    context: str | None = None,
    pod: str | None = None,
    client: str = "",
    freeze_wait_secs: float = FREEZE_WAIT_SECS,
    lease_secs: int = LEASE_SECS,
    claims: str | os.PathLike[str] | None = None,
    secret_folder: str | os.PathLike[str] | None = None,
    vectors: Mapping[str, int] | None = None,
    wait_secs: float = _CONNECT_SECS,
) -> BoundStore:
    """Connects to the memory that a MemoryBinding names, and follows it from then on.

    Args:
        binding: Name of the MemoryBinding.
        namespace: Its namespace, this pod's where none is given.
        kubeconfig: For a process that is in no pod.
        context: A context of it.
        pod: Name of this pod, `MEMFERRY_POD_NAME` or the host name where none is given.
        client: A name for each, where the pod has several processes that write.
        freeze_wait_secs: How long a write waits while writes are frozen, before it raises.
        lease_secs: Without the cluster for so long, writes stop.
        claims: Where claims are mounted, each under its name: `MEMFERRY_CLAIMS`, or /var/lib/memferry/claims.
        secret_folder: Where the binding's Secret is mounted, if it may not be read through the API. A mounted Secret
            follows within a minute or so, which is too long for most freezes.
        vectors: See `memferry.open`.
        wait_secs: How long to wait for the binding, its Secret and the store.

    Raises:
        RefusedError: `extra-missing`, `cluster`, `invalid`, and those of `memferry.open`.
        TransientError: `binding`, `cluster`, `lease-lost`: not there within `wait_secs`.
    """
    if lease_secs < 2 or freeze_wait_secs < 0:
        told = (
            f"connect: lease_secs {lease_secs}, at least 2 is needed; freeze_wait_secs {freeze_wait_secs}, at least 0"
        )
        raise RefusedError("invalid", told)
    name = pod or os.environ.get("MEMFERRY_POD_NAME") or socket.gethostname()
    cluster: Cluster = connected(namespace, kubeconfig=kubeconfig, context=context, read_secs=lease_secs / 3)
    link = Link(
        cluster,
        Identity(binding, name, os.environ.get("MEMFERRY_POD_UID", ""), client),
        lease_secs=lease_secs,
        claims=Path(claims) if claims is not None else default_claims(),
        secret_folder=Path(secret_folder) if secret_folder is not None else None,
        vectors=vectors,
    )
    store = BoundStore(link, freeze_wait_secs=freeze_wait_secs)
    link.start()
    with ExitStack() as unless_open:
        unless_open.callback(store.close)
        store.wait_open(wait_secs)
        unless_open.pop_all()
    return store
