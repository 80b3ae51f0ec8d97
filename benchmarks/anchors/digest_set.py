"""A Python set of sha256 digests: `digest_set.py KEYS` prints bytes a key and keys a CPU second."""

import hashlib
import resource
import sys
import time


def main() -> None:
    """Makes the set."""
    keys = int(sys.argv[1])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
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
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / keys, keys / secs)


if __name__ == "__main__":
    main()
