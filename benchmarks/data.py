"""Time and memory of the pipeline's nodes up to Transform, compared with the way TFX's examples are written.

    python benchmarks/data.py                           # the sample, which `make run` prepared
    python benchmarks/data.py data/cifar10 [ROUNDS]     # both pipelines in turn, three rounds by default
    python benchmarks/data.py data/cifar10 --times 6    # "ours" alone, with every training image once and six times

"ours" is the graph of `pipeline/graph.py` up to Transform, without the resolver Baseline, with the settings of
`cifar10-cpu`. "naive" has ImportExampleGen, StatisticsGen, SchemaGen and Transform, as in TFX's examples for images:
TFX gets no options except the location of the data, and Transform writes float32 pixels from 0 to 1, which take 12 KiB
for an image of 32x32. Both read the same shards and pass the same arguments to Beam.

Each run has its own process and an empty folder, so that no node takes its result from a cache. The seconds are those
of the launches of the nodes, without the import of TFX. The peak memory is that of the process, and includes TFX.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import record

from components.data.ingest import manifest, span_folder, tfrecord
from pipeline.console.logs import redirected

if TYPE_CHECKING:
    import tensorflow as tf
    from tfx.proto.orchestration.pipeline_pb2 import Pipeline

ROOT = Path(__file__).resolve().parents[1]
SIZE = 32  # pixels on a side of the images of cifar10-cpu's model
ALIKE = "ingestion + StatisticsGen + Transform"
WHOLE = "ImportExampleGen to DataGate, and Transform"
PEAK = "peak memory, GiB"


def ours(data: Path, folder: Path, changes: Sequence[str] = ()) -> tuple[Pipeline, list[str]]:
    """Compile the graph of this project.

    Args:
        data: Folder of the prepared data.
        folder: Folder of the run.
        changes: Settings `a.b=c` that differ from those of `cifar10-cpu`.

    Returns:
        The compiled graph, and the nodes to launch, in order.
    """
    from pipeline.graph import compile_graph
    from pipeline.settings import load

    # Duplicate images must not stop the run before Transform.
    gate = ["data_gate.duplicates.stop=null", "data_gate.near_leaks.stop=null"]
    settings = load("cifar10-cpu", [f"runs={folder}", f"data.dir={data}", *gate, *changes], {})
    ir = compile_graph(settings, span=1)
    names = [node.pipeline_node.node_info.id for node in ir.nodes]
    return ir, [name for name in names[: names.index("Transform") + 1] if name != "Baseline"]


def naive(data: Path, folder: Path) -> tuple[Pipeline, list[str]]:
    """Compile a pipeline as in TFX's examples, with the arguments and the result of `ours`."""
    from tfx.components import ImportExampleGen, SchemaGen, StatisticsGen, Transform
    from tfx.dsl.compiler.compiler import Compiler
    from tfx.orchestration.pipeline import Pipeline as TfxPipeline
    from tfx.proto import example_gen_pb2

    splits = [example_gen_pb2.Input.Split(name=name, pattern=f"span-1/{name}/part-*") for name in ("train", "val")]
    example_gen = ImportExampleGen(input_base=str(data), input_config=example_gen_pb2.Input(splits=splits))
    examples = example_gen.outputs["examples"]
    statistics = StatisticsGen(examples=examples)
    schema = SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
    # This file can be imported as `data`, because the folder of a script is the first on its import path.
    transform = Transform(examples, schema.outputs["schema"], preprocessing_fn="data.preprocessing_fn")
    pipeline = TfxPipeline(
        pipeline_name="naive",
        pipeline_root=str(folder / "root"),
        components=[example_gen, statistics, schema, transform],
        # These are the arguments of `ours`, too.
        beam_pipeline_args=["--direct_running_mode=in_memory", "--sdk_container_image=none"],
    )
    ir = Compiler().compile(pipeline)
    return ir, [node.pipeline_node.node_info.id for node in ir.nodes]


def preprocessing_fn(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Preprocess images as TFX's example for CIFAR-10 does, except for the size that its pretrained model needs."""
    import tensorflow as tf

    images = tf.map_fn(lambda x: tf.io.decode_png(x[0], channels=3), inputs["image"], fn_output_signature=tf.uint8)
    images = tf.image.resize(images, [SIZE, SIZE])  # float32 from here on
    return {"image_xf": images / 255.0, "label_xf": inputs["label"]}


CONTENDERS = {"ours": ours, "naive": naive}


def launch_nodes(ir: Pipeline, names: Sequence[str], folder: Path) -> dict[str, dict[str, float]]:
    """Launch nodes in this process.

    Args:
        ir: The compiled graph.
        names: The nodes, in order.
        folder: Empty folder for the run.

    Returns:
        Seconds and CPU seconds of each node, as `seconds` and `cpu`.
    """
    from tfx.orchestration.portable import runtime_parameter_utils

    from pipeline import node
    from pipeline.metadata.address import Address
    from pipeline.outcome import NodeState

    runtime_parameter_utils.substitute_runtime_parameter(ir, {"pipeline-run-id": "benchmark"})
    connection = Address(file=folder / "metadata.db").connection_config()
    usage = {}
    for name in names:
        cpu = time.process_time()
        outcome = node.launch(ir, name, connection)
        if outcome.state is not NodeState.COMPLETE:
            raise RuntimeError(f"{name} is {outcome.state}, not complete: {outcome.error}")
        usage[name] = {"seconds": outcome.seconds, "cpu": time.process_time() - cpu}
    return usage


def peak_memory() -> float:
    """Return the peak memory of this process, in GiB."""
    # getrusage would also count the memory that the parent process had when it started this one.
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 2**20


def launch_all(contender: str, data: Path, folder: Path) -> dict[str, float]:
    """Launch all nodes of a contender in this process.

    Args:
        contender: Name of the contender.
        data: Folder of the prepared data.
        folder: Empty folder for the run.

    Returns:
        Seconds of each node and in sum, and the peak memory of this process in GiB.
    """
    usage = launch_nodes(*CONTENDERS[contender](data, folder), folder)
    seconds = {name: used["seconds"] for name, used in usage.items()}
    sums = {ALIKE: sum(seconds[name] for name in ("ImportExampleGen", "StatisticsGen", "Transform"))}
    if contender == "ours":
        sums[WHOLE] = sum(seconds.values())
    return seconds | sums | {PEAK: peak_memory()}


def call_alone(script: str, *arguments: str) -> Any:
    """Run a script in a new process and an empty folder, and return its output, parsed as JSON.

    Args:
        script: Path of the script. It gets the arguments and the folder, and may write a file `log` there.
        arguments: Arguments of the script.
    """
    with tempfile.TemporaryDirectory() as folder:
        # TMPDIR is in the folder, because Beam does not remove its temporary folders.
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TMPDIR": folder}
        command = [sys.executable, script, *arguments, folder]
        child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if child.returncode:
            sys.exit(Path(folder, "log").read_text()[-5000:])
    print(f"{', '.join(arguments)}: {child.stdout.strip()}", file=sys.stderr)
    return json.loads(child.stdout)


def measure(contender: str, data: Path) -> dict[str, float]:
    """Call `launch_all` in a new process and return its result.

    Args:
        contender: Name of the contender.
        data: Folder of the prepared data.
    """
    return call_alone(__file__, "--launch", contender, str(data))


def grow(data: Path, out: Path, times: int) -> None:
    """Copy the first span, with every training image several times under different ids.

    Args:
        data: Folder of the prepared data.
        out: Folder to write to.
        times: Number of copies of each training image.
    """
    span, grown = span_folder(data, 1), span_folder(out, 1)
    shutil.copytree(span, grown, ignore=shutil.ignore_patterns("train"))
    shutil.copy(data / "schema.pbtxt", out)
    (grown / "train").mkdir()
    before = manifest.read(span)
    shards = {name: shard for name, shard in before.shards.items() if not name.startswith("train/")}
    for name in sorted(before.shards.keys() - shards.keys()):
        examples = [tfrecord.parse(record) for record in tfrecord.read(span / name)]
        for copy in range(times):
            records = [
                tfrecord.example(example.image, example.label, example.id + f"#{copy}".encode()) for example in examples
            ]
            content = b"".join(map(tfrecord.frame, records))
            copy_name = name.replace("part-", f"part-{copy}-")
            (grown / copy_name).write_bytes(content)
            shards[copy_name] = manifest.Shard(examples=len(records), sha256=hashlib.sha256(content).hexdigest())
    train = {name: count * times for name, count in before.counts["train"].items()}
    manifest.write(before.model_copy(update={"shards": shards, "counts": before.counts | {"train": train}}), grown)


def print_table(columns: dict[str, list[dict[str, float]]]) -> None:
    """Print median, minimum and maximum of the runs in two columns, and the ratio of the second median to the first."""
    print(f"| {'seconds':43} | {' | '.join(f'{name:20}' for name in columns)} | ratio |")
    print(f"| {'-' * 43} | {'-' * 20} | {'-' * 20} | ----- |")
    last = (ALIKE, WHOLE, PEAK)
    rows = []
    nodes = dict.fromkeys(name for runs in columns.values() for name in runs[0] if name not in last)
    for name in (*nodes, *last):
        digits = 2 if name == PEAK else 1
        values = [[run[name] for run in runs if name in run] for runs in columns.values()]
        figures = [[f"{f(column):.{digits}f}" for f in (median, min, max)] if column else [] for column in values]
        cells = [f"{'{} ({}-{})'.format(*three) if three else '-':>20}" for three in figures]
        ratio = f"{median(values[1]) / median(values[0]):.2f}" if all(values) else "-"
        print(f"| {name:43} | {' | '.join(cells)} | {ratio:>5} |")
        rows.append([name, *map(str.strip, cells), ratio])
    record.write("data", ["seconds", *columns, "ratio"], rows, "Medians (least-most).")


def main(data: str = "data/sample", repeats: str = "3", times: str = "") -> None:
    """Measure and print the table.

    Args:
        data: Folder of the prepared data.
        repeats: Number of rounds, or `--times`.
        times: Number of copies of each training image, after `--times`.
    """
    folder = Path(data).resolve()
    if repeats == "--times":
        with tempfile.TemporaryDirectory() as grown:
            grow(folder, Path(grown), int(times))
            columns = {"once": [measure("ours", folder)], f"{times} times": [measure("ours", Path(grown))]}
    else:
        columns = {name: [] for name in CONTENDERS}
        for _ in range(int(repeats)):  # the pipelines alternate, so that changes of the machine's load affect both
            for name, runs in columns.items():
                runs.append(measure(name, folder))
    print_table(columns)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--launch"]:
        contender, data, folder = sys.argv[2:]
        with redirected(Path(folder, "log")):
            result = launch_all(contender, Path(data), Path(folder))
        print(json.dumps(result))
    else:
        main(*sys.argv[1:])
