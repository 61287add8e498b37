"""Whole runs of compiled packages without a cluster. Each step is a container of the real CPU image.

ML Metadata is on a MariaDB server in a container of its own.
"""

import dataclasses
import json
import shutil

import pytest

from kubeflow.compile import package
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.result.run_result import RunResult
from pipeline.settings import load
from tests.helpers import containers
from tests.helpers.command import SHORT
from tests.helpers.mariadb import PASSWORD
from tests.helpers.walk import steps, walk

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.mysql, pytest.mark.timeout(3600)]

SETTINGS = SHORT | {"kubeflow.image": containers.IMAGE, "kubeflow.step.memory": "3Gi", "kubeflow.retries": 1}
# What a step sees of its container, as JSON.
LOOK = """
import json, os
from pathlib import Path

def first(*names):
    return int(next(Path(name) for name in names if Path(name).exists()).read_text())

def writable(folder):
    try:
        Path(folder, "probe").write_text("")
    except OSError:
        return False
    return True

status = dict(line.split(":\\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\\t" in line)
memory = "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory.max"
print(json.dumps({
    "user": [os.getuid(), os.getgid()],
    "capabilities": [status["CapEff"], status["CapBnd"]],
    "no new privileges": status["NoNewPrivs"],
    "seccomp": status["Seccomp"],
    "memory": first(*memory),
    "writable": [name for name in ("/", "/opt/vitpipe", "/vitpipe", "/tmp", "/dev/shm", "/data") if writable(name)],
    "shared memory": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize,
    "variables": {name: value for name, value in os.environ.items() if name in ("VITPIPE_METADATA__PASSWORD", "KEY")},
    "folder": os.getcwd(),
}))
"""


# Modules of the libraries without bytecode, which a step would compile at each start. A file may be for another Python.
WITHOUT_BYTECODE = """
import importlib.util, site
from pathlib import Path

for file in Path(site.getsitepackages()[0]).rglob("*.py"):
    if not Path(importlib.util.cache_from_source(file)).exists():
        try:
            compile(file.read_bytes(), file, "exec")
        except (SyntaxError, ValueError):
            continue
        print(file)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Host for steps in containers, with a database."""
    if reason := containers.missing():
        pytest.skip(reason)
    containers.build()
    with containers.database(tmp_path_factory.mktemp("database")) as host:
        yield host


def compiled(name, **settings):
    values = SETTINGS | {"name": name} | {key.replace("__", "."): value for key, value in settings.items()}
    return package(load("sample", [f"{key}={value}" for key, value in values.items()], environment={}))


def run_of(host, done):
    address = Address.parse(f"mysql://vitpipe@{host.hosts['vitpipe-metadata']}/vitpipe", PASSWORD)
    with reader(address) as store:
        return RunResult(store.run(done.attempts[0].run_id))


@pytest.fixture(scope="module")
def walked(host, sample_data, tmp_path_factory):
    """Host and walk of a pipeline."""
    claim = shutil.copytree(sample_data, tmp_path_factory.mktemp("claim"), dirs_exist_ok=True)
    own = containers.with_claim(host, claim)
    done = walk(compiled("sample"), tmp_path_factory.mktemp("outputs"), own)
    for one in done.attempts:
        print(f"{one.name:<32} exit {one.code:>3} {one.seconds:6.1f} s {one.reason}")
    return own, done


@pytest.fixture
def start(host, tmp_path):
    """Function that starts a program in the container of a package's step, and the folder of its claim."""
    folders = {name: tmp_path / name for name in ("claim", "more", "outputs")}
    for folder in folders.values():
        folder.mkdir()
        shutil.chown(folder, containers.USER)
    own = dataclasses.replace(
        host,
        claims={"vitpipe": folders["claim"], "more": folders["more"]},
        secrets={**host.secrets, "other": {"key": "one two"}},
    )

    def start(program, **settings):
        step = steps(compiled("sample", **settings))["Trainer"]
        changed = dataclasses.replace(step, container={**step.container, "command": ["python", "-c"]})
        return own.start(changed, ["python", "-c", program], folders["outputs"])

    return own, start, folders["claim"]


def test_a_step_gets_what_its_specification_says(start):
    own, start_program, claim = start
    process = start_program(
        LOOK,
        kubeflow__step__shared_memory="100Mi",
        kubeflow__step__volumes=json.dumps({"/data": "more"}),
        kubeflow__step__secrets=json.dumps({"KEY": "other/key"}),
    )
    output, _ = process.communicate()
    assert own.end(process) == ""
    assert process.returncode == 0, output
    assert json.loads(output) == {
        "user": [10001, 10001],
        "capabilities": ["0" * 16, "0" * 16],
        "no new privileges": "1",
        "seccomp": "2",  # a filter
        "memory": 3 << 30,
        "writable": ["/vitpipe", "/tmp", "/dev/shm", "/data"],
        "shared memory": 100 << 20,
        "variables": {"VITPIPE_METADATA__PASSWORD": PASSWORD, "KEY": "one two"},
        "folder": "/vitpipe",
    }
    assert {path.name: path.stat().st_uid for path in claim.iterdir()} == {"probe": 10001}


def test_a_step_that_exceeds_its_memory_is_killed(start):
    own, start_program, _ = start
    process = start_program("bytearray(200 << 20)", kubeflow__step__memory="100Mi")
    process.communicate()
    assert (process.returncode, own.end(process)) == (137, "OOMKilled")


def test_a_step_whose_container_is_removed_has_failed(start):
    own, start_program, _ = start
    process = start_program("print('here', flush=True); import time; time.sleep(600)")
    assert process.stdout.readline() == "here\n"
    process.remove()
    process.communicate()
    assert process.returncode and own.end(process) == "Deleted"


def test_every_module_of_the_libraries_has_bytecode(host):
    program = ["--entrypoint=python", containers.IMAGE, "-W", "ignore", "-c", WITHOUT_BYTECODE]
    container = containers.Container(f"{host.network}-bytecode", ["--network=none", *program])
    output, _ = container.communicate()
    container.remove()
    assert (container.returncode, output) == (0, "")


def test_a_run_in_containers_pushes_its_model(walked):
    host, done = walked
    failed = [one for one in done.attempts if one.code]
    assert not failed, failed[-1].output
    assert done.last("kubeflow.steps.verdict").output.rstrip().endswith("vitpipe: exit 0: done")
    model = host.claims["vitpipe"] / "runs" / "sample" / "serving" / "1" / "model.json"
    assert model.stat().st_uid == containers.USER
    assert run_of(host, done).pushed == "1"


def test_no_password_is_in_logs_and_run_folders(walked):
    host, done = walked
    files = [path for path in host.claims["vitpipe"].rglob("*") if path.is_file()]
    texts = [one.output for one in done.attempts] + [path.read_text(errors="replace") for path in files]
    assert files and not any(PASSWORD in text or PASSWORD.split()[0] in text for text in texts)
