"""What the steps of a run on a cluster share: where the graph of the run is, and how they end."""

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

# States of a run and of its tasks that are an end, in Kubeflow Pipelines' REST API.
ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}
GRAPH = "graph.json"  # beside the logs of a run: the graph as its steps run it
_SAYS = "vitpipe: "  # before what a step says of itself, for its log holds more: of libraries, and of the launcher
_EXIT = re.compile(rf"{_SAYS}exit (\d+): (.*)")


def parser(description: str) -> argparse.ArgumentParser:
    """With what every step is told."""
    made = argparse.ArgumentParser(description=description)
    made.add_argument("--root", type=Path, required=True, help="folder that relative paths start from")
    made.add_argument("--run-id", required=True)
    return made


def run_parser(description: str) -> argparse.ArgumentParser:
    """With what every step of a run that has started is told."""
    made = parser(description)
    made.add_argument("--folder", type=Path, required=True, help="of the pipeline: runs/<name>")
    made.add_argument("--store", required=True, help="address of ML Metadata, without a password")
    return made


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments of this process, which goes to its root."""
    escape_output()
    arguments = parser.parse_args()
    os.chdir(arguments.root)
    return arguments


def read_graph(logs: Path) -> "pipeline_pb2.Pipeline | None":
    """The graph of a run, bound to it; None where the run has not started."""
    from google.protobuf import json_format

    # The first two are packed in the graph: what is not imported is not known.
    from tfx.proto.orchestration import executable_spec_pb2, local_deployment_config_pb2, pipeline_pb2  # noqa: F401

    try:
        text = (logs / GRAPH).read_text("utf-8")
    except FileNotFoundError:
        return None
    return json_format.Parse(text, pipeline_pb2.Pipeline())


def write_graph(ir: "pipeline_pb2.Pipeline", logs: Path) -> None:
    """Whole or not at all."""
    from google.protobuf import json_format

    with atomic_write(logs / GRAPH) as file:
        file.write(json_format.MessageToJson(ir, sort_keys=True).encode())


def read_run(address: Address, run_id: str) -> Run | None:
    """The run as ML Metadata knows it. Ends the step where that is away."""
    try:
        with reader(address) as store:
            return store.run(run_id)
    except StoreError as error:
        end(Exit.CRASHED, str(error))


def end(code: int, *lines: str) -> NoReturn:
    """Say what became of the step and leave. `said` finds it in the log of the pod.

    The launcher of Kubeflow Pipelines makes 1 of every code that is not 0.
    """
    for line in "\n".join(lines[:-1]).splitlines():
        print(f"{_SAYS}{line}")
    print(f"{_SAYS}exit {int(code)}: {' '.join(lines[-1].splitlines())}", flush=True)
    sys.exit(int(code))


def said(log: str) -> tuple[int, list[str]] | None:
    """The code and the lines, the last one included, of the `end` in a log; None where the step did not come to it."""
    ours = [line for line in log.splitlines() if line.startswith(_SAYS)]
    for at in reversed(range(len(ours))):
        if found := _EXIT.fullmatch(ours[at]):
            return int(found[1]), [*(line.removeprefix(_SAYS) for line in ours[:at]), found[2]]
    return None
