"""Functions that the steps of a run on a cluster share: arguments, the graph of the run, and the last lines of logs."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from components.errors import Exit, StoreError
from pipeline.console.terminal import escape_output
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.metadata.records import Run
from trainer.disk import atomic_write

if TYPE_CHECKING:
    from tfx.proto.orchestration import pipeline_pb2

# States of a run or task that has ended, in Kubeflow Pipelines' REST API.
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
GRAPH = "graph.json"  # file beside the logs of a run, with the graph that its steps run
_PREFIX = "vitpipe: "  # distinguishes the lines of a step from those of libraries and of the launcher
_EXIT = re.compile(rf"{_PREFIX}exit (\d+): (.*)")


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all steps have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--root", type=Path, required=True, help="folder that relative paths start from")
    parser.add_argument("--run-id", required=True, help="id of the run")
    return parser


def run_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser of the arguments that all steps after the first one have."""
    run_parser = parser(description)
    run_parser.add_argument("--folder", type=Path, required=True, help="run folder of the pipeline: runs/<name>")
    run_parser.add_argument("--store", required=True, help="address of ML Metadata, without a password")
    return run_parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the arguments of this process, and change to the folder that `--root` names."""
    escape_output()
    # Argo's executor, which starts every step, sets the mask 0, with which all users could write the pushed models.
    os.umask(0o022)
    arguments = parser.parse_args()
    os.chdir(arguments.root)
    return arguments


def read_graph(logs: Path) -> "pipeline_pb2.Pipeline | None":
    """Return the graph of a run, with the run's id in it. None if the run has not started."""
    from google.protobuf import json_format

    # The graph contains messages of the first two modules, which can be parsed only if the modules are imported.
    from tfx.proto.orchestration import executable_spec_pb2, local_deployment_config_pb2, pipeline_pb2  # noqa: F401

    try:
        text = (logs / GRAPH).read_text("utf-8")
    except FileNotFoundError:
        return None
    return json_format.Parse(text, pipeline_pb2.Pipeline())


def write_graph(ir: "pipeline_pb2.Pipeline", logs: Path) -> None:
    """Write the graph of a run, completely or not at all.

    Args:
        ir: the compiled graph.
        logs: the folder of the run's logs.
    """
    from google.protobuf import json_format

    with atomic_write(logs / GRAPH) as file:
        file.write(json_format.MessageToJson(ir, sort_keys=True).encode())


def read_run(address: Address, run_id: str) -> Run | None:
    """Read a run from ML Metadata. If the store cannot be read, end the step.

    Args:
        address: the address of the store.
        run_id: the id of the run.

    Returns:
        The run, or None if it is not recorded.
    """
    try:
        with reader(address) as store:
            return store.run(run_id)
    except StoreError as error:
        end(Exit.CRASHED, str(error))


def end(code: int, *lines: str) -> NoReturn:
    """Print the exit code and the result of the step, and end the process. `parse_end` reads them from the pod's log.

    The exit code is printed because the launcher of Kubeflow Pipelines turns every code except 0 into 1.

    Args:
        code: the exit code.
        *lines: the result of the step. The last line says in short how the step ended.
    """
    for line in "\n".join(lines[:-1]).splitlines():
        print(f"{_PREFIX}{line}")
    print(f"{_PREFIX}exit {int(code)}: {' '.join(lines[-1].splitlines())}", flush=True)
    sys.exit(int(code))


def parse_end(log: str) -> tuple[int, list[str]] | None:
    """Return the exit code and the lines that `end` printed to a log. None if the step did not call it."""
    lines = [line for line in log.splitlines() if line.startswith(_PREFIX)]
    for last in reversed(range(len(lines))):
        if found := _EXIT.fullmatch(lines[last]):
            return int(found[1]), [*(line.removeprefix(_PREFIX) for line in lines[:last]), found[2]]
    return None


def killed(node: str, memory: str) -> str:
    """Explain how a step ended that neither called `end` nor recorded an error.

    Args:
        node: the node, or the name of the step if it is not a node.
        memory: the memory limit of the step, as in its settings.
    """
    return (
        f"it was killed. If its pod says OOMKilled, its memory limit of {memory} is too low: set "
        f"kubeflow.steps.{node}.memory higher. Otherwise its machine was lost or its pod was deleted"
    )
