"""Time to start a step as a container of the CPU image, against its start as a process of this machine.

    python benchmarks/containers.py         as root; needs podman, buildah, runc and debootstrap

Each command starts five times, one after the other. The container has what a compiled package says: user 10001, a limit
of memory, the claim, an empty /tmp and the password; and a root that cannot be written. The container of the database
is not counted. The image has Debian's Python, the process that of this environment.
"""

import dataclasses
import statistics
import sys
import tempfile
import time
from pathlib import Path

import record

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
COMMANDS = {
    "Python alone": ["python", "-c", "pass"],
    "the module of a node's step": ["python", "-m", "kubeflow.steps.node", "--help"],
    "TFX's launcher": ["python", "-c", "import pipeline.node"],
}
REPEATS = 5


def main() -> None:
    """Measure all commands, and print and record their medians."""
    from kubeflow.compile import package
    from pipeline.settings import load
    from tests.helpers import containers
    from tests.helpers.walk import Host, Processes, Step, steps

    if reason := containers.missing():
        sys.exit(reason)
    containers.build()
    step = steps(package(load("sample", [f"kubeflow.image={containers.IMAGE}"], environment={})))["Trainer"]

    def seconds(host: Host, command: list[str], folder: Path) -> float:
        program: Step = dataclasses.replace(step, container={**step.container, "command": command[:1]})
        started = time.perf_counter()
        process = host.start(program, command, folder)
        output, _ = process.communicate()
        taken = time.perf_counter() - started
        host.end(process)
        if process.returncode:
            sys.exit(output)
        return taken

    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        folders = [Path(scratch, name) for name in ("database", "claim", "outputs")]
        for folder in folders:
            folder.mkdir()
        with containers.database(folders[0]) as database:
            hosts: list[Host] = [Processes({}), containers.with_claim(database, folders[1])]
            for title, command in COMMANDS.items():
                process, container = (
                    statistics.median(seconds(host, command, folders[2]) for _ in range(REPEATS)) for host in hosts
                )
                rows.append([title, f"{process:.2f}", f"{container:.2f}", f"{container - process:+.2f}"])
                print(*rows[-1], sep="\t")
    columns = ["command", "process, s", "container, s", "difference, s"]
    record.write("containers", columns, rows, f"Medians of {REPEATS} starts, one after the other.")


if __name__ == "__main__":
    main()
