"""A worker that keeps the contract with the operator and moves nothing: quick, and it fails where a test wants it to.

`STANDIN` names a JSON file that is read at every step: `{"plan": {"exit": 43}, "transfer": {"secs": 2}}`. What is under
`hold` does not end until it is no longer there; journals can be told apart: `{"Journal Frozen b": {"hold": true}}`. A
key that begins with `NAME/` is for that migration alone.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import ssl
import sys
import time
from base64 import b64encode
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

E = os.environ
POLL_SECS = 0.1
PASS_SECS = 0.5
BEAT_SECS = 1.0
SHARDS = 3
RECORDS = 300


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Cluster:
    """The API server with the pod's own rights."""

    def __init__(self) -> None:
        folder = Path(E["MEMFERRY_SERVICE_ACCOUNT_FOLDER"])
        self.token = (folder / "token").read_text()
        context = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        host, port = E["KUBERNETES_SERVICE_HOST"], int(E["KUBERNETES_SERVICE_PORT"])
        self.connection = http.client.HTTPSConnection(host, port, context=context, timeout=10)

    def request(self, method: str, path: str, body: Any = None) -> Any:
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/merge-patch+json"}
        for _ in range(100):
            try:
                self.connection.request(method, path, json.dumps(body) if body is not None else None, headers)
                response = self.connection.getresponse()
                found = json.loads(response.read())
            except (OSError, http.client.HTTPException):
                self.connection.close()
                time.sleep(0.2)
                continue
            if response.status >= 400:
                sys.exit(f"{method} {path}: {found}")
            return found
        sys.exit("no API server")

    def lease(self, name: str, **notes: Any) -> None:
        path = f"/apis/coordination.k8s.io/v1/namespaces/{E['MEMFERRY_NAMESPACE']}/leases/{name}"
        annotations = {f"memferry.dev/{key}": json.dumps(value) for key, value in notes.items()}
        spec = {"holderIdentity": E["MEMFERRY_POD_NAME"], "renewTime": now(), "leaseDurationSeconds": 15}
        self.request("PATCH", path, {"metadata": {"annotations": annotations}, "spec": spec})

    def result(self, verb: str, found: Any) -> None:
        secret = E.get("MEMFERRY_RESULT") or f"{E['MEMFERRY_MIGRATION']}-result"
        path = f"/api/v1/namespaces/{E['MEMFERRY_NAMESPACE']}/secrets/{secret}"
        self.request("PATCH", path, {"data": {f"{verb}.json": b64encode(json.dumps(found).encode()).decode()}})

    def command(self) -> dict[str, Any] | None:
        path = f"/api/v1/namespaces/{E['MEMFERRY_NAMESPACE']}/configmaps/{E['MEMFERRY_MIGRATION']}-control"
        text = (self.request("GET", path).get("data") or {}).get("command")
        return json.loads(text) if text else None


def asked(verb: str, more: str = "") -> dict[str, Any]:
    path = Path(E.get("STANDIN", "/nowhere"))
    told: dict[str, dict[str, Any]] = json.loads(path.read_text()) if path.exists() else {}
    keys = [key for one in (verb, f"{verb} {more}") for key in (one, f"{E.get('MEMFERRY_MIGRATION', '')}/{one}")]
    return {name: value for key in keys for name, value in told.get(key, {}).items()}


def stop(number: int, frame: FrameType | None) -> None:
    sys.exit(130)


def main() -> None:
    signal.signal(signal.SIGTERM, stop)
    verb, folder = sys.argv[2], Path(sys.argv[sys.argv.index("--folder") + 1])
    if verb == "probe":
        probe(Cluster())
    manifest = (folder / "migration.yaml").read_text()
    assert "MemoryMigration" in manifest
    cluster, name, wanted = Cluster(), E["MEMFERRY_MIGRATION"], asked(verb)
    if verb == "switch":
        switch(cluster, name, manifest)
    lease = f"{name}-shard-{E['JOB_COMPLETION_INDEX']}" if verb == "transfer" else f"{name}-{verb}"
    end, moved = time.monotonic() + wanted.get("secs", 0.2), now()
    while True:
        left = max(0.0, end - time.monotonic())
        read = int(RECORDS / SHARDS * (1 - left / max(0.001, wanted.get("secs", 0.2))))
        moved = moved if wanted.get("silent") else now()
        numbers = {"read": read, "written": read, "quarantined": 0, "recordsPerSecond": 100.0, "progressedAt": moved}
        cluster.lease(lease, progress={"attempt": int(E["MEMFERRY_ATTEMPT"]), "phase": verb, **numbers})
        if not left and not wanted.get("silent") and not asked(verb).get("hold"):
            break
        time.sleep(min(0.5, left or 0.5))
    code = asked(verb).get("exit", 0)
    if verb != "transfer" and code in {0, 42, 43}:
        error = {"error": {"code": "gap", "message": "asked to fail", "hint": "do not ask"}}
        cluster.result(verb, error if code else wanted.get("result", RESULTS[verb]))
    sys.exit(code)


RESULTS: dict[str, dict[str, Any]] = {
    "plan": {"planHash": "h", "records": RECORDS, "shards": SHARDS, "changes": "log", "wayBack": True, "gaps": []},
    "verify": {"compared": RECORDS, "missing": 0, "extra": 0, "different": 0, "foreign": 0},
    "retire": {"deleted": RECORDS},
}


def probe(cluster: Cluster) -> None:
    """Says what it is asked to; knows of the journals that stand-ins of switches have written."""
    wanted = asked("probe")
    time.sleep(wanted.get("secs", 0))
    read = {}
    for name, since in json.loads(E["MEMFERRY_JOURNALS"]).items():
        journal = Path(E["STANDIN"]).with_name(f"{name}.journal")
        read[name] = {"since": since, "journal": json.loads(journal.read_text()) if journal.exists() else None}
    told = {"reachable": True, "identity": E["MEMFERRY_RESULT"], "records": RECORDS, **wanted.get("result", {})}
    cluster.result("probe", {"probe": E["MEMFERRY_PROBE"], "journals": read, **told})
    sys.exit(wanted.get("exit", 0))


def switch(cluster: Cluster, name: str, manifest: str) -> None:
    """Answers commands; the journal of a binding is a file."""
    binding = re.findall(r'"bindingRef": \{\s*"name": "([^"]+)"', manifest)[0]
    journal, answered, passes = Path(E["STANDIN"]).with_name(f"{binding}.journal"), -1, 0
    beat = passed = 0.0
    while True:
        command = cluster.command()
        notes: dict[str, Any] = {}
        wanted = asked(command["verb"], f"{command.get('mode')} {command.get('active')}") if command else {}
        again = command is not None and command["verb"] == "Pass" and time.monotonic() - passed >= PASS_SECS
        if command and (command["sequence"] > answered or again) and not wanted.get("hold"):
            passes, passed = passes + 1, time.monotonic()
            notes["answer"] = {
                **act(command, journal, passes, wanted),
                "sequence": command["sequence"],
                "verb": command["verb"],
            }
            answered = command["sequence"]
        if notes or time.monotonic() - beat >= BEAT_SECS:
            cluster.lease(f"{name}-switch", **notes)
            beat = time.monotonic()
        time.sleep(POLL_SECS)


def act(command: dict[str, Any], journal: Path, passes: int, wanted: dict[str, Any]) -> dict[str, Any]:
    if wanted.get("fail"):
        return {"outcome": "Failed", "error": {"code": wanted["fail"], "message": "asked to fail"}}
    if command["verb"] == "Journal":
        stands = json.loads(journal.read_text()) if journal.exists() else {"revision": 0}
        new = {key: command[key] for key in ("revision", "mode", "active")}
        if new != stands and new["revision"] <= stands["revision"]:
            return {"outcome": "Failed", "error": {"code": "journal", "message": "higher"}}
        journal.write_text(json.dumps(new))
    bodies: dict[str, dict[str, Any]] = {
        "Pass": {"pass": passes, "changed": 0, "passSecs": 0.1, "verifySecs": 0.1, "complete": True},
        "FinalPass": {"changed": 0, "verified": 0, "missing": 0, "different": 0},
        "Probe": {"source": {"reachable": True}, "target": {"reachable": True}},
    }
    return {"outcome": "Done", **bodies.get(command["verb"], {}), **wanted}


if __name__ == "__main__":
    main()
