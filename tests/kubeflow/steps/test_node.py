"""Single steps that run a node, as processes like those of a cluster."""

import os
import subprocess
import sys

import pytest

from pipeline.metadata.reader import reader
from pipeline.metadata.writer import MetadataStore, record
from pipeline.result.run_result import EXIT
from pipeline.settings import MetadataSettings
from tests.helpers.first_step import begin
from tests.helpers.mariadb import PASSWORD
from tests.helpers.walk import ROOT


def step(settings, folder, node, **environment):
    line = [
        sys.executable,
        "-m",
        "kubeflow.steps.node",
        "--run-id=run-1",
        f"--root={folder}",
        f"--folder={settings.folder}",
        f"--store={settings.store}",
        node,
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment}
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def ended(process):
    output, _ = process.communicate()
    return process.returncode, output.rstrip().splitlines()


@pytest.mark.mysql
@pytest.mark.slow
def test_nodes_can_start_at_the_same_moment(settings, tmp_path, mariadb):
    address = MetadataSettings(address=mariadb.database("together"), password=PASSWORD)
    settings = settings.model_copy(update={"metadata": address})
    begin(settings, "run-1")
    nodes = ["ImportSchemaGen", "ImportExampleGen", "TestExampleGen"]
    steps = [step(settings, tmp_path, node, VITPIPE_METADATA__PASSWORD=PASSWORD) for node in nodes]
    for node, process in zip(nodes, steps, strict=True):
        code, lines = ended(process)
        assert (code, lines[-1]) == (0, f"vitpipe: exit 0: {node} is complete"), lines
    with reader(settings.store) as store:
        assert {one.node: one.state for one in store.run("run-1").executions} == dict.fromkeys(nodes, "complete")


def test_damaged_data_ends_with_exit_code_3_and_prints_the_log(settings, tmp_path):
    begin(settings, "run-1")
    [shard] = (settings.data.dir / "span-2" / "train").glob("*.tfrecord")
    shard.write_bytes(shard.read_bytes()[:-1])
    code, lines = ended(step(settings, tmp_path, "ImportExampleGen"))
    assert code == 3
    assert lines[-1].startswith("vitpipe: exit 3: data refused: ") and shard.name in lines[-1]
    assert any(line.startswith("Traceback") for line in lines)
    with reader(settings.store) as store:
        assert store.run("run-1").node("ImportExampleGen").state == "failed"


@pytest.mark.slow
def test_a_restarted_step_that_fails_again_records_its_exit_code(settings, tmp_path):
    begin(settings, "run-1")
    [shard] = (settings.data.dir / "span-2" / "train").glob("*.tfrecord")
    shard.write_bytes(shard.read_bytes()[:-1])
    record(MetadataStore(settings.store.connection_config()), "run-1", **{EXIT: "1"})  # as the report records it
    assert ended(step(settings, tmp_path, "ImportExampleGen"))[0] == 3
    with reader(settings.store) as store:
        assert store.run("run-1").facts[EXIT] == "3"


def test_a_step_before_the_start_of_its_run_fails(settings, tmp_path):
    settings.folder.mkdir(parents=True)
    code, lines = ended(step(settings, tmp_path, "Trainer"))
    assert code == 1 and "run run-1 has not started" in lines[-1]


def test_an_unreachable_store_is_named(settings, tmp_path):
    away = MetadataSettings(address="mysql://vitpipe@127.0.0.1:1/vitpipe")
    code, lines = ended(step(settings.model_copy(update={"metadata": away}), tmp_path, "Trainer"))
    assert code == 1 and "mysql://vitpipe@127.0.0.1:1/vitpipe" in lines[-1]
