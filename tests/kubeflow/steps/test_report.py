"""The last step of a run on a cluster, after a step was killed and not retried."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ml_metadata import MetadataStore

from pipeline.metadata.reader import reader
from pipeline.metadata.writer import execution_id
from pipeline.result.run_result import EXIT, RunResult, RunState
from pipeline.result.summary import summarise
from tests.helpers.first_step import begin
from tests.helpers.walk import ROOT


@pytest.fixture
def started_run(settings):
    """A run whose first step has ended."""
    begin(settings, "run-1")
    return settings


def step(module, settings, folder, *arguments):
    line = [
        sys.executable,
        "-m",
        module,
        f"--root={folder}",
        f"--folder={settings.folder}",
        "--run-id=run-1",
        f"--store={settings.store}",
        *arguments,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}
    return subprocess.run(line, capture_output=True, text=True, env=environment)


def report(settings, folder):
    outputs = {
        "artifacts": {"metrics": {"artifacts": [{"name": "metrics", "uri": "minio://x/metrics"}]}},
        "outputFile": str(folder / "kfp" / "output.json"),
    }
    executor_input = json.dumps({"outputs": outputs})
    outputs_arguments = [
        f"--page={folder / 'kfp' / 'report'}",
        f"--executor-input={executor_input}",
        '--memory={"ImportSchemaGen": "2Gi"}',
    ]
    return step("kubeflow.steps.report", settings, folder, *outputs_arguments)


def run(settings):
    with reader(settings.store) as store:
        return store.run("run-1")


@pytest.mark.slow
def test_a_killed_step_is_reported_as_a_crash(started_run, tmp_path):
    from ml_metadata.proto import metadata_store_pb2 as mlmd

    from kubeflow.steps.step import read_graph
    from pipeline.node import launch
    from pipeline.run_facts import logs_folder

    connection = started_run.store.connection_config()
    graph = read_graph(logs_folder(started_run, "run-1"))
    launch(graph, "ImportSchemaGen", connection)
    store = MetadataStore(connection)
    [execution] = store.get_executions_by_id([execution_id(store, started_run.name, "run-1", "ImportSchemaGen")])
    execution.last_known_state = mlmd.Execution.RUNNING  # as SIGKILL leaves it
    store.put_executions([execution])

    done = report(started_run, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = run(started_run)
    assert (found.facts[EXIT], summarise(RunResult(found)).state) == ("1", RunState.FAILED)
    assert found.node("ImportSchemaGen").state == "failed"
    page = (tmp_path / "kfp" / "report").read_text()
    assert "crashed in ImportSchemaGen: it was killed" in page
    assert "its memory limit of 2Gi is too low: set kubeflow.steps.ImportSchemaGen.memory higher" in page
    executor_output = json.loads((tmp_path / "kfp" / "output.json").read_text())
    [metrics] = executor_output["artifacts"]["metrics"]["artifacts"]
    assert metrics == {"name": "metrics", "uri": "minio://x/metrics", "metadata": {}}

    # A user restarts the failed steps of the same run, and now they succeed.
    done = step("kubeflow.steps.node", started_run, tmp_path, "ImportSchemaGen")
    assert done.returncode == 0, done.stdout + done.stderr
    assert summarise(RunResult(run(started_run))).state is RunState.RUNNING
    assert step("kubeflow.steps.verdict", started_run, tmp_path).returncode == 0
    found = run(started_run)
    assert summarise(RunResult(found)).state is RunState.DONE
    assert "crashed" not in Path(found.output("RunReport", "report").properties["page"]).read_text()


@pytest.mark.slow
def test_a_failure_without_a_trace_is_reported_as_a_crash(started_run, tmp_path):
    done = report(started_run, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "left no trace in ML Metadata" in (tmp_path / "kfp" / "report").read_text()
    assert run(started_run).facts[EXIT] == "1"

    store = MetadataStore(started_run.store.connection_config())
    [page] = store.get_artifacts_by_type("RunReport")
    del page.custom_properties["page"]
    store.put_artifacts([page])
    done = step("kubeflow.steps.verdict", started_run, tmp_path)
    assert done.returncode == 1 and "exit 1: the property page is missing" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_the_report_of_a_run_that_did_not_start_succeeds(settings, tmp_path):
    done = report(settings, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "did not start" in done.stdout
