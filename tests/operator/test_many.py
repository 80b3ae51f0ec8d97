"""Very many migrations at once: memory, time until each has a status, and no storm against the API server."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.operating import OperatorFromNothing, migration, server
from testbed.kubernetes.api_tier import ApiTier
from testbed.wait import until

MAX_RSS_BYTES = 150 << 20
MAX_ACTIVE = 5


def held_back(tier: ApiTier) -> Counter[str]:
    """How many requests the API server's flow control rejected so far, by priority level and reason.

    Not every 429: the server answers that, too, while the cache of a resource that was just defined fills.
    """
    lines = tier.client._http.get("/metrics").text.splitlines()
    assert any(line.startswith("apiserver_flowcontrol_dispatched_requests_total{") for line in lines)
    counts = [line for line in lines if line.startswith("apiserver_flowcontrol_rejected_requests_total{")]
    return Counter({name: int(float(value)) for name, _, value in (line.rpartition(" ") for line in counts)})


@pytest.mark.timeout(400)
@pytest.mark.parametrize("many", [200, pytest.param(2000, marks=pytest.mark.slow_cluster)])
def test_many(
    many: int, tier: ApiTier, namespace: str, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    client, settings = tier.client, {"watch_namespaces": namespace, "max_active": str(MAX_ACTIVE)}
    client.apply_all([server("a"), server("b")], namespace=namespace)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.create(migration(f"m-{n}"), namespace=namespace), range(many)))
    before = held_back(tier)
    with OperatorFromNothing(tier, tmp_path, home=namespace, **settings) as operator:
        operator.leads()
        begun = time.monotonic()

        def phases() -> Counter[str]:
            samples = {
                name: value for name, value in operator.metrics().items() if name.startswith("memferry_migrations{")
            }
            return Counter({name.split('"')[1]: int(value) for name, value in samples.items()})

        def settled() -> bool:
            found = operator.metrics()
            return (
                found["memferry_queue_depth"] == 0
                and found.get('memferry_actions_total{action="WriteStatus"}', 0) >= many
            )

        until(settled, what=f"a status for each of {many}", deadline_secs=300)
        settle_secs = time.monotonic() - begun
        found = operator.metrics()
        record_property("migrations at once", many)
        record_property("settle secs", round(settle_secs, 1))
        record_property("operator RSS MiB", round(found["process_resident_memory_bytes"] / (1 << 20)))
        record_property("operator CPU secs", round(found["process_cpu_seconds_total"], 1))
        assert found["process_resident_memory_bytes"] < MAX_RSS_BYTES
        assert phases()["ParallelSetup"] == MAX_ACTIVE
        assert phases()["Pending"] == many - MAX_ACTIVE
        assert held_back(tier) == before, "the API server was asked too often"
        assert not operator.errors()
