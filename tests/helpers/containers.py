"""Containers for tests: the steps of a package in the real CPU image, with MariaDB in a container beside them.

Podman runs them with runc. The images are built from their files in this checkout, on systems that debootstrap
installs, because tests cannot rely on an image registry. They are kept in build/containers, so that only the first
build takes minutes.
"""

import contextlib
import dataclasses
import json
import os
import resource
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from kubernetes.utils.quantity import parse_quantity

from tests.helpers.mariadb import PASSWORD
from tests.helpers.walk import ROOT, Step

FOLDER = ROOT / "build" / "containers"
IMAGE, DATABASE = "localhost/vitpipe:test", "localhost/mariadb:10.11"
USER = 10001
_STORE = ["--root", str(FOLDER / "images"), "--runroot", str(FOLDER / "running")]
# Podman's networks are kept beside the images, not in the configuration of the machine.
_PODMAN = ["podman", *_STORE, "--network-config-dir", str(FOLDER / "networks")]
# Programs that the tests call, and their packages. The kernel's log (dmesg) tells which container exceeded its memory.
_TOOLS = {
    "podman": "podman",
    "buildah": "buildah",
    "runc": "runc",
    "debootstrap": "debootstrap",
    "dmesg": "util-linux",
}
_IMAGES = ROOT / "kubeflow" / "images"
_DATABASE_USER = 999


def missing() -> str:
    """Return why no container can run here; empty if it can."""
    if tools := [name for name in _TOOLS if not shutil.which(name)]:
        return f"no {', '.join(tools)}: apt-get install --no-install-recommends {' '.join(_TOOLS.values())}"
    if os.getuid():
        return "containers with memory limits need root"
    log = subprocess.run(["dmesg"], capture_output=True, text=True)
    return f"the kernel's log cannot be read: {log.stderr.strip()}" if log.returncode else ""


def build() -> None:
    """Build the images from this checkout."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    subprocess.run([_IMAGES / "build.sh", FOLDER, IMAGE], check=True)
    subprocess.run([_IMAGES / "debian.sh", FOLDER, "bookworm"], check=True)
    folder = Path(__file__).with_name("mariadb_image")
    options = ["--pull-never", "--isolation=chroot", "--layers", "--build-arg=BASE=localhost/debian:bookworm"]
    line = ["buildah", *_STORE, "build", *options, f"--file={folder / 'Containerfile'}", f"--tag={DATABASE}", folder]
    subprocess.run(line, check=True, capture_output=True)


def podman(*arguments: object) -> str:
    """Run podman, and return its output."""
    done = subprocess.run([*_PODMAN, *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"podman {arguments[0]}: {done.stderr.strip()}")
    return done.stdout.strip()


class Container(subprocess.Popen):
    """Container whose output is that of this process. Signals go to the container, as those of a kubelet do."""

    def __init__(self, name: str, arguments: list[str], scratch: Path | None = None) -> None:
        self.name, self.scratch = name, scratch
        # Limits of this machine: podman's defaults are higher, and may not be allowed.
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        line = [*_PODMAN, "--runtime=runc", "run", f"--name={name}", "--log-driver=none"]
        line += [f"--ulimit=nofile={files}:{files}", "--ulimit=nproc=8192:8192", *arguments]
        super().__init__(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def send_signal(self, number: int) -> None:
        podman("kill", f"--signal={signal.Signals(number).name}", self.name)

    def remove(self) -> None:
        """Remove the container, even if it is running, as if its pod was deleted."""
        podman("rm", "--force", "--ignore", "--time=0", self.name)


@dataclass(frozen=True)
class Containers:
    """Runs each step as a container that has what both documents of the package say, and nothing else.

    In addition, it has the restrictions that a strict cluster applies: a root that cannot be written, no capabilities,
    and no new privileges.

    Attributes:
        network: podman's network.
        hosts: addresses by the names that a cluster's DNS would resolve.
        claims: folders by the names of volume claims.
        secrets: values by the names of Secrets and the keys in them.
    """

    network: str
    hosts: Mapping[str, str]
    claims: Mapping[str, Path]
    secrets: Mapping[str, Mapping[str, str]]

    def start(self, step: Step, command: list[str], folder: Path) -> Container:
        name = f"{self.network}-{time.monotonic_ns()}"
        scratch = Path(tempfile.mkdtemp(prefix="pod-"))
        own_command, options = [*step.container["command"]], []
        assert command[: len(own_command)] == own_command
        # Kubeflow's launcher provides the folder of the outputs.
        for path in folder, *folder.rglob("*"):
            shutil.chown(path, USER, USER)
        options += [f"--volume={folder}:{folder}", f"--network={self.network}"]
        options += [f"--add-host={host}:{address}" for host, address in self.hosts.items()]
        options += ["--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"]
        options += _resources(step.container.get("resources", {}))
        options += [f"--env={one['name']}={one['value']}" for one in step.container.get("env", [])]
        options += self._platform(step, name, scratch)
        options += [f"--entrypoint={json.dumps(own_command)}", step.container["image"]]
        return Container(name, [*options, *command[len(own_command) :]], scratch)

    def end(self, process: subprocess.Popen) -> str:
        assert isinstance(process, Container)
        try:
            if not _exists(process.name):
                return "Deleted"
            [state] = json.loads(podman("container", "inspect", process.name))
        finally:
            process.remove()
            for secret in podman("secret", "ls", "--format={{.Name}}").splitlines():
                if secret.startswith(f"{process.name}-"):
                    podman("secret", "rm", secret)
            shutil.rmtree(process.scratch)
        # The kernel's log names the cgroup, whose name has the id of the container. Podman misses a kill that ends the
        # container at once, at least with cgroups of version 1.
        log = subprocess.run(["dmesg"], capture_output=True, text=True, check=True).stdout
        killed = any("oom-kill:" in line and state["Id"] in line for line in log.splitlines())
        return "OOMKilled" if killed or state["State"]["OOMKilled"] else ""

    def _platform(self, step: Step, name: str, scratch: Path) -> list[str]:
        """Return podman's options for a step's part of the second document, and create what they mount."""
        supported = {"emptyDirMounts", "imagePullPolicy", "podMetadata", "pvcMount", "secretAsEnv"}
        assert {*step.platform} <= supported, f"not supported: {sorted({*step.platform} - supported)}"
        options = []
        for mount in step.platform.get("emptyDirMounts", []):
            if mount.get("medium") == "Memory":
                size = int(parse_quantity(mount["sizeLimit"]))
                options.append(f"--mount=type=tmpfs,destination={mount['mountPath']},tmpfs-size={size}")
            else:
                empty = scratch / mount["volumeName"]
                empty.mkdir()
                empty.chmod(0o777)  # the mode that the kubelet gives it
                options.append(f"--volume={empty}:{mount['mountPath']}")
        for mount in step.platform.get("pvcMount", []):
            options.append(f"--volume={self.claims[mount['constant']]}:{mount['mountPath']}")
        for number, source in enumerate(step.platform.get("secretAsEnv", [])):
            for one in source["keyToEnv"]:
                # A secret of podman, because other users can read the arguments of a process.
                secret = f"{name}-{number}-{one['secretKey']}"
                value = self.secrets[source["secretName"]][one["secretKey"]]
                line = [*_PODMAN, "secret", "create", secret, "-"]
                subprocess.run(line, input=value, text=True, check=True, capture_output=True)
                options.append(f"--secret={secret},type=env,target={one['envVar']}")
        for label, value in step.platform.get("podMetadata", {}).get("labels", {}).items():
            options.append(f"--label={label}={value}")
        pull = {"Always": "always", "IfNotPresent": "missing", "Never": "never"}
        options.append(f"--pull={pull[step.platform['imagePullPolicy']]}")
        return options


def _exists(container: str) -> bool:
    done = subprocess.run([*_PODMAN, "container", "exists", container], capture_output=True, text=True)
    if done.returncode not in (0, 1):  # 1: there is no such container
        raise RuntimeError(f"podman container exists: {done.stderr.strip()}")
    return done.returncode == 0


def _resources(resources: Mapping[str, str]) -> list[str]:
    """Return podman's options for the resources of a container, as a kubelet translates them."""
    options = []
    if cpu := resources.get("resourceCpuRequest"):
        options.append(f"--cpu-shares={int(parse_quantity(cpu) * 1024)}")
    if memory := resources.get("resourceMemoryLimit"):
        size = int(parse_quantity(memory))
        options += [f"--memory={size}", f"--memory-swap={size}"]
    return options


@contextlib.contextmanager
def database(folder: Path) -> Iterator[Containers]:
    """Run MariaDB in a container, with the settings of kubeflow/manifests/base/metadata.yaml.

    Yields a host for steps that has the server and the Secret `vitpipe-metadata`, but no claim.

    Args:
        folder: an empty folder for its data.
    """
    network = f"vitpipe-test-{os.getpid()}"
    name = f"{network}-metadata"
    secret = {"password": PASSWORD, "root-password": f"root {PASSWORD}"}
    for path in folder / "data", folder / "run", folder / "tmp", folder / "secret":
        path.mkdir()
    for key, value in secret.items():
        (folder / "secret" / key).write_text(value)
    for path in folder.rglob("*"):
        shutil.chown(path, _DATABASE_USER, _DATABASE_USER)
    podman("network", "create", network)
    try:
        server = Container(
            name,
            [
                f"--network={network}",
                *("--read-only", "--read-only-tmpfs=false", "--cap-drop=all", "--security-opt=no-new-privileges"),
                *_resources({"resourceMemoryLimit": "1Gi"}),
                f"--volume={folder / 'data'}:/var/lib/mysql",
                f"--volume={folder / 'run'}:/run/mysqld",
                f"--volume={folder / 'tmp'}:/tmp",
                f"--volume={folder / 'secret'}:/secret:ro",
                "--env=MARIADB_DATABASE=vitpipe",
                "--env=MARIADB_USER=vitpipe",
                "--env=MARIADB_PASSWORD_FILE=/secret/password",
                "--env=MARIADB_ROOT_PASSWORD_FILE=/secret/root-password",
                DATABASE,
                "--character-set-server=utf8mb4",
                "--ignore-db-dirs=lost+found",
            ],
            folder,
        )
        try:
            address = _wait_until_ready(server)
            yield Containers(network, {"vitpipe-metadata": address}, {}, {"vitpipe-metadata": secret})
        finally:
            server.remove()
            server.communicate()
    finally:
        podman("network", "rm", "--force", network)


def with_claim(host: Containers, folder: Path) -> Containers:
    """Return a host whose claim `vitpipe` is a folder, which is given to the user of the image."""
    for path in folder, *folder.rglob("*"):
        shutil.chown(path, USER, USER)
    return dataclasses.replace(host, claims={"vitpipe": folder})


def _wait_until_ready(server: Container) -> str:
    """Wait until the server accepts connections. Returns its address."""
    for _ in range(600):
        with contextlib.suppress(RuntimeError):
            podman("exec", server.name, "healthcheck.sh", "--connect", "--innodb_initialized")
            [state] = json.loads(podman("container", "inspect", server.name))
            [network] = state["NetworkSettings"]["Networks"].values()
            return network["IPAddress"]
        if server.poll() is not None:
            break
        time.sleep(0.2)
    server.remove()
    raise RuntimeError(f"MariaDB does not start: {server.communicate()[0]}")
