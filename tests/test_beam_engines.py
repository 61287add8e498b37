"""The data path on real engines with two pools of workers, one of which loses a worker."""

import functools
import io
import json
import shutil
import subprocess
import tarfile

import apache_beam as beam
import pytest

from components.data.ingest import engine_work, prepare, tfrecord
from components.data.ingest.file_parts import FileParts
from components.data.statistics.measure import measure_shard
from components.errors import DataRefused, EngineError
from pipeline.beam import arguments, explain
from pipeline.beam_tasks import TaskRunner
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.result.run_result import RunResult
from pipeline.settings import load
from tests.helpers import beam_engine, same_data
from tests.helpers.beam_engine import Engine
from tests.helpers.command import SHORT, command, run_id, states, vitpipe, with_settings
from tests.helpers.traffic import ask, json_line, prediction_log, write_records
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
        killed = engine.kill_worker(r"\.tfrecord$", process)
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


@pytest.fixture(scope="module")
def digits(sample_data, tmp_path_factory):
    """An image folder with three copies of each image of the sample, which is read in three parts."""
    root = tmp_path_factory.mktemp("digits")
    for split in ("train", "val", "test"):
        for example in tfrecord.read_split(next(sample_data.rglob("span-1")) / split):
            for copy in range(3):
                path = root / split / str(example.label) / f"{example.id.decode().partition(':')[2]}-{copy}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(example.image)
    return root


@pytest.mark.timeout(2400)
def test_prepare_loses_a_worker_tries_again_and_writes_the_span_of_one_process(engine, digits, tmp_path):
    prepare("images", tmp_path / "one", str(digits))
    flags = ["data", "prepare", "images", "--source", digits, "--out", "many", *with_settings(engine.settings)]
    line, options = command(tmp_path, *flags)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    try:
        killed = engine.kill_worker(r"-scratch/[0-9a-f]{32}$", process)
        stdout, stderr = process.communicate()
    finally:
        process.kill()
    assert process.returncode == 0, stderr + engine.log("server")
    assert stdout.startswith("many/span-1: ")
    assert stderr.count("attempt 1 of 3 failed: ") == 1 and "attempt 2" not in stderr
    assert sum(f"process {killed}, was killed by SIGKILL" in engine.log(name) for name in ("pool-1", "pool-2")) == 1
    assert "parts checked: 3/3" in stderr
    spans = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "many")
    ]
    assert len(spans[0]) > 5 and spans[1] == spans[0]


def test_prepare_refuses_data_that_a_worker_found_damaged(engine, tmp_path):
    for split in ("train", "test"):
        archive = tmp_path / "source" / f"{split}-0.tar"
        archive.parent.mkdir(exist_ok=True)
        with tarfile.open(archive, "w") as tar:
            member = tarfile.TarInfo("0.png")
            member.size = 2_000
            tar.addfile(member, io.BytesIO(bytes(2_000)))
        archive.write_bytes(archive.read_bytes()[:1_000])
    done = vitpipe(
        tmp_path, "data", "prepare", "images", "--source", "source", "--out", "out", *with_settings(engine.settings)
    )
    assert (done.returncode, done.stdout) == (3, "")
    line = done.stderr.splitlines()[-1]
    assert line.startswith(f"error: {tmp_path}/source/") and "cut, damaged or not a tar archive" in line
    assert "Traceback" not in done.stderr


def test_a_worker_that_cannot_read_the_source_names_the_mount(engine, tmp_path):
    (tmp_path / "part").write_text('{"hashed": [["cat/1.png", null]], "records": []}')
    parts = FileParts(tmp_path / "nowhere", functools.partial(list))
    flags = [f"{name}={value}" for name, value in {**engine.settings, "beam.attempts": 1}.items()]
    run_tasks = TaskRunner(load("sample", flags, environment={}).beam)
    with pytest.raises(EngineError, match=rf"^a worker of the engine cannot use {tmp_path}/nowhere: No such file"):
        run_tasks(
            "hash",
            [engine_work._Part(0, str(tmp_path / "part"))],
            functools.partial(engine_work._hash, parts, engine_work._Folders(tmp_path, tmp_path)),
        )


@pytest.mark.timeout(1200)
def test_the_monitor_loses_a_worker_tries_again_and_finds_the_windows_of_one_process(engine, short_run, tmp_path):
    shutil.copytree(short_run[0] / "runs", tmp_path / "runs")
    images = [example.image for example in tfrecord.read_split(next(short_run[0].rglob("span-1")) / "test")]
    answers = ask(tmp_path / "runs" / "sample" / "serving" / "1", images)
    (tmp_path / "logs").mkdir()
    for number in range(3):
        lines = [json_line(image, answer) for image, answer in zip(images, answers, strict=True)]
        (tmp_path / "logs" / f"{number}.jsonl").write_text("".join(lines))
    write_records(tmp_path / "logs" / "3.tfrecord", [prediction_log(images, answers)])

    monitor = ["monitor", "sample", "--logs", "logs", "--window", "200", "--json"]
    alone = vitpipe(tmp_path, *monitor)
    line, options = command(tmp_path, *monitor, *with_settings(engine.settings))
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    try:
        engine.kill_worker(r"/logs/\d\.(jsonl|tfrecord)$", process)
        stdout, stderr = process.communicate()
    finally:
        process.kill()
    assert process.returncode == alone.returncode, stderr + engine.log("server")
    assert stderr.count("attempt 1 of 3 failed: ") == 1 and "attempt 2" not in stderr
    windows = json.loads(stdout)["windows"]
    assert windows == json.loads(alone.stdout)["windows"] and len(windows) == 4 * len(images) // 200 + 1
