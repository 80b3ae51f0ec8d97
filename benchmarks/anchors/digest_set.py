"""A Python set of sha256 digests: `digest_set.py KEYS` prints bytes a key and keys a CPU second."""

import hashlib
import sys
import time
from pathlib import Path


def peak_bytes() -> int:
    """The most memory that this process has had."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def main() -> None:
    """Makes the set."""
    keys = int(sys.argv[1])
    before = peak_bytes()
    began = time.process_time()
    seen = set()
    twice = 0
    for number in range(keys):
        digest = hashlib.sha256(b"memory %d" % number).digest()
        if digest in seen:
            twice += 1
        seen.add(digest)
    secs = time.process_time() - began
    assert twice == 0
    print((peak_bytes() - before) / keys, keys / secs)


if __name__ == "__main__":
    main()
