"""A run in a line: what became of it. Works for runs of any TFX pipeline; what only ours record is None in others."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pipeline.exits import Exit
from pipeline.metadata.views import Artifact, Execution, Run

# Facts of a run: who runs it, as JSON; its exit code, once it has ended; the version that a person's blessing pushed;
# the run that found it dead; what to warn about since it started.
PROCESS, EXIT, PUSHED, TAKEN_OVER, WARNING = "process", "exit", "pushed", "taken_over_by", "warning"


class State(StrEnum):
    RUNNING = "running"
    DIED = "died"  # its process is gone, and it has not said how it ended
    FAILED = "failed"
    REFUSED = "data refused"
    NOT_BLESSED = "not blessed"
    NOT_SERVABLE = "not servable"
    DONE = "done"


BY_EXIT = {
    Exit.OK: State.DONE, Exit.CRASHED: State.FAILED, Exit.DATA_REFUSED: State.REFUSED,
    Exit.NOT_BLESSED: State.NOT_BLESSED, Exit.NOT_SERVABLE: State.NOT_SERVABLE,
}  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """See the module. `accuracy` is that on the gate's test set; `pushed` the version, where the run pushed one."""

    run: str
    pipeline: str
    state: State
    started: datetime
    seconds: float
    trigger: str | None
    span: int | None
    code_version: str | None
    accuracy: float | None
    blessed: bool | None
    pushed: str | None

    def as_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {**self.__dict__, "started": self.started.isoformat(timespec="milliseconds")}


def summarise(run: Run) -> Summary:
    """What became of a run."""
    blessing, pushed = last_output(run, "ModelBlessing"), last_output(run, "PushedModel")
    settings = settings_of(run)
    accuracy = judgement_of(run).get("candidate", {}).get("accuracy")
    return Summary(
        run=run.name,
        pipeline=run.pipeline or settings.get("name", ""),
        state=state_of(run),
        started=run.started,
        seconds=(run.ended_ms - run.started_ms) / 1000,
        trigger=_text(run.facts.get("trigger")),
        span=settings.get("data", {}).get("span"),
        code_version=_text(run.facts.get("code_version")),
        accuracy=accuracy,
        blessed=None if blessing is None else blessing.properties.get("blessed") == 1,
        pushed=_pushed(pushed) or _text(run.facts.get(PUSHED)),
    )


def state_of(run: Run) -> State:
    """How a run ended, or whether it goes on."""
    if EXIT in run.facts:
        return BY_EXIT[Exit(int(str(run.facts[EXIT])))]
    if PROCESS in run.facts:
        return State.RUNNING if _lives(json.loads(str(run.facts[PROCESS]))) else State.DIED
    newest = {execution.node: execution for execution in run.executions}  # in order of their ids
    states = {execution.state for execution in newest.values()}
    if "failed" in states:
        return State.FAILED
    return State.RUNNING if states & {"new", "running"} else State.DONE


def process() -> str:
    """This process, so that others can tell later whether it still lives."""
    import psutil

    own = psutil.Process()
    return json.dumps({"host": socket.gethostname(), "pid": own.pid, "started": round(own.create_time())})


def state_of_node(execution: Execution, run: State) -> str:
    """`died` for a node that was running when its run died."""
    return State.DIED if run is State.DIED and execution.state in ("new", "running") else execution.state


def settings_of(run: Run) -> dict[str, Any]:
    """The resolved settings; empty where a run recorded none."""
    return json.loads(str(run.facts["settings"])) if "settings" in run.facts else {}


def judgement_of(run: Run) -> dict[str, Any]:
    """Everything that the gate weighed, as its Evaluator recorded it; empty where there was no weighing."""
    blessing = last_output(run, "ModelBlessing")
    return json.loads(str(blessing.properties["judgement"])) if blessing and "judgement" in blessing.properties else {}


def last_output(run: Run, type_name: str) -> Artifact | None:
    """The newest artifact of a type that a run put out, taken from the cache or not."""
    found = [
        artifact
        for execution in run.executions
        for artifacts in execution.outputs.values()
        for artifact in artifacts
        if artifact.type == type_name and not execution.type.endswith(".Resolver")
    ]
    return max(found, key=lambda artifact: artifact.id, default=None)


def _pushed(model: Artifact | None) -> str | None:
    if model is None or model.properties.get("pushed") != 1:
        return None
    version = model.properties.get("pushed_version")
    return None if version is None else str(version)


def _lives(process: dict[str, Any]) -> bool:
    if process.get("host") != socket.gethostname():
        return True  # as far as one can see from here; a run on a cluster is no process
    import psutil

    try:
        # Worked out from the time of the start of the machine, which a clock that is set moves a little.
        return abs(psutil.Process(process["pid"]).create_time() - process["started"]) <= 2
    except psutil.Error:
        return False


def _text(value: object) -> str | None:
    return None if value is None else str(value)
