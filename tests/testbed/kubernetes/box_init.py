"""Process 1 of the box: makes its mounts and its interfaces, then starts and signals programs as it is told.

It reads one JSON object a line and answers each with one. It ends when its input does, and everything in the box ends
with it. Standard library only: it runs by itself.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
# The kubelet wants these on the whole machine; in the box it reads the values that it wants.
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}

pids: dict[str, int] = {}
exit_codes: dict[int, int] = {}


def main() -> None:
    """Prepare the box, then serve."""
    state, address = sys.argv[1:3]
    mounts(Path(state))
    network(address)
    signal.signal(signal.SIGCHLD, reap)
    say({"ready": True})
    for line in sys.stdin:
        say(answer(json.loads(line)))


def answer(command: dict[str, Any]) -> dict[str, Any]:
    """Do one command."""
    name = command["name"]
    if command["do"] == "start":
        return start(name, command)
    pid = pids[name]
    ended = pid in exit_codes
    if command["do"] == "signal" and not ended:
        os.kill(pid, command["number"])
    return {"pid": pid, "exit_code": exit_codes.get(pid)}


def start(name: str, command: dict[str, Any]) -> dict[str, Any]:
    """Start a program with its log in a file."""
    log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    files = [(os.POSIX_SPAWN_DUP2, nothing, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
    argv = command["argv"]
    try:
        pids[name] = os.posix_spawn(argv[0], argv, command["env"], file_actions=files, setsid=True)
    except OSError as error:
        return {"error": f"cannot run {argv[0]}: {error.strerror}"}
    finally:
        os.close(log)
        os.close(nothing)
    return {"pid": pids[name], "exit_code": None}


def reap(*_: object) -> None:
    """Note the end of every child, adopted ones too."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        exit_codes[pid] = os.waitstatus_to_exitcode(status)


def mounts(state: Path) -> None:
    """What the servers write stays in the box, whatever their options say."""
    run("mount", "--make-rshared", "/")
    run("mount", "-t", "proc", "proc", "/proc")
    run("mount", "-t", "sysfs", "sysfs", "/sys")
    cgroups = Path("/sys/fs/cgroup")
    run("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", cgroups)
    for controller in (*CONTROLLERS, "systemd"):
        (cgroups / controller).mkdir()
        options = "none,name=systemd" if controller == "systemd" else controller
        run("mount", "-t", "cgroup", "-o", options, "cgroup", cgroups / controller)
    for folder in ("/run", "/var/lib", "/var/log", state):
        run("mount", "-t", "tmpfs", "tmpfs", folder)
    for name, value in SYSCTLS.items():
        shown = Path("/run") / f"sysctl-{name.replace('/', '-')}"
        shown.write_text(f"{value}\n")
        run("mount", "--bind", shown, f"/proc/sys/{name}")


def network(address: str) -> None:
    """One interface with the node's address; there is no way out."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "node0", "type", "veth", "peer", "name", "node0-peer")
    run("ip", "address", "add", f"{address}/24", "dev", "node0")
    run("ip", "link", "set", "node0", "up")
    run("ip", "link", "set", "node0-peer", "up")
    gateway = address.rpartition(".")[0] + ".254"
    run("ip", "route", "add", "default", "via", gateway, "dev", "node0")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def run(*argv: object) -> None:
    """Run a tool; its failure ends the box."""
    subprocess.run([str(part) for part in argv], check=True, stdout=subprocess.DEVNULL)


def say(content: dict[str, Any]) -> None:
    """One line out."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
