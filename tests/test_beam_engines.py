"""The data path on real engines with two pools of workers, one of which loses a worker."""

import subprocess

import apache_beam as beam
import pytest

from components.data.statistics.measure import measure_shard
from components.errors import DataRefused
from pipeline.beam import arguments, explain
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.result.run_result import RunResult
from pipeline.settings import load
from tests.helpers import beam_engine, same_data
from tests.helpers.beam_engine import Engine
from tests.helpers.command import SHORT, command, run_id, states, with_settings
from trainer.framing import FRAMING, Framing

pytestmark = [pytest.mark.beam_engine, pytest.mark.slow]


@pytest.fixture(scope="module", params=beam_engine.KINDS)
def engine(request, tmp_path_factory):
    if reason := beam_engine.missing(request.param):
        pytest.skip(reason)
    engine = Engine(request.param, tmp_path_factory.mktemp(request.param))
    yield engine
    engine.stop()


@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_a_run_that_loses_a_worker_tries_again_and_ends_with_the_artifacts_of_a_run_in_memory(
    engine, short_run, sample_data, tmp_path
):
    (tmp_path / "data").symlink_to(sample_data / "data")
    line, options = command(tmp_path, "run", "-c", "sample", *with_settings(SHORT | engine.settings))
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    try:
        killed = engine.kill_reader(seconds=300)
        output = process.communicate()
    finally:
        process.kill()
    done = subprocess.CompletedProcess(line, process.returncode, *output)
    assert done.returncode == 0, done.stderr + engine.log("server")

    # The run names the pool, and the pool names the worker.
    (line,) = [line for line in done.stderr.splitlines() if "attempt 1 of 3 failed" in line]
    assert f"a worker of the pool at beam.worker_pool {engine.settings['beam.worker_pool']} was killed" in line
    assert "attempt 2" not in done.stderr
    outputs = [engine.log(name) for name in ("pool-1", "pool-2")]
    assert sum(f"process {killed}, was killed by SIGKILL" in output for output in outputs) == 1
    assert all("is process" in output for output in outputs)  # both pools had workers
    assert states(done)["ImageStatistics"] == "complete"

    roots = [folder / "runs" / "sample" / "root" for folder in (short_run[0], tmp_path)]
    compared = list(same_data.differences(*roots))
    assert len(compared) > 10 and [entry for entry in compared if entry[-1]] == []
    figures = [measured(folder, ended) for folder, ended in (short_run, (tmp_path, done))]
    assert figures[1] == pytest.approx(figures[0], abs=0.02)


def measured(folder, done):
    """Return the accuracy that the Evaluator measured, and those of the parts of the test set, by their names."""
    with reader(Address(file=folder / "runs" / "sample" / "metadata.db")) as store:
        figures = RunResult(store.run(run_id(done))).figures
    return {"accuracy": figures["accuracy"], **figures["class_accuracy"]}


def test_damaged_data_is_no_failure_of_the_engine(engine, sample_data, tmp_path):
    flags = [f"{name}={value}" for name, value in engine.settings.items()]
    settings = load("sample", flags, environment={})
    shard = next(sample_data.rglob("train/*.tfrecord"))
    damaged = tmp_path / "damaged.tfrecord"
    damaged.write_bytes(shard.read_bytes()[:-5])
    framing = Framing.of(settings.model.model_dump(include=FRAMING))
    argv = arguments(settings.beam)
    with pytest.raises(RuntimeError) as failed, beam.Pipeline(argv=argv) as pipeline:
        _ = pipeline | beam.Create([("train", str(damaged))]) | beam.FlatMap(measure_shard, framing)
    error = explain(failed.value, argv)
    assert isinstance(error, DataRefused) and str(error).startswith(f"{damaged}: ")
