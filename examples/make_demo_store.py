"""Makes `examples/demo/agents.db`: the memory of an agent that looks after a fleet of services.

Everything in it is put together from the lists below; the embeddings are real (all-MiniLM-L6-v2, 384 numbers). Run by
hand when the format of the store changes: `PYTHONPATH=tests .venv/bin/python examples/make_demo_store.py`.
"""

from __future__ import annotations

import base64
import datetime as dt
import itertools
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from memferry.phases.migrate import migrate
from memferry.phases.plan import Options
from memferry.urls import parse_url
from testbed.minilm import embed

SERVICES = "billing checkout search catalog gateway ledger mailer profile pricing inventory reports webhooks".split()
PARTS = "api worker cache queue database scheduler importer exporter".split()
REGIONS = "frankfurt dublin virginia oregon singapore tokyo".split()
DEPENDENCIES = "postgres redis kafka nginx envoy vault prometheus grafana etcd minio".split()
EVENTS = [
    ("{a} in {r} ran out of connections to {d}; raising the pool to {n} fixed it", "incident"),
    ("deploys of {a} to {r} must wait until {b} has drained its queue", "procedure"),
    ("the p99 latency of {a} in {r} is about {n} ms on weekday mornings", "fact"),
    ("the owner prefers that {a} is rolled back rather than patched when {d} misbehaves", "preference"),
    ("{a} reads its settings from {d} and falls back to {b} for {n} seconds", "fact"),
    ("a backup of {a} in {r} was restored in {n} minutes during the last exercise", "episode"),
    ("certificates of {a} in {r} are renewed {n} days before they expire", "fact"),
    ("the alert on {a} in {r} is noisy below {n} requests a second and may be ignored then", "preference"),
]
MEMORIES = 4_000
START = dt.datetime(2025, 3, 1, 8, tzinfo=dt.UTC)


def _vector(numbers: Any) -> list[dict[str, Any]]:
    data = base64.b64encode(numbers.astype("<f4").tobytes()).decode("ascii")
    return [{"data": data, "dim": 384, "kind": "dense", "model": "all-MiniLM-L6-v2", "normalized": True}]


def _when(rng: random.Random) -> str:
    moment = START + dt.timedelta(minutes=rng.randrange(600_000), microseconds=rng.randrange(1_000_000))
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def documents() -> list[dict[str, Any]]:
    """All records as native documents, vectors apart."""
    rng = random.Random(20_250_301)
    names = [f"{service}-{part}" for service, part in itertools.product(SERVICES, PARTS)]
    records: list[dict[str, Any]] = []
    for name in [*names, *DEPENDENCIES, *REGIONS]:
        kind = "component" if "-" in name else "dependency" if name in DEPENDENCIES else "region"
        records.append({"kind": "entity", "id": name, "name": name, "type": kind, "created_at": _when(rng)})
        for number in range(rng.randrange(1, 6)):
            content = f"{name} was seen {rng.randrange(2, 90)} times in the change log, last with {rng.choice(names)}"
            observation = {"kind": "observation", "id": f"{name}/{number}", "owner_id": name, "content": content}
            records.append({**observation, "observed_at": _when(rng), "confidence": rng.randrange(50, 100) / 100})
    for name in names:
        for verb, other in (("depends_on", rng.choice(DEPENDENCIES)), ("runs_in", rng.choice(REGIONS))):
            edge = {"kind": "relation", "id": f"{name} {verb} {other}", "type": verb, "from_id": name, "to_id": other}
            records.append({**edge, "strength": rng.random(), "valid_from": _when(rng)})
    texts: set[str] = set()
    while len(texts) < MEMORIES:
        template, kind = rng.choice(EVENTS)
        a, b, d, r = rng.choice(names), rng.choice(names), rng.choice(DEPENDENCIES), rng.choice(REGIONS)
        text = template.format(a=a, b=b, d=d, r=r, n=rng.randrange(2, 900))
        if text in texts:
            continue
        texts.add(text)
        memory = {"kind": "memory", "id": f"mem-{len(texts):05d}", "content": text, "type": kind, "tags": [a, r]}
        scope = {"agent": "fleet-keeper", "user": rng.choice(["oncall-eu", "oncall-us"])}
        extra = {"source": {"channel": rng.choice(["chat", "ticket", "log"]), "turn": rng.randrange(1, 400)}}
        records.append(
            {
                **memory,
                "scope": scope,
                "created_at": _when(rng),
                "importance": rng.random(),
                "version": 1,
                "extra": extra,
            }
        )
    return records


def main() -> None:
    """Writes the store."""
    out = Path(__file__).parent / "demo" / "agents.db"
    records = documents()
    memories = [record for record in records if record["kind"] == "memory"]
    for record, numbers in zip(memories, embed([r["content"] for r in memories]), strict=True):
        record["vectors"] = _vector(numbers)
    out.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        lines = Path(folder) / "agents.jsonl"
        lines.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
        result = migrate(parse_url(str(lines)), parse_url(str(out)), Options())
    for suffix in ("-wal", "-shm"):
        Path(f"{out}{suffix}").unlink(missing_ok=True)
    print(f"{out.name}: {result.outcome}, {result.books.total('read')} records, {out.stat().st_size} bytes")
    sys.exit(result.exit_code)


if __name__ == "__main__":
    main()
