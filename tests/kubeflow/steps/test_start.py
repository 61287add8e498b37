"""The first step of a run on a cluster: it allows one run at a time, and writes what the other steps read."""

import http.server
import json
import threading

import filelock
import pytest
from ml_metadata import MetadataStore

from components.errors import AnotherRun, DataRefused, EngineError, SettingsError, UsageError
from components.model.serving_folder import push
from kubeflow.steps import start
from kubeflow.steps.start import NEWEST, resolve_settings
from kubeflow.steps.step import read_graph
from pipeline.metadata.reader import reader
from pipeline.metadata.writer import record
from pipeline.result.run_result import EXIT, PUSHED, RunResult, RunState
from pipeline.result.summary import summarise
from pipeline.run_facts import logs_folder
from pipeline.settings.beam import BeamSettings
from tests.helpers.first_step import begin
from tests.helpers.model_records import record as model_record


@pytest.fixture
def api():
    """Address of a server that answers with the states of runs, and these states."""
    states = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            run_id = self.path.removeprefix("/apis/v2beta1/runs/")
            self.send_response(200 if run_id in states else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"run_id": run_id, "state": states.get(run_id)}).encode())

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", states
    server.shutdown()
    server.server_close()


def run(settings, name):
    with reader(settings.store) as store:
        return store.run(name)


def test_start_writes_the_graph_and_registers_every_type(settings):
    assert begin(settings, "run-1", trigger="schedule", reason="due at three") == 2  # the newest span
    graph = read_graph(logs_folder(settings, "run-1"))
    assert graph.runtime_spec.pipeline_run_id.field_value.string_value == "run-1"
    store = MetadataStore(settings.store.connection_config())
    executions = {one.name for one in store.get_execution_types()}
    artifacts = {one.name for one in store.get_artifact_types()}
    for entry in graph.nodes:
        assert entry.pipeline_node.node_info.type.name in executions
        for output in entry.pipeline_node.outputs.outputs.values():
            assert output.artifact_spec.type.name in artifacts
    found = run(settings, "run-1")
    assert (found.facts["trigger"], found.facts["reason"]) == ("schedule", "due at three")
    assert summarise(RunResult(found)).state is RunState.RUNNING


def test_a_tuning_has_its_own_graph_and_is_recorded_as_such(settings):
    begin(settings, "run-1", tune=True)
    nodes = {entry.pipeline_node.node_info.id for entry in read_graph(logs_folder(settings, "run-1")).nodes}
    assert "Tuner" in nodes and "Trainer" not in nodes
    assert RunResult(run(settings, "run-1")).is_tuning


def test_a_tuned_training_without_a_tuning_does_not_start(settings):
    tuned = settings.model_copy(update={"training": settings.training.model_copy(update={"tuned": True})})
    with pytest.raises(SettingsError, match="run `vitpipe tune` with the same settings first"):
        begin(tuned, "run-1")


def test_a_second_start_of_a_run_changes_nothing(settings):
    begin(settings, "run-1")
    before = (logs_folder(settings, "run-1") / "graph.json").read_text()
    begin(settings, "run-1")
    assert (logs_folder(settings, "run-1") / "graph.json").read_text() == before


def test_a_second_run_is_rejected_until_the_first_has_ended(settings):
    begin(settings, "run-1")
    with pytest.raises(UsageError, match=r"run run-1 of cifar10 is running.*take_over=run-1"):
        begin(settings, "run-2")
    assert run(settings, "run-2") is None
    record(MetadataStore(settings.store.connection_config()), "run-1", **{EXIT: "0"})
    begin(settings, "run-2")


def test_take_over_replaces_a_run_that_is_recorded_as_running(settings):
    begin(settings, "run-1")
    begin(settings, "run-2", take_over="run-1")
    assert summarise(RunResult(run(settings, "run-1"))).state is RunState.FAILED
    assert run(settings, "run-1").facts["taken_over_by"] == "run-2"


def test_a_terminated_or_deleted_run_is_taken_over(settings, api):
    address, states = api
    states["run-1"] = "RUNNING"
    begin(settings, "run-1", api=address)
    with pytest.raises(UsageError, match="is running"):
        begin(settings, "run-2", api=address)
    states["run-1"] = "CANCELED"
    begin(settings, "run-2", api=address)
    assert summarise(RunResult(run(settings, "run-1"))).state is RunState.FAILED
    begin(settings, "run-3", api=address)  # Kubeflow Pipelines does not know run-2, as after its deletion


def test_a_version_that_a_killed_run_pushed_is_recorded(settings, tmp_path):
    begin(settings, "run-1")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"graph")
    push(tmp_path / "model", settings.folder / "serving", model_record(3, run_id="run-1"))
    begin(settings, "run-2", take_over="run-1")
    assert run(settings, "run-1").facts[PUSHED] == "3"
    assert PUSHED not in run(settings, "run-2").facts


def test_a_run_of_another_pipeline_does_not_block_a_run(settings):
    begin(settings, "run-1")
    other = settings.model_copy(update={"name": "other"})
    assert begin(other, "run-2") == 2


def test_a_local_run_blocks_a_run_on_the_cluster(settings):
    settings.folder.mkdir(parents=True)
    with filelock.FileLock(settings.folder / ".lock"), pytest.raises(AnotherRun, match="another run of cifar10"):
        begin(settings, "run-1")


def test_a_broken_span_is_refused(settings):
    (settings.data.dir / "span-2" / "manifest.json").write_text("{")
    with pytest.raises(DataRefused):
        begin(settings, "run-1")


def test_a_run_whose_engine_does_not_answer_does_not_start(settings):
    engine = BeamSettings(runner="flink", job_service="127.0.0.1:1", worker_pool="127.0.0.1:50000")
    with pytest.raises(EngineError, match=r"no job service answers at beam\.job_service 127\.0\.0\.1:1"):
        begin(settings.model_copy(update={"beam": engine}), "run-1")
    assert not logs_folder(settings, "run-1").exists()


def test_parameters_of_a_run_override_its_settings(settings):
    text = settings.model_dump_json(exclude={"metadata": {"password"}, "kubeflow": True})
    assert resolve_settings(text, NEWEST, {}).data.span is None
    with pytest.raises(SettingsError, match=r"gate.accuracy: .*2\.0"):
        resolve_settings(text, 1, {"accuracy": 2.0})
    changed = resolve_settings(text, 1, {"accuracy": 0.5})
    assert (changed.data.span, changed.gate.accuracy) == (1, 0.5)
    assert changed.gate.class_accuracy == settings.gate.class_accuracy


def test_an_accepted_check_is_recorded(settings):
    begin(settings, "run-1", reason="new camera", accepted={"drift_colour": "new camera"})
    assert json.loads(run(settings, "run-1").facts["accepted"]) == {"drift_colour": "new camera"}


def test_a_package_with_another_graph_than_the_image_is_rejected(settings):
    with pytest.raises(UsageError, match=r"they differ in .*Trainer.*Compile it with the version of the image"):
        start.begin(settings, "run-1", nodes=["ImportExampleGen"])


def test_a_run_folder_of_another_store_is_rejected(settings):
    (settings.folder / "root").mkdir(parents=True)
    with pytest.raises(SettingsError, match="holds artifacts of another store of ML Metadata"):
        begin(settings, "run-1")
