"""A run in a line: what became of it. Works for runs of any TFX pipeline; what only ours record is None in others."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, Field

from pipeline.exits import Exit
from pipeline.metadata.values import Kind, Unreadable, read, read_flag, unreadable
from pipeline.metadata.views import Artifact, Execution, Run, Value
from trainer.settings import current_names

# Facts of a run: who runs it, as JSON; its exit code, once it has ended; the version that a person's blessing pushed;
# the run that found it dead; a warning from its start.
PROCESS, EXIT, PUSHED, TAKEN_OVER, WARNING = "process", "exit", "pushed", "taken_over_by", "warning"


class State(StrEnum):
    RUNNING = "running"
    DIED = "died"  # its process is gone, and it has not said how it ended
    FAILED = "failed"
    REFUSED = "data refused"
    NOT_BLESSED = "not blessed"
    NOT_SERVABLE = "not servable"
    DONE = "done"
    UNREADABLE = "unreadable"  # its recorded end or process is not in the format of this version


BY_EXIT = {
    Exit.OK: State.DONE, Exit.CRASHED: State.FAILED, Exit.DATA_REFUSED: State.REFUSED,
    Exit.NOT_BLESSED: State.NOT_BLESSED, Exit.NOT_SERVABLE: State.NOT_SERVABLE,
}  # fmt: skip


@dataclass(frozen=True)
class Summary:
    """One run in a line. `accuracy` is that on the gate's test set; `pushed` the version, where the run pushed one.

    `unreadable` has a reason for each property that could not be read; the fields made from it are None or empty.
    """

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
    unreadable: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Ready for `json.dumps`."""
        return {**self.__dict__, "started": self.started.isoformat(timespec="milliseconds")}


class _Data(BaseModel):
    span: int | None = None


class _Settings(BaseModel):
    """Recorded settings of a run that a summary shows."""

    name: str = ""
    data: _Data = _Data()


class _Candidate(BaseModel):
    accuracy: float | None = None


class _Judgement(BaseModel):
    """Part of the gate's judgement that a summary shows."""

    candidate: _Candidate = _Candidate()


class _Process(BaseModel):
    """Process of a run on this or another machine. A run on a cluster has none."""

    host: str
    pid: Annotated[int, Field(ge=0, lt=2**31)]
    started: float


def summarise(run: Run) -> Summary:
    """What became of a run."""
    blessing, pushed = last_output(run, "ModelBlessing"), last_output(run, "PushedModel")
    problems: list[str] = []

    def readable(value: Callable[[], Kind], otherwise: Kind) -> Kind:
        try:
            return value()
        except Unreadable as error:
            problems.append(str(error))
            return otherwise

    state = readable(lambda: _read_state(run), State.UNREADABLE)
    settings, judgement, blessed = _Settings(), _Judgement(), None
    if "settings" in run.facts:
        settings = readable(lambda: read(run.facts, "settings", _Settings), settings)
    if blessing:
        blessed = readable(lambda: read_flag(blessing.properties, "blessed"), None)
        if "judgement" in blessing.properties:
            judgement = readable(lambda: read(blessing.properties, "judgement", _Judgement), judgement)
    return Summary(
        run=run.name,
        pipeline=run.pipeline or settings.name,
        state=state,
        started=run.started,
        seconds=(run.ended_ms - run.started_ms) / 1000,
        trigger=_text(run.facts.get("trigger")),
        span=settings.data.span,
        code_version=_text(run.facts.get("code_version")),
        accuracy=judgement.candidate.accuracy,
        blessed=blessed,
        pushed=_pushed(pushed) or _text(run.facts.get(PUSHED)) or run.version,
        unreadable=tuple(problems),
    )


def state_of(run: Run) -> State:
    """How a run ended, or whether it goes on."""
    try:
        return _read_state(run)
    except Unreadable:
        return State.UNREADABLE


def _read_state(run: Run) -> State:
    """Return the state of a run. Raises Unreadable."""
    if EXIT in run.facts:
        codes = {str(int(code)): state for code, state in BY_EXIT.items()}
        if (text := str(run.facts[EXIT])) not in codes:
            raise unreadable(EXIT, run.facts[EXIT], f"an exit code of a run is one of {', '.join(codes)}")
        return codes[text]
    if PROCESS in run.facts:
        return State.RUNNING if _lives(run) else State.DIED
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
    """Return the resolved settings of a run; empty if it recorded none, or if they cannot be read."""
    return current_settings(_readable(run.facts, "settings"))


def current_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier version recorded as a run's settings, under the names of this version."""
    model = settings.get("model")
    return {**settings, "model": current_names(model)} if isinstance(model, dict) else settings


def judgement_of(run: Run) -> dict[str, Any]:
    """Return the judgement of the gate; empty if there is none, or if it cannot be read."""
    blessing = last_output(run, "ModelBlessing")
    return _readable(blessing.properties, "judgement") if blessing else {}


def on_cluster(run: Run) -> bool:
    """Return whether a run recorded that a cluster runs it."""
    return "kubeflow" in _readable(run.facts, PROCESS)


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


def _lives(run: Run) -> bool:
    """Return whether the process of a run is alive. Raises Unreadable."""
    if read(run.facts, PROCESS, dict[str, Any]).get("host") != socket.gethostname():
        return True  # as far as one can see from here; a run on a cluster is no process
    import psutil

    process = read(run.facts, PROCESS, _Process)
    try:
        # Worked out from the time of the start of the machine, which a clock that is set moves a little.
        return abs(psutil.Process(process.pid).create_time() - process.started) <= 2
    except psutil.Error:
        return False


def _readable(properties: Mapping[str, Value], name: str) -> dict[str, Any]:
    try:
        return read(properties, name, dict[str, Any]) if name in properties else {}
    except Unreadable:
        return {}


def _text(value: object) -> str | None:
    return None if value is None else str(value)
