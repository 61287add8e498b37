"""Time of commands that query ML Metadata, by the number of runs in the store, for SQLite and MariaDB.

    python benchmarks/metadata.py [RUNS...]        # 200 and 2,000 by default; MariaDB only if `mariadbd` is installed

The times are those that a user waits, and include the start of Python. Each command is run nine times. 2,000 runs are
28,000 executions and 14,000 artifacts (96 MB of SQLite). Each run trains a model. One run in ten is on a new span; the
others take the steps before the training from the cache.

`docs/benchmarks.md` has the figures.
"""

import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
ROUNDS = 9
SPAN = 10  # runs on each span; all but the first of them take the steps before the training from the cache

RESOLVER = "tfx.dsl.components.common.resolver.Resolver"
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
# The graph of pipeline/graph.py: node, type, sources of the inputs by name, types of the outputs by name.
NODES: list[tuple[str, str, dict[str, str], dict[str, str]]] = [
    ("Baseline", RESOLVER, {}, {}),
    ("ImportExampleGen", "components.data.example_gen.SpanExampleGen", {}, {"examples": "Examples"}),
    (
        "ImportSchemaGen",
        "tfx.components.schema_gen.import_schema_gen.component.ImportSchemaGen",
        {},
        {"schema": "Schema"},
    ),
    ("PreviousSpan", RESOLVER, {}, {}),
    ("TestExampleGen", "components.data.example_gen.SpanExampleGen", {}, {"examples": "Examples"}),
    (
        "ImageStatistics",
        "components.data.statistics.component.ImageStatistics",
        {
            "schema": "ImportSchemaGen.schema",
            "test_examples": "TestExampleGen.examples",
            "examples": "ImportExampleGen.examples",
        },
        {"statistics": "ImageStatistics"},
    ),
    (
        "StatisticsGen",
        "tfx.components.statistics_gen.component.StatisticsGen",
        {"schema": "ImportSchemaGen.schema", "examples": "ImportExampleGen.examples"},
        {"statistics": "ExampleStatistics"},
    ),
    (
        "ExampleValidator",
        "tfx.components.example_validator.component.ExampleValidator",
        {"schema": "ImportSchemaGen.schema", "statistics": "StatisticsGen.statistics"},
        {"anomalies": "ExampleAnomalies"},
    ),
    (
        "DataGate",
        "components.data.gate.component.DataGate",
        {
            "statistics": "ImageStatistics.statistics",
            "test_examples": "TestExampleGen.examples",
            "examples": "ImportExampleGen.examples",
            "anomalies": "ExampleValidator.anomalies",
            "previous": "PreviousSpan.verdict",
        },
        {"verdict": "DataVerdict"},
    ),
    (
        "Transform",
        "tfx.components.transform.component.Transform",
        {
            "schema": "ImportSchemaGen.schema",
            "examples": "ImportExampleGen.examples",
            "_DataGate.verdict": "DataGate.verdict",
        },
        {"transform_graph": "TransformGraph"},
    ),
    (
        "Trainer",
        "components.model.trainer.Trainer",
        {
            "transform_graph": "Transform.transform_graph",
            "examples": "ImportExampleGen.examples",
            "image_statistics": "ImageStatistics.statistics",
            "schema": "ImportSchemaGen.schema",
            "_DataGate.verdict": "DataGate.verdict",
        },
        {"model": "Model", "model_run": "ModelRun"},
    ),
    (
        "Evaluator",
        "components.model.evaluator.component.Evaluator",
        {
            "model": "Trainer.model",
            "baseline_model": "Baseline.model",
            "examples": "TestExampleGen.examples",
            "statistics": "ImageStatistics.statistics",
            "schema": "ImportSchemaGen.schema",
            "_DataGate.verdict": "DataGate.verdict",
        },
        {"blessing": "ModelBlessing", "evaluation": "ModelEvaluation"},
    ),
    (
        "ServingCheck",
        "components.model.serving_check.component.ServingCheck",
        {
            "model": "Trainer.model",
            "examples": "TestExampleGen.examples",
            "schema": "ImportSchemaGen.schema",
            "_DataGate.verdict": "DataGate.verdict",
        },
        {"blessing": "InfraBlessing"},
    ),
    (
        "Pusher",
        "components.model.pusher.Pusher",
        {
            "model": "Trainer.model",
            "model_blessing": "Evaluator.blessing",
            "infra_blessing": "ServingCheck.blessing",
            "examples": "ImportExampleGen.examples",
            "_DataGate.verdict": "DataGate.verdict",
        },
        {"pushed_model": "PushedModel"},
    ),
]
CACHED = [name for name, *_ in NODES[1:10] if name != "PreviousSpan"]
ONCE = ["ImportSchemaGen", "TestExampleGen"]  # nodes whose result does not depend on the span


def generate(connection: mlmd.ConnectionConfig, runs: int) -> None:
    """Write the records that runs of the pipeline leave in a store, each with a new model that is pushed.

    Every tenth run trains on a new span; the others take the steps before the training from the cache. Each model is
    compared with the model that was pushed before it.

    Args:
        connection: Connection to the store.
        runs: Number of runs.
    """
    Writer(MetadataStore(connection)).write(runs)


class Writer:
    """Writer of the records of many runs."""

    def __init__(self, store: MetadataStore) -> None:
        self.store = store
        artifacts = {name for *_, outputs in NODES for name in outputs.values()}
        self.types = {
            **{name: store.put_artifact_type(mlmd.ArtifactType(name=name)) for name in artifacts},
            **{name: store.put_execution_type(mlmd.ExecutionType(name=name)) for _, name, *_ in NODES},
            **{
                name: store.put_context_type(mlmd.ContextType(name=name))
                for name in ("pipeline", "pipeline_run", "node", "execution_cache")
            },
        }
        names = ["pipeline", *(f"node {name}" for name, *_ in NODES)]
        self.contexts = dict(zip(names, store.put_contexts([self._context(name) for name in names]), strict=True))
        self.newest: dict[str, int] = {}  # newest artifact by node and output

    def write(self, runs: int) -> None:
        """Write the records of a number of runs."""
        for number in range(runs):
            self._run(number)

    def _context(self, name: str) -> mlmd.Context:
        kind, _, rest = name.partition(" ")
        full = {"pipeline": "cifar10", "node": f"cifar10.{rest}"}.get(kind, rest)
        return mlmd.Context(type_id=self.types[kind], name=full)

    def _run(self, number: int) -> None:
        """Write the records of one run, with one transaction for each kind of record; a real run has hundreds."""
        span = number // SPAN + 1
        run = mlmd.Context(type_id=self.types["pipeline_run"], name=f"run-{number:05}")
        for name, text in facts(span).items():
            run.custom_properties[name].string_value = text
        cached = {name for name in CACHED if number % SPAN or (name in ONCE and number)}
        executed = [(name, kind) for name, kind, *_ in NODES if kind != RESOLVER and name not in cached]
        caches = [
            mlmd.Context(type_id=self.types["execution_cache"], name=f"{number:05}{name:.>59}") for name, _ in executed
        ]
        run_id, *cache_ids = self.store.put_contexts([run, *caches])
        cache_of = {name: cache_id for (name, _), cache_id in zip(executed, cache_ids, strict=True)}

        executions = self.store.put_executions(
            [self._execution(name, kind, name in cached) for name, kind, *_ in NODES]
        )
        # The resolvers find artifacts of earlier runs, so their results are read before this run adds its own.
        resolved = {
            "Baseline.model": self.newest.get("Trainer.model"),
            "PreviousSpan.verdict": self.newest.get("DataGate.verdict") if number % SPAN == 0 else None,
        }
        new = [
            (f"{name}.{output}", self._artifact(kind, name, output, number, span))
            for name, _, _, outputs in NODES
            if name not in cached
            for output, kind in outputs.items()
        ]
        ids = self.store.put_artifacts([artifact for _, artifact in new])
        self.newest |= dict(zip([key for key, _ in new], ids, strict=True))
        known = {**self.newest, **{key: artifact for key, artifact in resolved.items() if artifact}}

        events, attributions, associations = [], [], []
        for (name, kind, inputs, outputs), execution in zip(NODES, executions, strict=True):
            own = [self.contexts["pipeline"], run_id, self.contexts[f"node {name}"]]
            own += [cache_of[name]] if name in cache_of else []
            associations += [mlmd.Association(context_id=context, execution_id=execution) for context in own]
            if kind == RESOLVER:
                key = {"Baseline": "Baseline.model", "PreviousSpan": "PreviousSpan.verdict"}[name]
                if key in known:
                    events.append(event(known[key], execution, [key.partition(".")[2]], mlmd.Event.INTERNAL_OUTPUT))
                continue
            by_artifact: dict[int, list[str]] = {}
            for channel, source in inputs.items() if name not in cached else ():
                if source in known:
                    by_artifact.setdefault(known[source], []).append(channel)
            events += [event(artifact, execution, keys, mlmd.Event.INPUT) for artifact, keys in by_artifact.items()]
            for output in outputs:
                artifact = known[f"{name}.{output}"]
                events.append(event(artifact, execution, [output], mlmd.Event.OUTPUT))
                for context in own if name not in cached else [run_id]:
                    attributions.append(mlmd.Attribution(context_id=context, artifact_id=artifact))
        self.store.put_events(events)
        self.store.put_attributions_and_associations(attributions, associations)

    def _execution(self, name: str, kind: str, cached: bool) -> mlmd.Execution:
        state = mlmd.Execution.CACHED if cached else mlmd.Execution.COMPLETE
        execution = mlmd.Execution(type_id=self.types[kind], last_known_state=state)
        lengths = {"Trainer": 916, "Evaluator": 90, "Pusher": 119}
        if kind != RESOLVER:
            execution.custom_properties["digest"].string_value = "d" * 64
            execution.custom_properties["settings"].string_value = "s" * lengths.get(name, 200)
        return execution

    def _artifact(self, kind: str, node: str, output: str, number: int, span: int) -> mlmd.Artifact:
        artifact = mlmd.Artifact(
            type_id=self.types[kind], state=mlmd.Artifact.LIVE, uri=f"/runs/cifar10/root/{node}/{output}/{number}"
        )
        for name, value in properties(node, kind, number, span).items():
            if isinstance(value, int):
                artifact.custom_properties[name].int_value = value
            else:
                artifact.custom_properties[name].string_value = value
        return artifact


def event(artifact: int, execution: int, keys: list[str], kind: int) -> mlmd.Event:
    """Make the event that connects an artifact with an execution.

    Args:
        artifact: Id of the artifact.
        execution: Id of the execution.
        keys: Names of the inputs or outputs.
        kind: Type of the event.

    Returns:
        The event.
    """
    record = mlmd.Event(artifact_id=artifact, execution_id=execution, type=kind)  # type: ignore[arg-type]
    for key in keys:
        record.path.steps.add().key = key
        record.path.steps.add().index = 0
    return record


@functools.cache
def facts(span: int) -> dict[str, str]:
    """Make the properties of a run's context."""
    from pipeline.settings import load

    return {
        "code_version": "c" * 12,
        "lock_digest": "l" * 64,
        "data_digest": f"{span:064}",
        "gate_data_digest": f"{1:064}",
        "accepted": "{}",
        "trigger": "manual",
        "reason": "",
        "exit": "0",
        "settings": load("cifar10-cpu", environment={}).resolved(span),
    }


def properties(node: str, kind: str, number: int, span: int) -> dict[str, int | str]:
    """Make the properties of an artifact, about as long as the steps record them.

    Args:
        node: Node that made the artifact.
        kind: Type of the artifact.
        number: Number of the run.
        span: Number of the span.

    Returns:
        The properties by name.
    """
    common: dict[str, int | str] = {"tfx_version": "1.21.0", "is_external": 0}
    match kind:
        case "Examples" if node != "Transform":
            splits = '["test"]' if node == "TestExampleGen" else '["train", "val"]'
            return {**common, "span": span, "span_digest": f"{span:064}", "split_names": splits}
        case "DataVerdict":
            return {**common, "span": span, "passed": 1, "findings": json.dumps(["f" * 150] * 17)}
        case "ModelBlessing":
            return {**common, "blessed": 1, "judgement": json.dumps(judgement(number))}
        case "InfraBlessing":
            return {**common, "blessed": 1, "checks": json.dumps(["c" * 130] * 10)}
        case "PushedModel":
            return {**common, "pushed": 1, "pushed_version": str(number + 1), "withdrawn": 0}
    return common


def judgement(number: int) -> dict[str, object]:
    """Make the content of the property `judgement` of a blessing."""

    def figures(accuracy: float) -> dict[str, object]:
        return {
            "classes": CLASSES,
            "examples": 10000,
            "accuracy": accuracy,
            "accuracy_interval": [0.5711569029486, 0.6],
            "class_accuracy": dict.fromkeys(CLASSES, 0.5888),
            "confusion": [[100] * 10] * 10,
            "class_accuracy_interval": {name: [0.6124179122210397, 0.6727372150985136] for name in CLASSES},
            "class_precision": dict.fromkeys(CLASSES, 0.6334975369458128),
        }

    checks = [{"name": "accuracy", "value": 0.5888, "bound": 0.5, "interval": [0.57, 0.59]}] * 4
    accuracy = 0.5 + number % 1000 / 10000
    return {"candidate": figures(accuracy), "serving": figures(accuracy - 0.0001), "confidence": 0.95, "checks": checks}


def measure(address: str, password: str, runs: int) -> None:
    """Measure and print the times of the commands, each in a new process.

    Args:
        address: Address of the store.
        password: Password of the store.
        runs: Number of runs in the store.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", "VITPIPE_METADATA__PASSWORD": password}
    folder = None
    if address.startswith("mysql:"):
        environment["VITPIPE_METADATA__ADDRESS"] = address
    else:
        folder = str(Path(address).parents[1])
    commands = {"runs list": ["runs", "list"], "lineage": ["lineage", f"v{runs}"]}
    for name, words in commands.items():
        command = [sys.executable, "-m", "vitpipe", *words, *(["--runs", folder] if folder else [])]
        seconds, cpu_seconds = [], []
        for _ in range(ROUNDS):
            start, before = time.perf_counter(), os.times()
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            seconds.append(time.perf_counter() - start)
            after = os.times()
            cpu_seconds.append(sum(after[2:4]) - sum(before[2:4]))
            assert done.returncode == 0 and f"run-{runs - 1:05}" in done.stdout, done.stdout + done.stderr
        kind = "SQLite" if folder else "MariaDB"
        print(
            f"{kind}, {runs:,} runs: {name} {statistics.median(seconds):.2f} s, from {min(seconds):.2f} to "
            f"{max(seconds):.2f}; CPU time {statistics.median(cpu_seconds):.2f} s",
            flush=True,
        )


def main(sizes: list[int]) -> None:
    """Generate stores with the given numbers of runs, and measure the commands on each."""
    from pipeline.metadata.address import Address
    from tests.helpers import mariadb

    server = None if mariadb.missing() else mariadb.Server()
    if not server:
        print(mariadb.missing())
    try:
        with tempfile.TemporaryDirectory() as folder:
            for runs in sizes:
                addresses = [f"{folder}/{runs}/cifar10/metadata.db"]
                addresses += [server.database(str(runs))] if server else []
                for address in addresses:
                    start = time.perf_counter()
                    generate(Address.parse(address, mariadb.PASSWORD).connection_config(), runs)
                    print(f"{address}: written in {time.perf_counter() - start:.0f} s", flush=True)
                    measure(address, mariadb.PASSWORD, runs)
    finally:
        if server:
            server.remove()


if __name__ == "__main__":
    main([int(word) for word in sys.argv[1:]] or [200, 2000])
