"""RunResult, the outcome of a run, for commands, pages, the watcher and the steps on a cluster.

This is the only module that decodes the properties in which steps record their results. It reads runs of any TFX
pipeline: attributes that only our pipeline records are None for the others.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field, PositiveInt

from components.data.gate.bounds import PAGE, Finding
from components.data.span_properties import DROPPING_SPANS, EARLIER_SPANS, SPAN_DIGEST, data_digest
from components.errors import Exit
from components.model import tuning_record
from components.model.evaluator.judgement import OVERRIDE, Check, Judgement, Override
from pipeline.metadata.properties import UnreadableError, read, read_flag, read_text, unreadable
from pipeline.metadata.records import Artifact, Execution, Run
from pipeline.outcome import KILLED, REFUSED, REPORT, NodeState, Outcome
from pipeline.settings import REMOVED, DataSettings
from trainer.settings import current_names
from trainer.warm_start import WARM_START, WarmStart

# Names of facts of a run: the process that runs it, as JSON; its exit code, after its end; the version that a person's
# blessing pushed; the run that replaced it after it had died; a warning from its start.
PROCESS, EXIT, PUSHED, TAKEN_OVER, WARNING = "process", "exit", "pushed", "taken_over_by", "warning"
KIND, TUNING = "kind", "tuning"  # name of a fact that only a tuning has, and its value

Kind = TypeVar("Kind")


class RunState(StrEnum):
    """State of a run, in the words of the listings."""

    RUNNING = "running"
    DIED = "died"  # its process is gone, and no end is recorded
    FAILED = "failed"
    REFUSED = "data refused"
    NOT_BLESSED = "not blessed"
    NOT_SERVABLE = "not servable"
    DONE = "done"
    UNREADABLE = "unreadable"  # its recorded end or process is not in the format of this version


STATE_OF_EXIT = {
    Exit.OK: RunState.DONE,
    Exit.CRASHED: RunState.FAILED,
    Exit.DATA_REFUSED: RunState.REFUSED,
    Exit.NOT_BLESSED: RunState.NOT_BLESSED,
    Exit.NOT_SERVABLE: RunState.NOT_SERVABLE,
}


@dataclass(frozen=True)
class DataResult:
    """Verdict of the data gate."""

    findings: list[Finding]
    page: Path
    folder: Path  # folder of the artifact

    @property
    def passed(self) -> bool:
        """True if a model may be trained on the data."""
        return all(finding.level != "stop" for finding in self.findings)


@dataclass(frozen=True)
class ServingResult:
    """Verdict of the serving check."""

    checks: list[Check]

    @property
    def servable(self) -> bool:
        """True if the model can be served."""
        return all(check.passed for check in self.checks)


@dataclass(frozen=True)
class Push:
    """Outcome of the step that pushes.

    `state` is `unchanged` if the same model was already serving, and `withdrawn` if it had been rolled back before.
    """

    version: str
    destination: Path
    state: Literal["pushed", "unchanged", "withdrawn"]


@dataclass(frozen=True)
class TrainedOn:
    """Data of a run, as recorded by the step that copied it."""

    span: int
    digest: str  # digest of the shards of all these spans
    earlier: tuple[int, ...]  # other spans of the window, the newest first


@dataclass(frozen=True)
class BackboneOrigin:
    """Pretrained model that a fine-tuning started from."""

    source: str | None
    digest: str | None
    run: str | None  # id of the run that trained it; None if it was not trained by a run of vitpipe
    accepted: bool = False  # whether it was accepted without training


@dataclass(frozen=True)
class TuningResult:
    """Result of a tuning, which a training can use."""

    values: Mapping[str, Any]  # best values by the dotted names of their settings
    accuracy: float  # accuracy on val of the best trial
    trial: int  # number of the best trial
    trials: int  # number of trials
    seconds: float  # of all trials together
    run: str  # id of the tuning's run
    artifact: int  # id of the HyperParameters artifact


@dataclass(frozen=True)
class RunResult:
    """Outcome of one run.

    Each attribute is decoded on access, so that an unreadable record does not hide the others. An attribute that a step
    records as JSON raises UnreadableError if the JSON is not in the format of this version.

    Args:
        record: the run, as ML Metadata holds it.
        launched: outcomes of the nodes, if this process launched them. They include a node that failed before ML
            Metadata had an execution of it.
    """

    record: Run
    launched: Sequence[Outcome] | None = None

    @property
    def name(self) -> str:
        """Id of the run."""
        return self.record.name

    @property
    def pipeline(self) -> str:
        """Name of the pipeline; empty if neither ML Metadata nor the run's settings have it."""
        try:
            return self.record.pipeline or self._lenient_settings.name
        except UnreadableError:
            return ""

    @property
    def started(self) -> datetime:
        """Time at which the run was registered, in UTC."""
        return self.record.started

    @property
    def seconds(self) -> float:
        """Seconds from the run's registration to the last change of one of its steps."""
        return (self.record.ended_ms - self.record.started_ms) / 1000

    @property
    def state(self) -> RunState:
        """State of the run."""
        try:
            return self.read_state()
        except UnreadableError:
            return RunState.UNREADABLE

    def read_state(self) -> RunState:
        """Return the state of the run.

        Raises:
            UnreadableError: if the recorded end or process cannot be read. `state` is then `RunState.UNREADABLE`.
        """
        if (code := self._recorded_exit()) is not None:
            return STATE_OF_EXIT[code]
        if PROCESS in self.record.facts:
            return RunState.RUNNING if self._lives() else RunState.DIED
        newest = {execution.node: execution for execution in self.record.executions}  # in order of ids
        states = {execution.state for execution in newest.values()}
        if "failed" in states:
            return RunState.FAILED
        return RunState.RUNNING if states & {"new", "running"} else RunState.DONE

    @property
    def exit(self) -> Exit | None:
        """Exit code of the run; None if it has not recorded one, or if it cannot be read."""
        try:
            return self._recorded_exit()
        except UnreadableError:
            return None

    @property
    def settings(self) -> dict[str, Any]:
        """Resolved settings of the run; empty if it did not record them, or if they cannot be read."""
        return current_settings(self._fact_as_dict("settings"))

    @property
    def span(self) -> int | None:
        """Span that the run trains on; None if its settings do not name a span."""
        return self._lenient_settings.data.span

    @property
    def data_settings(self) -> DataSettings:
        """Settings of the data that the run read. Raises UnreadableError if the run did not record them."""
        return read(self.record.facts, "settings", _DataSettings).data

    @property
    def keep_versions(self) -> int:
        """Setting `keep_versions` of the run. Raises UnreadableError if the run did not record it."""
        return read(self.record.facts, "settings", _KeepVersions).keep_versions

    @property
    def settings_digest(self) -> str:
        """SHA-256 of the settings that the run recorded. Raises UnreadableError if it did not record them."""
        return hashlib.sha256(read_text(self.record.facts, "settings").encode()).hexdigest()

    @property
    def code_version(self) -> str:
        """Version of the code that ran. Raises UnreadableError if the run did not record it."""
        return read_text(self.record.facts, "code_version")

    @property
    def warning(self) -> str:
        """Problem at the start of the run that did not prevent it; empty if there was none."""
        return str(self.record.facts.get(WARNING, ""))

    @property
    def on_cluster(self) -> bool:
        """True if the run recorded that it runs on a cluster."""
        return "kubeflow" in self._fact_as_dict(PROCESS)

    @property
    def failures(self) -> list[Outcome]:
        """Outcomes of the failed nodes, except the report."""
        outcomes = self._recorded_failures() if self.launched is None else self.launched
        return [outcome for outcome in outcomes if outcome.node != REPORT and outcome.state is NodeState.FAILED]

    @property
    def data(self) -> DataResult | None:
        """Verdict of the data gate; None if the gate did not complete, or for a run of another TFX pipeline."""
        verdict = self._output("DataGate", "verdict", "DataVerdict")
        if verdict is None or self._is_foreign(verdict, "findings"):
            return None
        findings = read(verdict.properties, "findings", list[Finding])
        return DataResult(findings, Path(verdict.uri, PAGE), Path(verdict.uri))

    @property
    def label_suspects(self) -> Path | None:
        """Folder of the images whose label is probably wrong; None if no label check completed."""
        suspects = self.record.output("LabelCheck", "suspects")
        return Path(suspects.uri) if suspects else None

    @property
    def data_passed(self) -> bool | None:
        """True if the data passed the data gate; None without a verdict."""
        verdict = self._output("DataGate", "verdict", "DataVerdict")
        return read_flag(verdict.properties, "passed") if verdict else None

    @property
    def data_values(self) -> dict[str, float]:
        """Value of each check of the data gate, as recorded by any version; empty if the record cannot be read."""
        verdict = self._output("DataGate", "verdict", "DataVerdict")
        try:
            findings = read(verdict.properties, "findings", list[_Measured]) if verdict else []
        except UnreadableError:
            return {}
        return {finding.check: finding.value for finding in findings}

    @property
    def trained_on(self) -> TrainedOn | None:
        """Spans that were copied for the training, and their digest; None if no span was copied."""
        if (examples := self.record.output("ImportExampleGen", "examples")) is None:
            return None
        in_window = EARLIER_SPANS in examples.properties
        return TrainedOn(
            read(examples.properties, "span", int),
            data_digest(
                read_text(examples.properties, SPAN_DIGEST),
                read_text(examples.properties, EARLIER_SPANS) if in_window else "",
                read_text(examples.properties, DROPPING_SPANS) if DROPPING_SPANS in examples.properties else "",
            ),
            tuple(read(examples.properties, EARLIER_SPANS, dict[int, str])) if in_window else (),
        )

    @property
    def gate_data_digest(self) -> str:
        """Digest of the span whose test images the gate evaluated on; empty if it is not recorded."""
        examples = self.record.output("TestExampleGen", "examples")
        return str(examples.properties.get(SPAN_DIGEST, "")) if examples else ""

    @property
    def model(self) -> Artifact | None:
        """Artifact of the model, trained by this run or taken from the cache; None if no training has ended."""
        return self.record.output("Trainer", "model")

    @property
    def judgement(self) -> Judgement | None:
        """Judgement of the model gate; None if no model reached it, or for a run of another TFX pipeline."""
        blessing = self._blessing
        if blessing is None or self._is_foreign(blessing, "judgement"):
            return None
        return read(blessing.properties, "judgement", Judgement)

    @property
    def model_checks(self) -> list[Check]:
        """Checks of the model gate, as recorded by any version; empty if no model reached it."""
        blessing = self._blessing
        if blessing is None or "judgement" not in blessing.properties:
            return []
        return read(blessing.properties, "judgement", _Checks).checks

    @property
    def blessed(self) -> bool | None:
        """True if the gate or a person blessed the model; None without a verdict."""
        return read_flag(self._blessing.properties, "blessed") if self._blessing else None

    def recorded(self, part: Literal["data", "model", "override", "serving"]) -> Any:
        """Return the unchanged record of a gate, in the format of any version; None if it is missing.

        Args:
            part: the record to return; `override` is a person's blessing.

        Raises:
            UnreadableError: if the record is not JSON.
        """
        node, output, type_name, name = _RECORDED[part]
        artifact = self._output(node, output, type_name)
        if (
            artifact is None
            or self._is_foreign(artifact, name)
            or (part == "override" and name not in artifact.properties)
        ):
            return None
        return read(artifact.properties, name, Any)

    @property
    def figures(self) -> Mapping[str, Any]:
        """Figures that the model gate measured, as recorded by any version; empty if they cannot be read."""
        try:
            recorded = read(self._blessing.properties, "judgement", dict[str, Any]) if self._blessing else {}
        except UnreadableError:
            return {}
        candidate = recorded.get("candidate")
        return candidate if isinstance(candidate, Mapping) else {}

    @property
    def accuracy(self) -> float | None:
        """Accuracy on the gate's test set, as recorded by any version; None if no model was tested."""
        blessing = self._blessing
        if blessing is None or "judgement" not in blessing.properties:
            return None
        return read(blessing.properties, "judgement", _Judgement).candidate.accuracy

    @property
    def override(self) -> Override | None:
        """A person's blessing of this model in this run; None if nobody blessed it."""
        return self._override_of(self._blessing)

    @property
    def earlier_override(self) -> Override | None:
        """A person's blessing of the same model in an earlier run; None unless that model served during this run."""
        blessing = self._blessing
        if blessing is None:
            return None
        current, baseline = (blessing.properties.get(f"{role}_model_id") for role in ("current", "baseline"))
        same = baseline is not None and str(current) == str(baseline)
        return self._override_of(self._output("Trainer", "model", "Model")) if same else None

    @property
    def baseline(self) -> str:
        """Uri of the model that served while this one was judged; empty if none served."""
        return str(self._blessing.properties.get("baseline_model_uri") or "") if self._blessing else ""

    @property
    def backbone(self) -> BackboneOrigin | None:
        """Origin of the backbone of a fine-tuning; None for other trainings."""
        if (backbone := self.record.output("Backbone", "backbone")) is None:
            return None
        source, digest, run = (
            None if (value := backbone.properties.get(name)) is None else str(value)
            for name in ("source", "content_digest", "run_id")
        )
        return BackboneOrigin(source, digest, run, "accepted_classes" in backbone.properties)

    @property
    def warm_start(self) -> WarmStart | None:
        """Classes that the model kept, added and dropped in a warm start; None without a warm start."""
        model = self.record.output("Trainer", "model")
        if model is None or WARM_START not in model.properties:
            return None
        return read(model.properties, WARM_START, WarmStart)

    @property
    def is_tuning(self) -> bool:
        """True if the run searched for better settings, and trained no model to push."""
        return self.record.facts.get(KIND) == TUNING

    @property
    def tuning(self) -> TuningResult | None:
        """Result of the search; None if the run was no tuning, or its search has not ended."""
        found = self.record.output("Tuner", "best_hyperparameters")
        return _tuning(found) if found and tuning_record.VALUES in found.properties else None

    @property
    def trials(self) -> Path | None:
        """Folder with the table of a tuning's trials; None without a result."""
        results = self.record.output("Tuner", "tuner_results")
        return Path(results.uri) if results else None

    @property
    def tuned(self) -> TuningResult | None:
        """Result of the tuning that the model was trained with; None for other trainings."""
        trainer = self.record.node("Trainer")
        used = trainer.inputs.get("hyperparameters", ()) if trainer else ()
        return _tuning(used[0]) if used and tuning_record.VALUES in used[0].properties else None

    @property
    def trained(self) -> bool:
        """True if this run started a training; False if the model is from the cache, or the run ended before."""
        trainer = self.record.node("Trainer")
        return trainer is not None and trainer.state != "cached"

    @property
    def serving(self) -> ServingResult | None:
        """Verdict of the serving check; None if it did not complete, or for a run of another TFX pipeline."""
        blessing = self._infra_blessing
        if blessing is None or self._is_foreign(blessing, "checks"):
            return None
        return ServingResult(read(blessing.properties, "checks", list[Check]))

    @property
    def servable(self) -> bool | None:
        """True if the model passed the serving check; None without a verdict."""
        blessing = self._infra_blessing
        return read_flag(blessing.properties, "blessed") if blessing else None

    @property
    def signatures(self) -> list[str] | None:
        """Signatures that the serving check found in the model; None without a verdict."""
        blessing = self._infra_blessing
        return read(blessing.properties, "signatures", list[str]) if blessing else None

    @property
    def push(self) -> Push | None:
        """Outcome of the push; None if that step did not complete."""
        if (pushed := self.record.output("Pusher", "pushed_model")) is None:
            return None
        properties = pushed.properties
        state: Literal["pushed", "unchanged", "withdrawn"] = "unchanged"
        if read_flag(properties, "pushed"):
            state = "pushed"
        elif read_flag(properties, "withdrawn"):
            state = "withdrawn"
        return Push(read_text(properties, "pushed_version"), Path(read_text(properties, "pushed_destination")), state)

    @property
    def pushed(self) -> str | None:
        """Version that this run, or a person's blessing of its model, pushed; None if neither pushed one.

        It is known even if the run was killed before it recorded the push.
        """
        model = self._output("Pusher", "pushed_model", "PushedModel")
        if model is not None and model.properties.get("pushed") == 1:
            version = model.properties.get("pushed_version")
            if version is not None:
                return str(version)
        return as_text(self.record.facts.get(PUSHED)) or self.record.version

    @property
    def report(self) -> Path | None:
        """Page of the run's report; None if no report was written."""
        report = self.record.output(REPORT, "report")
        return Path(read_text(report.properties, "page")) if report else None

    def state_of_node(self, execution: Execution) -> str:
        """Return the state of an execution, which is `died` if it was running when its run died."""
        unfinished = execution.state in ("new", "running")
        return str(RunState.DIED) if unfinished and self.state is RunState.DIED else execution.state

    @property
    def _blessing(self) -> Artifact | None:
        return self._output("Evaluator", "blessing", "ModelBlessing")

    @property
    def _infra_blessing(self) -> Artifact | None:
        return self._output("ServingCheck", "blessing", "InfraBlessing")

    @property
    def _lenient_settings(self) -> _Settings:
        return read(self.record.facts, "settings", _Settings) if "settings" in self.record.facts else _Settings()

    def _output(self, node: str, name: str, type_name: str) -> Artifact | None:
        """Return an output of a node; in a run of another pipeline, the newest artifact of the type.

        Args:
            node: id of the node in our pipeline.
            name: name of the output channel.
            type_name: name of the artifact's type.
        """
        if self.record.node(node):
            return self.record.output(node, name)
        artifacts_of_type = [
            artifact
            for execution in self.record.executions
            for artifacts in execution.outputs.values()
            for artifact in artifacts
            if artifact.type == type_name and not execution.type.endswith(".Resolver")
        ]
        return max(artifacts_of_type, key=lambda artifact: artifact.id, default=None)

    def _is_foreign(self, artifact: Artifact, name: str) -> bool:
        """Return whether an artifact lacks a property because another TFX pipeline made it."""
        return name not in artifact.properties and self.record.node("DataGate") is None

    def _override_of(self, artifact: Artifact | None) -> Override | None:
        if artifact is None or OVERRIDE not in artifact.properties:
            return None
        return read(artifact.properties, OVERRIDE, Override)

    def _recorded_exit(self) -> Exit | None:
        """Return the recorded exit code. Raises UnreadableError."""
        if EXIT not in self.record.facts:
            return None
        codes = {str(int(code)): code for code in STATE_OF_EXIT}
        if (text := str(self.record.facts[EXIT])) not in codes:
            raise unreadable(EXIT, self.record.facts[EXIT], f"an exit code of a run is one of {', '.join(codes)}")
        return codes[text]

    def _recorded_failures(self) -> list[Outcome]:
        """Return the outcomes of failed nodes, reconstructed from ML Metadata."""
        return [
            Outcome(
                execution.node,
                NodeState.FAILED,
                execution.seconds,
                execution.id,
                str(execution.properties.get(REFUSED) or execution.properties.get(KILLED, "see its log")),
                data_refused=REFUSED in execution.properties,
            )
            for execution in self.record.executions
            if execution.state == "failed" and self.record.node(execution.node) == execution
        ]

    def _fact_as_dict(self, name: str) -> dict[str, Any]:
        try:
            return read(self.record.facts, name, dict[str, Any]) if name in self.record.facts else {}
        except UnreadableError:
            return {}

    def _lives(self) -> bool:
        """Return whether the process of the run is alive. Raises UnreadableError."""
        if read(self.record.facts, PROCESS, dict[str, Any]).get("host") != socket.gethostname():
            return True  # processes of other machines or of a cluster cannot be checked, so they count as alive
        import psutil

        process = read(self.record.facts, PROCESS, _Process)
        try:
            # The start times may differ slightly: they are computed from the boot time, which shifts when the clock is
            # set.
            return bool(abs(psutil.Process(process.pid).create_time() - process.started) <= 2)
        except psutil.Error:
            return False


def _tuning(artifact: Artifact) -> TuningResult:
    """Return the result that a HyperParameters artifact records. Raises UnreadableError."""
    properties = artifact.properties
    return TuningResult(
        values=read(properties, tuning_record.VALUES, dict[str, Any]),
        accuracy=read(properties, tuning_record.ACCURACY, float),
        trial=read(properties, tuning_record.TRIAL, int),
        trials=read(properties, tuning_record.TRIALS, int),
        seconds=read(properties, tuning_record.SECONDS, float),
        run=read_text(properties, tuning_record.RUN),
        artifact=artifact.id,
    )


def this_process() -> str:
    """Return a JSON record of this process, with which other processes can check later whether it is alive."""
    import psutil

    own = psutil.Process()
    return json.dumps({"host": socket.gethostname(), "pid": own.pid, "started": round(own.create_time())})


def current_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the recorded settings of a run, with the current names and without those that no longer exist."""
    groups = {**settings}
    if isinstance(model := settings.get("model"), dict):
        groups["model"] = current_names(model)
    for group, name in (key.split(".") for key in REMOVED):
        if isinstance(values := groups.get(group), dict):
            groups[group] = {key: value for key, value in values.items() if key != name}
    return groups


def as_text(value: object) -> str | None:
    """Return a fact of a run as text; None if the run does not have it."""
    return None if value is None else str(value)


# For each gate: the node, its output, the artifact's type and the property that holds the verdict.
_RECORDED = {
    "data": ("DataGate", "verdict", "DataVerdict", "findings"),
    "model": ("Evaluator", "blessing", "ModelBlessing", "judgement"),
    "override": ("Evaluator", "blessing", "ModelBlessing", OVERRIDE),
    "serving": ("ServingCheck", "blessing", "InfraBlessing", "checks"),
}


class _Data(BaseModel):
    span: int | None = None


class _Settings(BaseModel):
    """Recorded settings that can be read even if others are in the format of another version."""

    name: str = ""
    data: _Data = _Data()


class _DataSettings(BaseModel):
    """Recorded settings of the data that a run read."""

    data: DataSettings


class _KeepVersions(BaseModel):
    """Recorded setting that a push needs."""

    keep_versions: PositiveInt


class _Candidate(BaseModel):
    accuracy: float | None = None


class _Judgement(BaseModel):
    """Part of the gate's judgement that can be read even if the rest is in the format of another version."""

    candidate: _Candidate = _Candidate()


class _Checks(BaseModel):
    """Checks of the gate's judgement, which can be read even if the rest is in the format of another version."""

    checks: list[Check] = []


class _Measured(BaseModel):
    check: str
    value: float


class _Process(BaseModel):
    """Process of a run on this or another machine, but not on a cluster."""

    host: str
    pid: Annotated[int, Field(ge=0, lt=2**31)]
    started: float
