"""The node tier runs real containers, and leaves nothing of itself on the machine."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from testbed import wait
from testbed.kubernetes import images
from testbed.kubernetes.box import Box
from testbed.kubernetes.node_tier import NodeTier

pytestmark = [pytest.mark.node_tier]

_TESTS_FOLDER = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module", autouse=True)
def _base_image(request: pytest.FixtureRequest) -> None:
    """Python on the node; busybox cannot resolve names, not even addresses, without glibc beside it."""
    request.getfixturevalue("node_tier").load_image(images.base_archive())


@pytest.fixture
def namespace(node_tier: NodeTier) -> Iterator[str]:
    """A namespace of the test's own."""
    with node_tier.namespace() as name:
        yield name


def _container(script: str, image: str = images.BUSYBOX_IMAGE, **more: Any) -> dict[str, Any]:
    return {"name": "main", "image": image, "command": ["sh", "-ec", script], **more}


def _getter(*urls: str) -> dict[str, Any]:
    """Prints what the URLs say, each as soon as it answers: kube-proxy follows a moment later."""
    script = f"""
import ssl, time, urllib.request
trusted = ssl.create_default_context(cafile="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
for url in {urls!r}:
    while True:
        try:
            print(urllib.request.urlopen(url, timeout=2, context=trusted).read().decode(), end="")
        except OSError:
            time.sleep(0.2)
        else:
            break
"""
    return {"name": "main", "image": images.BASE_IMAGE, "command": ["python", "-c", script]}


def _job(name: str, container: dict[str, Any], *, completions: int = 1, **pod: Any) -> dict[str, Any]:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name},
        "spec": {
            "completions": completions,
            "parallelism": completions,
            "completionMode": "Indexed",
            "backoffLimit": 0,
            "template": {"spec": {"restartPolicy": "Never", "containers": [container], **pod}},
        },
    }


def _done(content: dict[str, Any]) -> bool:
    conditions = content["status"].get("conditions", [])
    return any(one["type"] in {"Complete", "Failed"} and one["status"] == "True" for one in conditions)


def _logs(node_tier: NodeTier, job: str, namespace: str) -> list[str]:
    pods = node_tier.client.objects("Pod", namespace=namespace, labels=f"job-name={job}")
    return sorted(node_tier.log(pod["metadata"]["name"], namespace=namespace) for pod in pods)


def _run(node_tier: NodeTier, job: dict[str, Any], namespace: str) -> list[str]:
    """The logs of a job's pods, after its success."""
    node_tier.client.create(job, namespace=namespace)
    name = job["metadata"]["name"]
    done = node_tier.client.until("Job", name, _done, namespace=namespace, deadline_secs=120)
    logs = _logs(node_tier, name, namespace)
    assert done["status"].get("succeeded") == job["spec"]["completions"], logs
    return logs


def test_a_deployment_becomes_ready_and_its_service_answers(node_tier: NodeTier, namespace: str) -> None:
    script = "mkdir /www; echo served > /www/index.html; exec httpd -f -p 8080 -h /www"
    probe = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    labels = {"app": "web"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    node_tier.client.create(service, namespace=namespace)
    node_tier.client.create(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "web"},
            "spec": {
                "replicas": 2,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [_container(script, readinessProbe=probe)]},
                },
            },
        },
        namespace=namespace,
    )
    node_tier.client.until(
        "Deployment", "web", lambda one: one["status"].get("readyReplicas") == 2, namespace=namespace, deadline_secs=120
    )
    address = node_tier.client.get("Service", "web", namespace=namespace)["spec"]["clusterIP"]
    job = _job("client", _getter(f"http://{address}/"))
    assert _run(node_tier, job, namespace) == ["served\n"]


def test_an_indexed_job_on_a_claim(node_tier: NodeTier, namespace: str, tmp_path: Path) -> None:
    node_tier.claim("agents", namespace=namespace, folder=tmp_path / "agents")
    (tmp_path / "agents" / "given").write_text("from the machine\n")
    mounts = [{"name": "claim", "mountPath": "/claim"}]
    container = _container('cat /claim/given; touch "/claim/$JOB_COMPLETION_INDEX"', volumeMounts=mounts)
    volumes = [{"name": "claim", "persistentVolumeClaim": {"claimName": "agents"}}]
    logs = _run(node_tier, _job("shards", container, completions=4, volumes=volumes), namespace)
    assert logs == ["from the machine\n"] * 4
    assert sorted(path.name for path in (tmp_path / "agents").iterdir()) == ["0", "1", "2", "3", "given"]


def test_a_pod_reaches_the_machine_and_the_api(node_tier: NodeTier, namespace: str) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from the machine\n")

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        address = node_tier.expose(server.server_address[1])
        job = _job("caller", _getter(f"http://{address}/", "https://10.96.0.1/livez"))
        logs = _run(node_tier, job, namespace)
        server.shutdown()
        thread.join()
    assert logs == ["from the machine\nok"]


def test_an_image_from_a_dockerfile(node_tier: NodeTier, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "greet.py").write_text("import os, sys\nprint('greetings', os.getuid(), *sys.argv[1:])\n")
    (tmp_path / "Dockerfile").write_text(
        "ARG BASE=docker.io/library/python:3.13-slim\nFROM ${BASE}\nCOPY greet.py /app/\n"
        'RUN python -m compileall -q /app\nUSER 65532:65532\nENTRYPOINT ["python", "/app/greet.py"]\n'
    )
    archive = images.build(
        tmp_path,
        tmp_path / "Dockerfile",
        "localhost/greeter:1",
        into=tmp_path / "greeter.tar",
        bases={"docker.io/library/python:3.13-slim": images.base_archive()},
    )
    node_tier.load_image(archive)
    container = {
        "name": "main",
        "image": "localhost/greeter:1",
        "args": ["all"],
        "securityContext": {"runAsNonRoot": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
    }
    assert _run(node_tier, _job("greeter", container), namespace) == ["greetings 65532 all\n"]


def test_helm_installs_a_chart_that_runs(node_tier: NodeTier, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "templates").mkdir()
    (tmp_path / "Chart.yaml").write_text("apiVersion: v2\nname: small\nversion: 0.1.0\n")
    (tmp_path / "templates" / "deployment.yaml").write_text(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: {{ .Release.Name }}}\nspec:\n"
        "  selector: {matchLabels: {app: small}}\n  template:\n    metadata: {labels: {app: small}}\n"
        f"    spec: {{containers: [{{name: main, image: {images.BUSYBOX_IMAGE}, command: [sleep, '600']}}]}}\n"
    )
    node_tier.helm("install", "small", tmp_path, "--namespace", namespace, "--wait", "--timeout", "100s")
    deployment = node_tier.client.get("Deployment", "small", namespace=namespace)
    assert deployment["status"]["readyReplicas"] == 1
    node_tier.helm("uninstall", "small", "--namespace", namespace)


def test_the_end_of_the_tests_ends_the_box(tmp_path: Path) -> None:
    script = textwrap.dedent(f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(_TESTS_FOLDER)!r})
        from testbed.kubernetes.box import Box
        box = Box(Path({str(tmp_path)!r}))
        box.start()
        box.process("sleeper", ["/bin/sleep", "600"]).start()
        print(box.pid, flush=True)
        sys.stdin.readline()
    """)
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        namespace = Path(f"/proc/{int(owner.stdout.readline())}/ns/pid").readlink()
        assert _processes_in(namespace) >= 2
        owner.kill()
    wait.until(lambda: not _processes_in(namespace), what="the end of the box")
    left = f"memferry-box-{owner.pid}-1"
    assert list(Path("/sys/fs/cgroup").glob(f"**/{left}"))
    with Box(tmp_path / "next"):  # sweeps what a crash leaves
        assert not list(Path("/sys/fs/cgroup").glob(f"**/{left}"))


def _processes_in(namespace: Path) -> int:
    count = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            count += (process / "ns" / "pid").readlink() == namespace
        except OSError:
            continue  # it has ended
    return count
