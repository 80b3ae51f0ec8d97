"""The official Python client: `upsert.py lists|numpy HOST:PORT COLLECTION POINTS` prints points a second, CPU.

CPU seconds of the process for each 100,000 points.
"""

import sys
import time
from collections.abc import Iterator

import numpy as np
from qdrant_client import QdrantClient, models

DIM = 384
BATCH = 512


def payload(number: int) -> dict[str, object]:
    """About 300 bytes."""
    return {
        "kind": "memory",
        "content": f"memory {number} ".ljust(200, "x"),
        "scope": {"user": f"user-{number % 100}"},
        "tags": ["a", "b"],
        "created_at": "2024-06-15T10:30:00.000000Z",
        "extra": {"turn": number, "channel": "chat"},
    }


def batches(vectors: list[list[float]]) -> Iterator[list[models.PointStruct]]:
    """Points by the batch."""
    for base in range(0, len(vectors), BATCH):
        numbers = range(base, min(base + BATCH, len(vectors)))
        yield [models.PointStruct(id=n, vector={"default": vectors[n]}, payload=payload(n)) for n in numbers]


def main() -> None:
    """Writes points to a collection that is there and empty."""
    how, address, collection, points = sys.argv[1:]
    host, port = address.split(":")
    client = QdrantClient(
        host=host, grpc_port=int(port), prefer_grpc=True, timeout=60, check_compatibility=False, https=False
    )
    vectors = np.random.default_rng(1).standard_normal((int(points), DIM), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lists = vectors.tolist() if how == "lists" else []
    wall, cpu = time.perf_counter(), time.process_time()
    if how == "lists":
        for batch in batches(lists):
            client.upsert(collection, batch, wait=True)
    else:
        client.upload_collection(
            collection,
            vectors={"default": vectors},  # type: ignore[arg-type] # what numpy calls its own type is too wide
            payload=map(payload, range(int(points))),
            ids=range(int(points)),
            batch_size=BATCH,
            wait=True,
        )
    print(int(points) / (time.perf_counter() - wall), (time.process_time() - cpu) / int(points) * 1e5)
    client.close()


if __name__ == "__main__":
    main()
