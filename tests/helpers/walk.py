"""Run a compiled package without a cluster, with kfp's local runner. Each step is a process or a container.

The local runner reads the package, resolves its placeholders and keeps the order of its tasks. This module adds what it
does not support: retries, and the exit task after a failure. `Processes` runs only the command of a step. Containers
(tests/helpers/containers.py) also have what its platform specification says.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import yaml
from kfp import components, local
from kfp.local import status, subprocess_task_handler, task_handler_interface

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Step:
    """A step of a package.

    Attributes:
        name: the node, or the module if the step is not a node.
        retries: the number of its retries.
        container: its container, as in the first document of the package.
        platform: its Kubernetes configuration, as in the second document.
    """

    name: str
    retries: int
    container: Mapping[str, Any]
    platform: Mapping[str, Any]


@dataclass
class Attempt:
    """One start of a container, with its result."""

    module: str
    arguments: list[str]
    code: int
    output: str
    seconds: float
    reason: str = ""  # why the container ended, in Kubernetes' words, if its exit code does not say it

    @property
    def name(self) -> str:
        """The node, or the module if the step is not a node."""
        return _name(self.module, self.arguments)

    @property
    def run_id(self) -> str:
        return next(one for one in self.arguments if one.startswith("--run-id=")).removeprefix("--run-id=")


@dataclass
class Walk:
    """The attempts of a walk, in order."""

    attempts: list[Attempt] = field(default_factory=list)

    def codes(self, name: str) -> list[int]:
        return [one.code for one in self.attempts if one.name == name]

    def last(self, name: str) -> Attempt:
        return [one for one in self.attempts if one.name == name][-1]


class Host(Protocol):
    """Way of running the steps of a package."""

    def start(self, step: Step, command: list[str], folder: Path) -> subprocess.Popen:
        """Start an attempt.

        Args:
            step: the step.
            command: its command, without placeholders.
            folder: the folder for the outputs, which the step reaches by the same path.
        """

    def end(self, process: subprocess.Popen) -> str:
        """Clean up after an attempt. Returns the reason of its end, if the exit code does not say it."""


@dataclass(frozen=True)
class Processes:
    """Runs the command of each step as a process. Resources, volumes and placement have no effect.

    Attributes:
        environment: additional variables.
    """

    environment: dict[str, str]

    def start(self, step: Step, command: list[str], folder: Path) -> subprocess.Popen:
        python, *arguments = command
        assert python == "python"
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **self.environment}
        return subprocess.Popen(
            [sys.executable, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=variables
        )

    def end(self, process: subprocess.Popen) -> str:
        return ""


def walk(
    package: str,
    folder: Path,
    host: Host,
    watch: Callable[[subprocess.Popen, list[str], int], None] | None = None,
    **parameters: object,
) -> Walk:
    """Run a package to its end.

    Args:
        package: the compiled package.
        folder: the folder for the outputs.
        host: runs the steps.
        watch: called with each process, its arguments and the number of the attempt, from 0.
        **parameters: the parameters of the run.
    """
    done = Walk()
    # The local runner does not support this placeholder.
    text = package.replace("{{$.pipeline_job_schedule_time_utc}}", "2026-01-01T00:00:00Z")
    package_steps = steps(text)

    class OnHost(task_handler_interface.ITaskHandler):
        def __init__(self, image, full_command, pipeline_root, runner):
            self._command = full_command

        def run(self) -> status.Status:
            python, dash_m, module, *arguments = self._command
            assert (python, dash_m) == ("python", "-m")
            step = package_steps[_name(module, arguments)]
            for number in range(step.retries + 1):
                started = time.monotonic()
                process = host.start(step, self._command, folder)
                if watch:
                    watch(process, [module, *arguments], number)
                output, _ = process.communicate()
                seconds = time.monotonic() - started
                reason = host.end(process)
                done.attempts.append(Attempt(module, arguments, process.returncode, output, seconds, reason))
                if process.returncode == 0:
                    return status.Status.SUCCESS
            return status.Status.FAILURE

    def report() -> None:
        """Run the exit task, which the local runner leaves out after a failure."""
        spec_of_report = package_steps["kubeflow.steps.report"].container
        outputs = {"metrics": {"artifacts": [{"name": "metrics", "uri": str(folder / "metrics")}]}}
        values = {
            "{{$.inputs.parameters['run_id']}}": done.attempts[0].run_id,
            "{{$.outputs.artifacts['report'].path}}": str(folder / "report.html"),
            "{{$}}": json.dumps({"outputs": {"artifacts": outputs, "outputFile": str(folder / "output.json")}}),
        }
        arguments = spec_of_report["args"]
        for placeholder, value in values.items():
            arguments = [one.replace(placeholder, value) for one in arguments]
        OnHost("", [*spec_of_report["command"], *arguments], "", None).run()

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(folder), raise_on_error=False)
    with mock.patch.object(subprocess_task_handler, "SubprocessTaskHandler", OnHost):
        components.load_component_from_text(text)(**parameters)
    if not done.codes("kubeflow.steps.report"):
        report()
    return done


def steps(package: str) -> dict[str, Step]:
    """Return the steps of a package by name. The report is not retried, because the tests expect one attempt."""
    spec, platform = yaml.safe_load_all(package)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    graphs = [spec["root"], *spec["components"].values()]
    found = {}
    for task in (task for graph in graphs for task in graph.get("dag", {}).get("tasks", {}).values()):
        if label := spec["components"][task["componentRef"]["name"]].get("executorLabel"):
            container = spec["deploymentSpec"]["executors"][label]["container"]
            name = _name(container["command"][-1], container["args"])
            retries = task.get("retryPolicy", {}).get("maxRetryCount", 0)
            found[name] = Step(name, 0 if name == "kubeflow.steps.report" else retries, container, executors[label])
    return found


def _name(module: str, arguments: list[str]) -> str:
    return arguments[-1] if module == "kubeflow.steps.node" else module
