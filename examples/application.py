"""An application with a memory: it puts, searches, moves to another store, and goes on with the same code.

python examples/application.py                                  # an embedded store, and another one
python examples/application.py qdrant://localhost:6334/agents   # on to Qdrant
"""

from __future__ import annotations

import hashlib
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

import memferry
from memferry import Record, Vector

DIM = 64


def embed(text: str) -> list[float]:
    """A toy embedding: words as a bag of hashes. A real application calls its model here."""
    numbers = [0.0] * DIM
    for word in text.lower().split():
        numbers[int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big") % DIM] += 1.0
    length = sum(number * number for number in numbers) ** 0.5 or 1.0
    return [number / length for number in numbers]


class Memory:
    """The application's own words for what it remembers; the store behind them may be any."""

    def __init__(self, url: str) -> None:
        self.store = memferry.open(url, vectors={"": DIM})

    def remember(self, user: str, text: str) -> None:
        """Keeps a text about a user."""
        identity = hashlib.sha256(f"{user}\0{text}".encode()).hexdigest()[:16]
        vector = Vector.dense(embed(text), model="toy", normalized=True)
        now = datetime.now(UTC)
        self.store.put(Record("memory", identity, content=text, scope={"user": user}, created_at=now, vectors=[vector]))

    def recall(self, user: str, question: str) -> list[str]:
        """The texts about a user that are nearest to a question."""
        hits = self.store.search(vector=embed(question), k=2, kinds="memory", scope={"user": user})
        return [hit.record.content or "" for hit in hits]


def main() -> None:
    """Remembers, recalls, moves, recalls."""
    with tempfile.TemporaryDirectory(prefix="memferry-example-") as folder:
        here = str(Path(folder) / "agents.db")
        there = sys.argv[1] if len(sys.argv) > 1 else str(Path(folder) / "moved.db")
        memory = Memory(here)
        for text in ("Ann likes green tea", "Ann lives in Oslo", "Ann works at Acme"):
            memory.remember("ann", text)
        memory.remember("bob", "Bob likes green tea too")
        print(memory.recall("ann", "what tea does she like"))
        memory.store.close()

        result = memferry.migrate(here, there)
        print(f"moved to {there}: {result.outcome}")

        memory = Memory(there)
        print(memory.recall("ann", "what tea does she like"))
        memory.store.close()


if __name__ == "__main__":
    main()
