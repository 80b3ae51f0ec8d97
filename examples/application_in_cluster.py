"""An application in a cluster: it writes and searches all the time, whatever store its MemoryBinding names.

Every write that was acknowledged is a line on stdout, `{"event": "written", "id": ...}`: whoever keeps these lines can
check that nothing was lost by a switch. `examples/cluster/application.yaml` runs it in a pod; outside of one:

python examples/application_in_cluster.py agents-memory --kubeconfig ~/.kube/config
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from memferry import MemferryError, Record, TransientError, binding

AGAIN_SECS = 0.1


def log(event: str, **fields: Any) -> None:
    """A line of JSON, out at once."""
    sys.stdout.write(json.dumps({"event": event, "at": round(time.time(), 3), **fields}) + "\n")
    sys.stdout.flush()


def remember(memory: binding.BoundStore, record: Record, stop: threading.Event) -> bool:
    """Writes a record, again until it is acknowledged; whether it was before the end."""
    while True:
        try:
            memory.put(record)
        except TransientError as error:
            # Frozen for too long, no cluster, a store that is away, in doubt: a put can be done twice.
            log("again", id=record.id, code=error.code)
            if stop.wait(error.retry_after_secs or AGAIN_SECS):
                return False
        else:
            return True


def work(memory: binding.BoundStore, arguments: argparse.Namespace, stop: threading.Event) -> None:
    """Writes and searches."""
    number = 0
    while not stop.wait(arguments.interval_secs):
        number += 1
        record = Record("memory", f"{arguments.name}-{number:08d}", content=f"note {number} of {arguments.name}")
        begun = time.monotonic()
        if not remember(memory, record, stop):
            return
        waited_millis = round(1000 * (time.monotonic() - begun))
        standing = memory.standing()
        log("written", id=record.id, revision=standing.revision, active=standing.active, millis=waited_millis)
        try:
            found = memory.search(f"note {number}", k=1) if memory.capabilities().text_kinds else []
        except MemferryError as error:
            log("search-failed", code=error.code)
        else:
            log("searched", found=[hit.record.id for hit in found])


def main() -> None:
    """Connects and works until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("binding", help="name of the MemoryBinding")
    parser.add_argument("--name", default="app", help="begins the ids of what this one writes")
    parser.add_argument("--interval-secs", type=float, default=0.1, help="between two writes")
    parser.add_argument("--kubeconfig", type=Path, help="outside of a pod")
    parser.add_argument("--namespace")
    parser.add_argument("--pod", help="name of the pod, where it is not the host's name")
    parser.add_argument("--lease-secs", type=int, default=15)
    parser.add_argument("--freeze-wait-secs", type=float, default=30.0)
    arguments = parser.parse_args()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with binding.connect(
        arguments.binding,
        namespace=arguments.namespace,
        kubeconfig=arguments.kubeconfig,
        pod=arguments.pod,
        lease_secs=arguments.lease_secs,
        freeze_wait_secs=arguments.freeze_wait_secs,
    ) as memory:
        log("connected", binding=arguments.binding)
        work(memory, arguments, stop)
    log("closed")


if __name__ == "__main__":
    main()
