"""A Beam job server with an embedded engine, and two pools of workers, as on an engine with two machines."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.helpers.command import ROOT

JARS = Path(os.environ.get("ENGINE_JARS") or ROOT / ".cache")  # with a folder for each engine


class _Kind(NamedTuple):
    driver: str  # main class of the job server
    master: str  # option that embeds an engine with two tasks
    opened: tuple[str, ...]  # packages of java.base that the engine reads
    settings: dict[str, int]


_KINDS = {
    "flink": _Kind(
        "org.apache.beam.runners.flink.FlinkJobServerDriver",
        "--flink-master=[local]",
        ("java.lang", "java.nio", "sun.nio.ch", "java.util", "java.net", "java.time"),
        {"beam.parallelism": 2},
    ),
    "spark": _Kind(
        "org.apache.beam.runners.spark.SparkJobServerDriver",
        "--spark-master-url=local[2]",
        (
            *("java.io", "java.lang", "java.lang.invoke", "java.lang.reflect", "java.net", "java.nio", "java.util"),
            *("java.util.concurrent", "java.util.concurrent.atomic", "sun.nio.ch", "sun.nio.cs"),
            # Without these, a task that fails ends its thread, and the job waits for ever.
            *("sun.security.action", "sun.util.calendar"),
        ),
        {},
    ),
}
KINDS = tuple(_KINDS)


def missing(kind: str) -> str:
    """Return why an engine of a kind cannot be started here; empty if it can."""
    if not shutil.which("java"):
        return "no java on the PATH: install Java 17"
    if not any((JARS / kind).glob(f"beam-runners-{kind}-*.jar")):
        return f"no job server of {kind} in {JARS / kind}: run `tests/helpers/fetch_engine.sh {kind}`"
    return ""


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


class Engine:
    """A job server and two pools. The pools share a port, so that the kernel distributes the workers.

    Args:
        kind: one of KINDS.
        folder: an empty folder for logs and staged files.
        memory: largest heap of the JVM.
    """

    def __init__(self, kind: str, folder: Path, memory: str = "1g") -> None:
        self.folder, self.pools = folder, []
        driver, master, opened, settings = _KINDS[kind]
        self._pool_port, job, artifact = free_port(), free_port(), free_port()
        self.settings = {
            "beam.runner": kind,
            "beam.job_service": f"127.0.0.1:{job}",
            "beam.artifact_service": f"127.0.0.1:{artifact}",
            "beam.worker_pool": f"127.0.0.1:{self._pool_port}",
            "beam.workers": 2,
            **settings,
        }
        java = ["java", f"-Xmx{memory}", *(f"--add-opens=java.base/{name}=ALL-UNNAMED" for name in opened)]
        server = ["-cp", f"{JARS / kind}/*", driver, master]
        ports = ["--job-host=127.0.0.1", f"--job-port={job}", f"--artifact-port={artifact}", "--expansion-port=0"]
        self.server = self._start("server", *java, *server, *ports, f"--artifacts-dir={folder / 'artifacts'}")
        pool = [sys.executable, "-m", "pipeline.worker_pool", f"--port={self._pool_port}"]
        self.pools = [self._start(f"pool-{number}", *pool) for number in (1, 2)]
        while not (all("waits for an engine" in self.log(name) for name in ("pool-1", "pool-2")) and _answers(job)):
            if any(process.poll() is not None for process in (*self.pools, self.server)):
                self.stop()
                raise RuntimeError("".join(self.log(name) for name in ("pool-1", "pool-2", "server")))
            time.sleep(0.1)

    def log(self, name: str) -> str:
        """Return the output of `server`, `pool-1` or `pool-2`."""
        return (self.folder / f"{name}.log").read_text()

    def workers(self) -> list[psutil.Process]:
        """Return the workers of both pools."""
        return [worker for pool in self.pools for worker in psutil.Process(pool.pid).children()]

    def kill_worker(self, name: str, command: subprocess.Popen[str]) -> int:
        """Kill a worker that has a file open. Returns its process id.

        Args:
            name: regular expression for the path of the file.
            command: the command that uses the engine. The worker must open the file before it ends.
        """
        while command.poll() is None:
            for worker in self.workers():
                try:
                    if any(re.search(name, file.path) for file in worker.open_files()):
                        worker.kill()
                        return worker.pid
                except psutil.Error:  # the worker has ended
                    continue
            time.sleep(0.005)
        raise RuntimeError(f"no worker has opened a file like {name}: {command.communicate()}")

    def stop(self) -> None:
        for process in (*self.pools, self.server):
            process.terminate()
            process.wait()

    def _start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("wb") as log:
            environment = {**os.environ, "PYTHONPATH": str(ROOT)}
            return subprocess.Popen(command, stdout=log, stderr=log, env=environment)
