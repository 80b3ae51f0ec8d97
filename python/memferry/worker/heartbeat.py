"""The heartbeat of a worker: its Lease says that it lives and how far it is, and whether another one took it."""

from __future__ import annotations

import json
import threading
import time
from types import TracebackType
from typing import Any, Final, Self

from memferry.errors import MemferryError, StoreError
from memferry.model import Books
from memferry.phases.plan import Stop
from memferry.retry import retrying
from memferry.worker.cluster import Cluster, ConflictError
from memferry.worker.pod import Pod, log, now

__all__ = ["ANSWER", "PROGRESS", "Heartbeat"]

PROGRESS: Final = "memferry.dev/progress"
ANSWER: Final = "memferry.dev/answer"
BEAT_SECS: Final = 3.0
_DURATION_SECS: Final = 15
_TRIES: Final = 10


class Heartbeat:
    """Beats while a block is at work.

    Args:
        cluster: Where the Lease is.
        lease: Its name.
        pod: Who holds it.
        stop: Set when another worker took the Lease.

    Attributes:
        lost: Why this worker has to stop, None while it need not.
    """

    def __init__(self, cluster: Cluster, lease: str, pod: Pod, stop: Stop) -> None:
        self._cluster = cluster
        self._name = lease
        self._pod = pod
        self._stop = stop
        self._over = threading.Event()
        self._due = threading.Event()
        self._lock = threading.Lock()
        self._version: str | None = None
        self._progress: dict[str, Any] = {"attempt": pod.attempt, "phase": "", "read": 0, "written": 0}
        self._progress |= {"quarantined": 0, "total": None, "recordsPerSecond": None, "progressedAt": now()}
        self._began = (time.monotonic(), 0)
        self._answer: str | None = None
        self.lost: str | None = None
        self._thread = threading.Thread(target=self._run, name="memferry-heartbeat", daemon=True)

    def progress(self, phase: str, records: int, total: int | None) -> None:
        """Takes a reading, as `Progress`."""
        with self._lock:
            seen = self._progress
            if phase != seen["phase"]:
                self._began = (time.monotonic(), records)
            if (phase, records) != (seen["phase"], seen["read"]):
                seen["progressedAt"] = now()
            elapsed, done = time.monotonic() - self._began[0], records - self._began[1]
            rate = round(done / elapsed, 1) if elapsed > 0 and done > 0 else None
            seen |= {"phase": phase, "read": records, "total": total, "recordsPerSecond": rate}

    def booked(self, before: Books, after: Books) -> None:
        """Takes what a page came to."""
        with self._lock:
            for name in ("written", "quarantined"):
                self._progress[name] += after.total(name) - before.total(name)

    def answer(self, answer: dict[str, Any]) -> None:
        """Answers a command, at once."""
        with self._lock:
            self._answer = json.dumps(answer)
        self._due.set()

    def reading(self) -> dict[str, Any]:
        """The numbers now."""
        with self._lock:
            return dict(self._progress)

    def __enter__(self) -> Self:
        retrying(self._take)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._due.set()
        self._thread.join()
        if self.lost is None:
            self._beat()

    def _take(self) -> None:
        """Takes the Lease from whoever has it, unless that is a later attempt."""
        for _ in range(_TRIES):
            lease = self._cluster.lease(self._name)
            self._refuse_later(lease)
            transitions = int((lease.get("spec") or {}).get("leaseTransitions") or 0)
            taken = {"acquireTime": now(), "leaseTransitions": transitions + 1, "leaseDurationSeconds": _DURATION_SECS}
            self._version = (lease.get("metadata") or {}).get("resourceVersion")
            try:
                self._patch(**taken)
            except ConflictError:
                continue
            return
        raise StoreError("fenced", f"Lease {self._name}: others take it all the time")

    def _refuse_later(self, lease: dict[str, Any]) -> None:
        attempt = self._attempt(lease)
        if attempt > self._pod.attempt:
            raise StoreError("fenced", f"attempt {attempt} has begun; this is attempt {self._pod.attempt}, which stops")

    @staticmethod
    def _attempt(lease: dict[str, Any]) -> int:
        text = ((lease.get("metadata") or {}).get("annotations") or {}).get(PROGRESS)
        try:
            return int(json.loads(text)["attempt"]) if text else 0
        except (ValueError, KeyError, TypeError):
            return 0

    def _patch(self, **spec: Any) -> None:
        with self._lock:
            annotations = {PROGRESS: json.dumps(self._progress)}
            if self._answer is not None:
                annotations[ANSWER] = self._answer
        change: dict[str, Any] = {
            "metadata": {"annotations": annotations},
            "spec": {"holderIdentity": self._pod.name, "renewTime": now(), **spec},
        }
        if self._version is not None:
            change["metadata"]["resourceVersion"] = self._version
        self._version = (self._cluster.patch_lease(self._name, change).get("metadata") or {}).get("resourceVersion")

    def _beat(self) -> None:
        try:
            try:
                self._patch()
            except ConflictError:
                lease = self._cluster.lease(self._name)
                holder = (lease.get("spec") or {}).get("holderIdentity")
                if holder != self._pod.name or self._attempt(lease) > self._pod.attempt:
                    self.lost = f"Lease {self._name} was taken by {holder}"
                    log("fenced", message=self.lost)
                    self._stop.set()
                    return
                self._version = (lease.get("metadata") or {}).get("resourceVersion")
                self._patch()
        except MemferryError as error:
            # The ledger keeps two workers apart, not this; it is tried again soon.
            log("heartbeat-failed", code=error.code, message=str(error))

    def _run(self) -> None:
        while not self._over.is_set() and self.lost is None:
            self._due.wait(BEAT_SECS)
            self._due.clear()
            if self._over.is_set():
                return
            self._beat()
            log("progress", **self.reading())
