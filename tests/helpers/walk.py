"""Run a compiled package without a cluster, with kfp's local runner. The command of each container is a local process.

The local runner reads the package, resolves its placeholders and keeps the order of its tasks. This module adds what it
does not support: retries, and the exit task after a failure. Placement has no effect.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

import yaml
from kfp import components, local
from kfp.local import status, subprocess_task_handler, task_handler_interface

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Attempt:
    """One start of a container, with its result."""

    module: str
    arguments: list[str]
    code: int
    output: str
    seconds: float

    @property
    def name(self) -> str:
        """The node, or the module if the step is not a node."""
        return self.arguments[-1] if self.module == "kubeflow.steps.node" else self.module

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


def walk(
    package: str,
    folder: Path,
    environment: dict[str, str],
    watch: Callable[[subprocess.Popen, list[str], int], None] | None = None,
    **parameters: object,
) -> Walk:
    """Run a package to its end.

    Args:
        package: the compiled package.
        folder: the folder for the outputs.
        environment: variables for the processes.
        watch: called with each process, its arguments and the number of the attempt, from 0.
        **parameters: the parameters of the run.
    """
    done = Walk()
    # The local runner does not support this placeholder.
    text = package.replace("{{$.pipeline_job_schedule_time_utc}}", "2026-01-01T00:00:00Z")
    spec = next(yaml.safe_load_all(text))
    limits = _retries(spec)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment}

    class OnHost(task_handler_interface.ITaskHandler):
        def __init__(self, image, full_command, pipeline_root, runner):
            self._command = full_command

        def run(self) -> status.Status:
            python, dash_m, module, *arguments = self._command
            assert (python, dash_m) == ("python", "-m")
            task = arguments[-1] if module == "kubeflow.steps.node" else module
            for number in range(limits[task] + 1):
                started = time.monotonic()
                process = subprocess.Popen(
                    [sys.executable, dash_m, module, *arguments],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                    env=environment,
                )
                if watch:
                    watch(process, [module, *arguments], number)
                output, _ = process.communicate()
                seconds = time.monotonic() - started
                done.attempts.append(Attempt(module, arguments, process.returncode, output, seconds))
                if process.returncode == 0:
                    return status.Status.SUCCESS
            return status.Status.FAILURE

    def report() -> None:
        """Run the exit task, which the local runner leaves out after a failure."""
        spec_of_report = spec["deploymentSpec"]["executors"]["exec-run-report"]["container"]
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


def _retries(spec: dict) -> dict[str, int]:
    """Return the number of retries of each task, by the node or module that it runs."""
    found = {}
    for component in spec["components"].values():
        for task in component.get("dag", {}).get("tasks", {}).values():
            label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
            container = spec["deploymentSpec"]["executors"][label]["container"]
            module = container["command"][-1]
            name = container["args"][-1] if module == "kubeflow.steps.node" else module
            found[name] = task.get("retryPolicy", {}).get("maxRetryCount", 0)
    return found | {"kubeflow.steps.report": 0}
