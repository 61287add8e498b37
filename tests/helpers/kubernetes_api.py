"""Kubernetes API for tests: Jobs and Services of one namespace, over a real socket. Pods are processes on this host.

It supports what the step Trainer needs. Bodies are validated by Kubernetes' schemas, and the conditions of a failed Job
are those of its controller. There is no DNS, so a process gets its addresses through TF_CONFIG, on ports of this host.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import kubernetes_validate
import yaml

from tests.helpers.kustomize import KUBERNETES
from trainer.worker import WRONG_INPUT

ROOT = Path(__file__).resolve().parents[2]
_PATH = r"/api(?:s/batch)?/v1/namespaces/kubeflow/(jobs|services)(?:/([a-z0-9-]+))?"


@dataclass
class Cluster:
    """State of the server. Tests read and set it."""

    jobs: dict[str, dict] = field(default_factory=dict)
    services: dict[str, dict] = field(default_factory=dict)
    pods: dict[str, list[subprocess.Popen]] = field(default_factory=dict)  # processes by the name of their Job
    created: list[str] = field(default_factory=list)  # kinds of all resources, in the order of their creation
    forbidden: bool = False
    failures: int = 0  # number of next requests that fail with status 503

    def create(self, resource: dict) -> None:
        for version in KUBERNETES:
            kubernetes_validate.validate(resource, version, strict=True)
        name = resource["metadata"]["name"]
        self.created.append(resource["kind"])
        if resource["kind"] == "Service":
            self.services[name] = resource
            return
        spec = resource["spec"]
        [container] = spec["template"]["spec"]["containers"]
        assert spec["template"]["spec"]["subdomain"] in self.services
        ports = _free_ports(spec["completions"])
        self.jobs[name] = resource
        self.pods[name] = [self._start(container, index, ports) for index in range(spec["completions"])]

    @staticmethod
    def _start(container: dict, index: int, ports: list[int]) -> subprocess.Popen:
        cluster = {"worker": [f"localhost:{port}" for port in ports]}
        variables = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "JOB_COMPLETION_INDEX": str(index),
            "TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}),
        }
        return subprocess.Popen(container["command"], cwd=container["workingDir"], env={**os.environ, **variables})

    def status(self, name: str) -> dict:
        codes = [process.poll() for process in self.pods[name]]
        failed = [index for index, code in enumerate(codes) if code]
        status: dict = {"ready": codes.count(None)}
        if failed:
            status["failedIndexes"] = ",".join(map(str, failed))
            rejected = [index for index in failed if codes[index] == WRONG_INPUT]
            reason, message = "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed"
            if rejected:
                reason = "PodFailurePolicy"
                message = (
                    f"Container worker for pod kubeflow/{name}-{rejected[0]}-x7k2p failing with exit code "
                    f"{WRONG_INPUT} matching FailJob rule at index 0"
                )
            status["conditions"] = [{"type": "Failed", "status": "True", "reason": reason, "message": message}]
        elif codes == [0] * len(codes):
            status["conditions"] = [{"type": "Complete", "status": "True"}]
        return status

    def delete(self, name: str) -> None:
        del self.jobs[name]
        for process in self.pods.pop(name):
            process.kill()
            process.wait()


@contextlib.contextmanager
def serve(cluster: Cluster, folder: Path) -> Iterator[dict[str, str]]:
    """Serve a cluster, and yield the environment variables of a step's pod. All processes end with the server.

    Args:
        cluster: the state of the server.
        folder: the folder for the client's configuration.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            def create(kind, name):
                cluster.create(self.body)
                return self.body

            self.answer(create)

        def do_GET(self):
            def get(kind, name):
                return {**cluster.jobs[name], "status": cluster.status(name)}

            self.answer(get)

        def do_DELETE(self):
            def delete(kind, name):
                if kind == "jobs":
                    cluster.delete(name)
                else:
                    del cluster.services[name]

            self.answer(delete)

        def answer(self, action):
            length = int(self.headers.get("Content-Length") or 0)
            self.body = json.loads(self.rfile.read(length) or "null")
            kind, name = re.fullmatch(_PATH, self.path.partition("?")[0]).groups()
            if cluster.failures:
                cluster.failures -= 1
                return self.send(503, {"message": "out of order"})
            if cluster.forbidden:
                return self.send(403, {"message": f"{kind} is forbidden"})
            try:
                return self.send(200, action(kind, name) or {})
            except KeyError:
                return self.send(404, {"message": f'{kind} "{name}" not found'})

        def send(self, status, body):
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        names = {"cluster": "test", "user": "test"}
        configuration = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": address}}],
            "users": [{"name": "test", "user": {}}],
            "contexts": [{"name": "test", "context": names}],
            "current-context": "test",
        }
        (folder / "kubeconfig").write_text(yaml.safe_dump(configuration))
        try:
            yield {
                "KUBECONFIG": str(folder / "kubeconfig"),
                "VITPIPE_POD": "trainer-pod",
                "VITPIPE_POD_UID": "00000000-0000-0000-0000-000000000001",
                "VITPIPE_NAMESPACE": "kubeflow",
            }
        finally:
            server.shutdown()
            for name in [*cluster.jobs]:
                cluster.delete(name)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in sockets:
            probe.bind(("localhost", 0))
        return [probe.getsockname()[1] for probe in sockets]
