"""Time and memory of the data path by the number of images, in memory and on a Flink with one and two workers.

    python benchmarks/scale.py data/cifar10                          # 60,000, 300,000 and 1,000,000 images
    python benchmarks/scale.py data/cifar10 --images 60000 --engines memory flink-2

The images are those of CIFAR-10, and variants of them: turned, mirrored, with inverted colours, and shifted. So each
image is a different picture, in its own PNG file, and the number of near-duplicates grows with the number of images.
`vitpipe data prepare` turns the files into a span, in memory and on each engine. Then the steps up to the data gate
run, each in its own process. On Flink, only those that are jobs of Beam run. A worker of Flink is one process with one
task. The Evaluator evaluates an untrained model on the test images, a sixth of all images, without a serving model.

Memory is the resident memory of the processes, at its highest in the step. CPU seconds include those of the workers and
of Flink. Seconds do not include the start of Python, which imports TFX.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from shutil import rmtree
from threading import Event, Thread
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import psutil
import record
from PIL import Image

from components.data.ingest import manifest, span_folder, tfrecord

if TYPE_CHECKING:
    from pipeline.settings import Settings

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
PRESET = "cifar10-cpu"
FIRST = ("Baseline", "ImportSchemaGen", "PreviousSpan")  # steps that do not read the images
JOBS = ("ImportExampleGen", "TestExampleGen", "StatisticsGen", "ImageStatistics")  # jobs of Beam
EVALUATOR = "Evaluator"  # a job, too, but its model is not trained here
OTHERS = ("ExampleValidator", "DataGate")
ENGINES = {"memory": 0, "flink-1": 1, "flink-2": 2}  # with the number of workers
_VARIANTS = 32
_INTERVAL = 0.2  # seconds between two readings of the memory


class Used(NamedTuple):
    """What a command used."""

    seconds: float
    cpu_seconds: float
    others_cpu: float  # CPU seconds of the other processes, which are part of `cpu_seconds`
    memory: dict[str, int]  # highest resident bytes, by the name of the processes
    output: str


class Usage:
    """Readings of the memory and CPU time of processes and their children.

    Args:
        processes: Processes by a name; those of one name are added up.
    """

    def __init__(self, processes: Mapping[str, list[psutil.Process]]) -> None:
        self.peaks = dict.fromkeys(processes, 0)
        self._processes, self._ended = processes, Event()
        self._before = self._cpu()
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def stop(self) -> float:
        """Stop reading, and return the CPU seconds since the start."""
        self._ended.set()
        self._thread.join()
        return self._cpu() - self._before

    def _read(self) -> None:
        while not self._ended.wait(_INTERVAL):
            for name, roots in self._processes.items():
                total = 0
                for process in roots:
                    for member in (process, *_children(process)):
                        try:
                            total += member.memory_info().rss
                        except psutil.NoSuchProcess:
                            continue
                self.peaks[name] = max(self.peaks[name], total)

    def _cpu(self) -> float:
        total = 0.0
        for roots in self._processes.values():
            for process in roots:
                for member in (process, *_children(process)):
                    try:
                        total += sum(member.cpu_times()[:4])
                    except psutil.NoSuchProcess:
                        continue
        return total


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def measure(command: list[str], others: Mapping[str, list[psutil.Process]]) -> Used:
    """Run a command and measure what it and other processes use, with the start of Python.

    Args:
        command: The command.
        others: Other processes that work for it, by name.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    usage = Usage(others)
    start = time.perf_counter()
    before = os.times()
    with tempfile.TemporaryFile() as log, tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(command, stdout=output, stderr=log, env=environment) as process:
            own = Usage({"step": [psutil.Process(process.pid)]})
            process.wait()
            seconds = time.perf_counter() - start
        own.stop()
        after = os.times()
        if process.returncode:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command)} ended with exit code {process.returncode}: {log.read()[-2000:]!r}")
        output.seek(0)
        printed = output.read()
    others_cpu = usage.stop()
    cpu_seconds = sum(after[2:4]) - sum(before[2:4]) + others_cpu
    return Used(seconds, cpu_seconds, others_cpu, own.peaks | usage.peaks, printed)


def variant(pixels: np.ndarray, number: int) -> np.ndarray:
    """Return one of 32 pictures that can be made from a square image [S, S, 3]. Number 0 is the image itself."""
    pixels = np.rot90(pixels, number % 4)
    if number // 4 % 2:
        pixels = pixels[:, ::-1]
    if number // 8 % 2:
        pixels = 255 - pixels
    if number // 16 % 2:
        pixels = np.roll(pixels, pixels.shape[0] // 2, axis=(0, 1))
    return np.ascontiguousarray(pixels)


def write_files(data: Path, folder: Path, count: int) -> None:
    """Write images and their variants as PNG files `SPLIT/CLASS/NAME.png`, which `vitpipe data prepare` reads.

    Args:
        data: Folder of the prepared data, with CIFAR-10 as span 1.
        folder: Folder to write to.
        count: Number of files, at most 32 for each image of the span.

    Raises:
        ValueError: If the span has too few images.
    """
    span = span_folder(data, 1)
    span_manifest = manifest.read(span)
    available = sum(shard.examples for shard in span_manifest.shards.values())
    if count > _VARIANTS * available:
        raise ValueError(f"--images {count:,}: {span} has {available:,} images, enough for {_VARIANTS * available:,}")
    work, before = [], 0
    for name, shard in sorted(span_manifest.shards.items()):
        # Each shard makes its share of the files, so the splits keep their proportions.
        after = before + shard.examples
        share = count * after // available - count * before // available
        work.append((span / name, span_manifest.class_names, folder / name.partition("/")[0], share))
        before = after
    for _, classes, target, _ in work:
        for name in classes:
            (target / name).mkdir(parents=True, exist_ok=True)
    with get_context("spawn").Pool() as pool:
        pool.starmap(write_variants, work, chunksize=1)


def write_variants(shard: Path, classes: tuple[str, ...], folder: Path, count: int) -> None:
    """Write the images of a shard, then their first variants, and so on.

    Args:
        shard: The shard.
        classes: Class names in index order.
        folder: Folder of the split, with the class folders.
        count: Number of files.
    """
    for number in range(_VARIANTS):
        for place, example in enumerate(tfrecord.read_examples(shard)):
            if count == 0:
                return
            pixels = np.asarray(Image.open(io.BytesIO(example.image)).convert("RGB"))
            name = f"{shard.stem}-{place}-{number}.png"
            Image.fromarray(variant(pixels, number)).save(folder / classes[example.label] / name, compress_level=1)
            count -= 1


def run_nodes(data: Path, runs: Path, beam: Mapping[str, str], names: list[str]) -> None:
    """Run nodes of the graph in this process, and print a JSON list with the seconds, and CPU seconds, of all.

    Args:
        data: The data folder.
        runs: Folder of the run folders.
        beam: Settings of the engine.
        names: Ids of the nodes.
    """
    from tfx.orchestration.portable import runtime_parameter_utils

    from pipeline import node
    from pipeline.console.logs import redirected
    from pipeline.graph import compile_graph
    from pipeline.metadata.address import Address
    from pipeline.outcome import NodeState

    settings = settings_of(data, runs, beam)
    settings.folder.mkdir(parents=True, exist_ok=True)
    ir = compile_graph(settings, 1)
    runtime_parameter_utils.substitute_runtime_parameter(ir, {"pipeline-run-id": "only"})
    connection = Address(file=settings.folder / "metadata.db").connection_config()
    before = now()
    for name in names:
        with redirected(runs / f"{name}.log"):
            outcome = node.launch(ir, name, connection)
        if outcome.state is NodeState.FAILED and not outcome.data_refused:
            raise RuntimeError(f"{name} failed: {outcome.error}; see {runs / f'{name}.log'}")
    print_since(before)


def run_evaluator(data: Path, runs: Path, beam: Mapping[str, str]) -> None:
    """Run the Evaluator on a new model in this process, after the steps before it. Print the output of `run_nodes`.

    Args:
        data: The data folder.
        runs: Folder of the run folders.
        beam: Settings of the engine.
    """
    from tfx.dsl.components.base.base_beam_executor import BaseBeamExecutor
    from tfx.types import artifact_utils, standard_artifacts
    from tfx.utils import path_utils

    from components.artifacts import ImageStatisticsArtifact
    from components.model.evaluator.component import Executor
    from pipeline.beam import arguments
    from pipeline.console.logs import redirected
    from trainer.serving import export
    from trainer.train import build_vit

    settings = settings_of(data, runs, beam)
    root = runs / PRESET / "root"
    examples, schema, statistics = standard_artifacts.Examples(), standard_artifacts.Schema(), ImageStatisticsArtifact()
    model, evaluation, blessing = (
        standard_artifacts.Model(),
        standard_artifacts.ModelEvaluation(),
        standard_artifacts.ModelBlessing(),
    )
    for artifact, output in (
        (examples, "TestExampleGen/examples"),
        (schema, "ImportSchemaGen/schema"),
        (statistics, "ImageStatistics/statistics"),
    ):
        artifact.uri = str(max((root / output).iterdir()))
    examples.split_names = artifact_utils.encode_split_names(["test"])
    for artifact, name in ((model, "model"), (evaluation, "evaluation"), (blessing, "blessing")):
        (root / "Evaluator" / name).mkdir(parents=True)
        artifact.uri = str(root / "Evaluator" / name)
    names = manifest.read(span_folder(data, 1)).class_names
    vit = build_vit(settings.model, len(names), [125.0] * 3, [63.0] * 3)
    export(vit, [*names], path_utils.serving_model_path(model.uri))
    before = now()
    with redirected(runs / "Evaluator.log"):
        Executor(BaseBeamExecutor.Context(beam_pipeline_args=arguments(settings.beam))).Do(
            {"examples": [examples], "schema": [schema], "statistics": [statistics], "model": [model]},
            {"evaluation": [evaluation], "blessing": [blessing]},
            {"gate": settings.gate.model_dump_json(), "serving": ""},
        )
    print_since(before)


def settings_of(data: Path, runs: Path, beam: Mapping[str, str]) -> Settings:
    """Return the settings of a run on the data of a folder."""
    from pipeline.settings import load

    changes = [f"runs={runs}", f"data.dir={data}", "data_gate.near_leaks.stop=null"]
    return load(PRESET, [*changes, *(f"{name}={value}" for name, value in beam.items())], {})


def now() -> tuple[float, float]:
    """Return the time, and the CPU time of this process and its children, in seconds."""
    return time.perf_counter(), sum(os.times()[:4])


def print_since(before: tuple[float, float]) -> None:
    """Print a JSON list with the seconds and CPU seconds since a result of `now`."""
    print(json.dumps([after - at_start for after, at_start in zip(now(), before, strict=True)]))


class Row(NamedTuple):
    """A measured step."""

    step: str
    engine: str
    images: int
    used: Used
    written: int  # bytes


def measure_count(data: Path, scratch: Path, count: int, engines: list[str]) -> Iterator[Row]:
    """Measure the data path for a number of images.

    Args:
        data: Folder of the prepared data, with CIFAR-10 as span 1.
        scratch: An empty folder.
        count: Number of images.
        engines: Names of ENGINES.
    """
    files, out = scratch / "files", scratch / "data"
    write_files(data, files, count)
    prepare = [sys.executable, "-m", "vitpipe", "data", "prepare", "images", f"--source={files}", f"--out={out}"]
    yield Row("data prepare", "memory", count, measure(prepare, {}), size(out))
    for engine in engines:
        runs = scratch / engine
        runs.mkdir()
        with flink(runs / "flink", ENGINES[engine]) as (beam, others):
            if others:
                again = scratch / "again"
                command = [*prepare[:-1], f"--out={again}", *(f"--set={name}={value}" for name, value in beam.items())]
                yield Row("data prepare", engine, count, measure(command, others), size(again))
                rmtree(again)

            def used_by(names: Sequence[str], beam: Mapping[str, str] = beam, runs: Path = runs) -> Used:
                words = [str(out), str(runs), json.dumps(beam), *names]
                used = measure([sys.executable, __file__, "--nodes", *words], others)
                seconds, own_cpu = json.loads(used.output.splitlines()[-1])
                return used._replace(seconds=seconds, cpu_seconds=own_cpu + used.others_cpu)

            used_by(FIRST)
            for name in (*JOBS, EVALUATOR, *OTHERS) if engine == engines[0] else (*JOBS, EVALUATOR):
                used = used_by([name])
                yield Row(name, "" if name in OTHERS else engine, count, used, size(runs / PRESET / "root" / name))
        rmtree(runs)


@contextmanager
def flink(folder: Path, workers: int) -> Iterator[tuple[dict[str, str], dict[str, list[psutil.Process]]]]:
    """Start a Flink on this machine.

    Args:
        folder: Folder of its files, which is made.
        workers: Number of workers. 0: nothing is started, and Beam runs in memory.

    Yields:
        The settings of a run, and the processes of the workers and of Flink.
    """
    if not workers:
        yield {}, {}
        return
    from tests.helpers.beam_engine import Engine

    folder.mkdir()
    engine = Engine("flink", folder, memory="3g")
    try:
        settings = {**engine.settings, "beam.workers": workers, "beam.parallelism": workers}
        others = {
            "workers": [psutil.Process(pool.pid) for pool in engine.pools],
            "Flink": [psutil.Process(engine.server.pid)],
        }
        yield {name: str(value) for name, value in settings.items()}, others
    finally:
        engine.stop()


def size(folder: Path) -> int:
    """Return the bytes of the files in a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that `vitpipe data prepare cifar10` wrote")
    parser.add_argument("--images", type=int, nargs="+", default=[60_000, 300_000, 1_000_000])
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES))
    args = parser.parse_args()
    columns = ["step", "engine", "images", "seconds", "CPU seconds", "memory of the step, MiB"]
    columns += ["of the workers", "of Flink", "written, MB"]
    rows = []
    for count in args.images:
        with tempfile.TemporaryDirectory(dir=args.data.resolve().parent) as scratch:
            for step, engine, images, used, written in measure_count(args.data, Path(scratch), count, args.engines):
                row = [step, engine, f"{images:,}", f"{used.seconds:.0f}", f"{used.cpu_seconds:.0f}"]
                memory = [used.memory.get(name) for name in ("step", "workers", "Flink")]
                row += [f"{peak / 2**20:,.0f}" if peak else "" for peak in memory]
                rows.append([*row, f"{written / 1e6:,.0f}"])
                print(f"| {' | '.join(rows[-1])} |", flush=True)
    for line in (columns, ["-"] * len(columns), *rows):
        print(f"| {' | '.join(line)} |")
    record.write("scale", columns, rows)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--nodes"]:
        _, _, prepared, folder, engine_settings, *nodes = sys.argv
        if nodes == [EVALUATOR]:
            run_evaluator(Path(prepared), Path(folder), json.loads(engine_settings))
        else:
            run_nodes(Path(prepared), Path(folder), json.loads(engine_settings), nodes)
    else:
        main()
