"""Stores of ML Metadata with the content that real runs write, without running them."""

import functools
import json
import sqlite3
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.model.evaluator.judgement import Judgement
from pipeline.metadata.address import Address
from pipeline.metadata.reader import Reader, reader
from pipeline.metadata.records import Artifact
from pipeline.result.run_result import RunResult
from pipeline.result.summary import summarise

DAY_MS = 86_400_000
_FIRST_MS = 1_760_000_000_000
_STATES = {"complete": mlmd.Execution.COMPLETE, "cached": mlmd.Execution.CACHED, "failed": mlmd.Execution.FAILED}


class _Store:
    def __init__(self, address: Address, pipeline: str):
        self.store, self.pipeline, self.types = MetadataStore(address.connection_config()), pipeline, {}
        self.root = address.file.parent / "root" if address.file else Path("/runs", pipeline, "root")

    def _type(self, kind: type, name: str) -> int:
        put = {
            mlmd.ArtifactType: self.store.put_artifact_type,
            mlmd.ExecutionType: self.store.put_execution_type,
            mlmd.ContextType: self.store.put_context_type,
        }[kind]
        if (kind, name) not in self.types:
            self.types[kind, name] = put(kind(name=name))
        return self.types[kind, name]

    def context(self, kind: str, name: str, facts: dict[str, str] | None = None) -> mlmd.Context:
        context = mlmd.Context(type_id=self._type(mlmd.ContextType, kind), name=name)
        _fill(context.custom_properties, facts or {})
        return context

    def artifact(self, kind: str, made_by: str, **properties: int | float | str) -> mlmd.Artifact:
        uri = str(self.root / made_by / kind.lower())
        artifact = mlmd.Artifact(
            type_id=self._type(mlmd.ArtifactType, kind), uri=uri, state=mlmd.Artifact.LIVE, type=kind
        )
        _fill(artifact.custom_properties, properties)
        return artifact

    def node(self, run: str, name: str, state: str, inputs: dict, outputs: dict) -> dict:
        """Record an execution. Returns its outputs by name, with their ids."""
        execution = mlmd.Execution(
            type_id=self._type(mlmd.ExecutionType, f"components.{name}"), last_known_state=_STATES[state]
        )
        pairs = []
        for kind, named in ((mlmd.Event.INPUT, inputs), (mlmd.Event.OUTPUT, outputs)):
            for key, artifact in named.items():
                event = mlmd.Event(type=kind)
                event.path.steps.add().key = key
                event.path.steps.add().index = 0
                pairs.append((artifact, event))
        contexts = [
            self.context("pipeline", self.pipeline),
            self.context("pipeline_run", run),
            self.context("node", f"{self.pipeline}.{name}"),
        ]
        _, ids, _ = self.store.put_execution(execution, pairs, contexts, reuse_context_if_already_exist=True)
        for id, (artifact, _) in zip(ids, pairs, strict=True):
            artifact.id = id
        return outputs


def make_store(file: Path, pipeline: str = "sample", runs: int = 30, process: str | None = None) -> list[str]:
    """Write a store with one run a day. Of the runs, every 7th fails and every 5th is cached; every 3rd is not blessed.

    Args:
        file: the file of the store.
        pipeline: the name of the pipeline.
        runs: the number of runs.
        process: the process that executes the last run, which then has not ended; None if it has.

    Returns:
        The names of the runs.
    """
    content, root, names = _built(pipeline, runs, process)
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    with sqlite3.connect(file) as database:
        database.execute("UPDATE Artifact SET uri = replace(uri, ?, ?)", (root, str(file.parent / "root")))
    database.close()
    return list(names)


@functools.cache
def _built(pipeline: str, runs: int, process: str | None) -> tuple[bytes, str, list[str]]:
    """Build a store once, because ML Metadata waits for the disk after each of its hundreds of writes."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "metadata.db")
        names = _build(file, pipeline, runs, process)
        return file.read_bytes(), str(file.parent / "root"), names


def _build(file: Path, pipeline: str, runs: int, process: str | None) -> list[str]:
    made, names, last = _Store(Address(file=file), pipeline), [], {}
    for number in range(runs):
        name = f"{pipeline}-run-{number:03}"
        names.append(name)
        failed, cached = number % 7 == 6, bool(last) and number % 5 == 4
        facts = {
            "trigger": "manual",
            "code_version": "0123456789ab",
            "exit": "1" if failed else "0",
            "settings": json.dumps({"name": pipeline, "data": {"span": number + 1}}),
        }
        accuracy = round(0.9 - 0.3 / (number + 1), 4)
        blessed = number % 3 != 1
        if not failed and not blessed and not cached:
            facts["exit"] = "4"
        if process and number == runs - 1:
            facts = {**facts, "process": process}
            del facts["exit"]
        made.store.put_contexts([made.context("pipeline_run", name, facts)])
        state = "cached" if cached else "complete"

        def taken(key, kind, maker, **properties):
            return last[key] if cached else made.artifact(kind, f"{maker}/{number}", **properties)  # noqa: B023

        examples = taken("examples", "Examples", "ImportExampleGen", span=number + 1, split_names='["train", "val"]')
        made.node(name, "ImportExampleGen", state, {}, {"examples": examples})
        verdict = taken(
            "verdict",
            "DataVerdict",
            "DataGate",
            passed=1,
            span=number + 1,
            data_folder="data",
            findings=json.dumps(_findings(number)),
        )
        made.node(name, "DataGate", state, {"examples": examples}, {"verdict": verdict})
        if failed:
            made.node(name, "Trainer", "failed", {"examples": examples}, {})
            continue
        model = taken("model", "Model", "Trainer")
        made.node(name, "Trainer", state, {"examples": examples}, {"model": model})
        judgement = {"candidate": {"accuracy": accuracy}, "checks": [_check(accuracy, blessed)]}
        blessing = taken(
            "blessing", "ModelBlessing", "Evaluator", blessed=int(blessed), judgement=json.dumps(judgement)
        )
        inputs = {"examples": examples, "model": model}
        if "served" in last and not cached:
            inputs["baseline_model"] = last["served"]
        made.node(name, "Evaluator", state, inputs, {"blessing": blessing})
        if blessed and not cached:
            pushed = made.artifact("PushedModel", f"Pusher/{number}", pushed=1, pushed_version=str(number))
            made.node(name, "Pusher", state, {"model": model, "model_blessing": blessing}, {"pushed_model": pushed})
            last["served"] = model
        last |= {"examples": examples, "verdict": verdict, "model": model, "blessing": blessing}
    _spread(file)
    return names


def put_push(address: Address, pipeline: str, version: str) -> None:
    """Add a run that pushes a version of a model trained on span 1 to a store."""
    made = _Store(address, pipeline)
    name = f"{pipeline}-run-{version}"
    made.store.put_contexts([made.context("pipeline_run", name, {})])
    examples = made.artifact("Examples", f"ImportExampleGen/{name}", span=1, split_names='["train", "val"]')
    made.node(name, "ImportExampleGen", "complete", {}, {"examples": examples})
    model = made.artifact("Model", f"Trainer/{name}")
    made.node(name, "Trainer", "complete", {"examples": examples}, {"model": model})
    pushed = made.artifact("PushedModel", f"Pusher/{name}", pushed=1, pushed_version=version)
    made.node(name, "Pusher", "complete", {"model": model}, {"pushed_model": pushed})


def put_run(file: Path, pipeline: str, name: str, facts: Mapping[str, str]) -> None:
    """Add a run with a single node to a store."""
    made = _Store(Address(file=file), pipeline)
    made.store.put_contexts([made.context("pipeline_run", name, dict(facts))])
    made.node(name, "ImportExampleGen", "complete", {}, {})


def put_unblessed_run(file: Path, pipeline: str, name: str, judgement: Judgement, servable: bool = True) -> Path:
    """Add a run whose model was trained and missed a bound. Returns the folder of its model, which is not written."""
    made = _Store(Address(file=file), pipeline)
    settings = {
        "name": pipeline,
        "keep_versions": 2,
        "data": {"dir": "data/sample", "span": 1, "gate_span": 1},
        "model": {"image_size": 32},
    }
    facts = {"code_version": "0123456789ab", "exit": "4", "settings": json.dumps(settings)}
    made.store.put_contexts([made.context("pipeline_run", name, facts)])
    examples = made.artifact("Examples", f"ImportExampleGen/{name}", span=1, span_digest="d1")
    made.node(name, "ImportExampleGen", "complete", {}, {"examples": examples})
    model = made.artifact("Model", f"Trainer/{name}")
    made.node(name, "Trainer", "complete", {"examples": examples}, {"model": model})
    blessing = made.artifact(
        "ModelBlessing", f"Evaluator/{name}", blessed=int(judgement.blessed), judgement=judgement.model_dump_json()
    )
    made.node(name, "Evaluator", "complete", {"examples": examples, "model": model}, {"blessing": blessing})
    check = {"name": "answers", "value": float(servable), "bound": 1.0}
    served = made.artifact(
        "InfraBlessing",
        f"ServingCheck/{name}",
        blessed=int(servable),
        checks=json.dumps([check]),
        signatures='["serving_bytes"]',
    )
    made.node(name, "ServingCheck", "complete", {"model": model}, {"blessing": served})
    return Path(model.uri)


def questions(address: Address) -> dict:
    """Return the reader's answers for a store with one run, without ids, names and times, which differ by run."""
    with reader(address) as store:
        [run] = store.runs()
        artifacts = store.artifacts()
        assert store.run(run.name) == run and store.run_names() == [run.name]
        assert {store.artifact(one.id) == one for one in artifacts} == {True}
        return {
            "artifacts": sorted((one.type, one.state, sorted(one.properties)) for one in artifacts),
            "types": store.artifact_types(),
            **answers(store, run.name),
        }


def answers(store: Reader, name: str) -> dict:
    """Return the reader's answers for one run of a store, without ids, names and times."""
    run = store.run(name)
    up = store.lineage(run.output("Pusher", "pushed_model").id)
    down = store.lineage(run.output("ImportExampleGen", "examples").id, "down")
    return {
        "run": (run.pipeline, sorted(run.facts), summarise(RunResult(run)).state, summarise(RunResult(run)).pushed),
        "settings": json.loads(run.facts["settings"]),
        "executions": sorted(
            (one.node, one.type, one.state, _shapes(one.inputs), _shapes(one.outputs), sorted(one.properties))
            for one in run.executions
        ),
        "lineage": [
            (
                sorted(one.type for one in found.artifacts.values()),
                sorted(one.node for one in found.executions.values()),
                sorted((found.executions[edge.execution].node, edge.name, edge.into) for edge in found.edges),
                set(found.runs.values()) == {run.name},
            )
            for found in (up, down)
        ],
    }


def _shapes(channels: Mapping[str, Sequence[Artifact]]) -> list:
    return sorted(
        (name, [(one.type, one.state, sorted(one.properties)) for one in artifacts])
        for name, artifacts in channels.items()
    )


def _fill(properties, values: dict) -> None:
    for name, value in values.items():
        field = {int: "int_value", float: "double_value", str: "string_value"}[type(value)]
        setattr(properties[name], field, value)


def _check(accuracy: float, blessed: bool) -> dict:
    return {"name": "accuracy", "value": accuracy, "bound": accuracy - 0.1 if blessed else 1.0, "sense": "at least"}


def _findings(number: int) -> list[dict]:
    return [
        {"check": check, "value": value, "bound": {"warn": 0.05, "stop": 0.2}, "sense": "at most", "text": "changed"}
        for check, value in (("drift_brightness", number / 200), ("drift_colour", (number % 4) / 50))
    ]


def _spread(file: Path) -> None:
    """Set the times of runs a day apart, and give nodes durations: ML Metadata records the time of the write."""
    with sqlite3.connect(file) as database:
        database.execute(
            "UPDATE Context SET create_time_since_epoch = ? + id * ? WHERE type_id = "
            "(SELECT id FROM Type WHERE name = 'pipeline_run')",
            (_FIRST_MS, DAY_MS),
        )
        database.execute(
            "UPDATE Execution SET create_time_since_epoch = (SELECT c.create_time_since_epoch + e.id * 10 "
            "FROM Association a JOIN Context c ON c.id = a.context_id JOIN Type t ON t.id = c.type_id "
            "JOIN Execution e ON e.id = a.execution_id "
            "WHERE a.execution_id = Execution.id AND t.name = 'pipeline_run')"
        )
        database.execute(
            "UPDATE Execution SET last_update_time_since_epoch = create_time_since_epoch + "
            "CASE last_known_state WHEN 5 THEN 3 ELSE 7000 + id * 37 END"
        )
    database.close()
