"""Become another program that the kernel kills when the process that asked for it dies.

Run as `python exec_with_parent.py PARENT_PID PROGRAM ARG...`. The setting (`PR_SET_PDEATHSIG`) outlives `exec`,
so the program keeps this pid and needs to know nothing. A script of its own rather than a `preexec_fn`: Python code
between fork and exec can deadlock in a process that has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Set the parent-death signal, then exec."""
    parent = int(sys.argv[1])
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
            sys.exit(f"prctl(PR_SET_PDEATHSIG) failed: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died before the setting was made
        sys.exit("the parent process is gone")
    try:
        os.execvp(sys.argv[2], sys.argv[2:])
    except OSError as error:
        sys.exit(f"cannot run {sys.argv[2]}: {error.strerror}")


if __name__ == "__main__":
    main()
