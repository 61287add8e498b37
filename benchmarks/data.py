"""How fast the data half of the pipeline is and how much memory it takes, beside how TFX's examples write it.

    python benchmarks/data.py                           # the sample, where `make run` prepared it
    python benchmarks/data.py data/cifar10              # ours and theirs in turn, three rounds; or give their number
    python benchmarks/data.py data/cifar10 --times 6    # ours alone, and ours with every training image six times

"ours" is the graph of `pipeline/graph.py` up to Transform, without the resolver Baseline, with `cifar10-cpu`'s
settings. "naive" is ImportExampleGen, StatisticsGen, SchemaGen and Transform as TFX's examples for images have them:
nothing is told to TFX but where the data lie, and Transform puts out float32 pixels from 0 to 1, which take
12 KiB for an image of 32x32. Both start from the same shards and give Beam the same arguments.

Each run is a process of its own with an empty folder, so that no node finds its result in a cache. Seconds are those of
the launches of the nodes, without the import of TFX; peak memory is that of the process, TFX in it.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import record

from components.data.ingest import manifest, span_folder, tfrecord
from pipeline.console.logs import redirected

ROOT = Path(__file__).resolve().parents[1]
SIZE = 32  # pixels a side that the model of cifar10-cpu sees
ALIKE = "ingestion + StatisticsGen + Transform"
WHOLE = "ImportExampleGen to DataGate, and Transform"
PEAK = "peak memory, GiB"


def ours(data: Path, folder: Path):
    """The compiled graph and the nodes to launch, in order."""
    from pipeline.graph import compile_graph
    from pipeline.settings import load

    # Whatever the data are like, and images that are there several times, Transform shall run.
    gate = ["data_gate.duplicates.stop=null", "data_gate.near_leaks.stop=null"]
    settings = load("cifar10-cpu", [f"runs={folder}", f"data.dir={data}", *gate], {})
    ir = compile_graph(settings, span=1)
    names = [node.pipeline_node.node_info.id for node in ir.nodes]
    return ir, [name for name in names[: names.index("Transform") + 1] if name != "Baseline"]


def naive(data: Path, folder: Path):
    """The same of a pipeline as in TFX's examples."""
    from tfx.components import ImportExampleGen, SchemaGen, StatisticsGen, Transform
    from tfx.dsl.compiler.compiler import Compiler
    from tfx.orchestration.pipeline import Pipeline
    from tfx.proto import example_gen_pb2

    splits = [example_gen_pb2.Input.Split(name=name, pattern=f"span-1/{name}/part-*") for name in ("train", "val")]
    example_gen = ImportExampleGen(input_base=str(data), input_config=example_gen_pb2.Input(splits=splits))
    examples = example_gen.outputs["examples"]
    statistics = StatisticsGen(examples=examples)
    schema = SchemaGen(statistics=statistics.outputs["statistics"], infer_feature_shape=True)
    # Python finds this file as `data`: its folder comes first on the path of a script.
    transform = Transform(examples, schema.outputs["schema"], preprocessing_fn="data.preprocessing_fn")
    pipeline = Pipeline(
        pipeline_name="naive",
        pipeline_root=str(folder / "root"),
        components=[example_gen, statistics, schema, transform],
        beam_pipeline_args=["--direct_running_mode=in_memory", f"--setup_file={ROOT / 'setup.py'}"],  # as ours has them
    )
    ir = Compiler().compile(pipeline)
    return ir, [node.pipeline_node.node_info.id for node in ir.nodes]


def preprocessing_fn(inputs: dict) -> dict:
    """TFX's example for CIFAR-10, but for the size that its pre-trained model wanted."""
    import tensorflow as tf

    images = tf.map_fn(lambda x: tf.io.decode_png(x[0], channels=3), inputs["image"], fn_output_signature=tf.uint8)
    images = tf.image.resize(images, [SIZE, SIZE])  # float32 from here on
    return {"image_xf": images / 255.0, "label_xf": inputs["label"]}


CONTENDERS = {"ours": ours, "naive": naive}


def launch_all(contender: str, data: Path, folder: Path) -> dict[str, float]:
    """Seconds by node and in sum, and the peak memory of this process."""
    from tfx.orchestration.portable import runtime_parameter_utils

    from pipeline import node
    from pipeline.metadata.address import Address

    ir, names = CONTENDERS[contender](data, folder)
    runtime_parameter_utils.substitute_runtime_parameter(ir, {"pipeline-run-id": "benchmark"})
    connection = Address(file=folder / "metadata.db").connection_config()
    seconds = {}
    for name in names:
        outcome = node.launch(ir, name, connection)
        if outcome.state is not node.State.COMPLETE:
            raise RuntimeError(f"{contender}: {name} is {outcome.state}, not complete: {outcome.error}")
        seconds[name] = outcome.seconds
    sums = {ALIKE: sum(seconds[name] for name in ("ImportExampleGen", "StatisticsGen", "Transform"))}
    if contender == "ours":
        sums[WHOLE] = sum(seconds.values())
    return seconds | sums | {PEAK: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}  # Linux counts in KiB


def measure(contender: str, data: Path) -> dict[str, float]:
    """The result of `launch_all` in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--launch", contender, str(data), folder]
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TMPDIR": folder}  # Beam leaves folders behind
        child = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True)
        if child.returncode:
            sys.exit(Path(folder, "log").read_text()[-5000:])
    print(f"{contender}, {data}: {child.stdout.strip()}", file=sys.stderr)
    return json.loads(child.stdout)


def grow(data: Path, out: Path, times: int) -> None:
    """Write the first span of `data` once more, with every training image `times` times under ids of their own."""
    span, grown = span_folder(data, 1), span_folder(out, 1)
    shutil.copytree(span, grown, ignore=shutil.ignore_patterns("train"))
    shutil.copy(data / "schema.pbtxt", out)
    (grown / "train").mkdir()
    before = manifest.read(span)
    shards = {name: shard for name, shard in before.shards.items() if not name.startswith("train/")}
    for name in sorted(before.shards.keys() - shards.keys()):
        examples = [tfrecord.parse(record) for record in tfrecord.read(span / name)]
        for copy in range(times):
            records = [tfrecord.example(one.image, one.label, one.id + f"#{copy}".encode()) for one in examples]
            content = b"".join(map(tfrecord.frame, records))
            copy_name = name.replace("part-", f"part-{copy}-")
            (grown / copy_name).write_bytes(content)
            shards[copy_name] = manifest.Shard(examples=len(records), sha256=hashlib.sha256(content).hexdigest())
    train = {name: count * times for name, count in before.counts["train"].items()}
    manifest.write(before.model_copy(update={"shards": shards, "counts": before.counts | {"train": train}}), grown)


def print_table(columns: dict[str, list[dict[str, float]]]) -> None:
    """Median, least and most of the runs in each of two columns, and the second median in terms of the first."""
    print(f"| {'seconds':43} | {' | '.join(f'{name:20}' for name in columns)} | ratio |")
    print(f"| {'-' * 43} | {'-' * 20} | {'-' * 20} | ----- |")
    last = (ALIKE, WHOLE, PEAK)
    rows = []
    nodes = dict.fromkeys(name for runs in columns.values() for name in runs[0] if name not in last)
    for name in (*nodes, *last):
        digits = 2 if name == PEAK else 1
        found = [[run[name] for run in runs if name in run] for runs in columns.values()]
        figures = [[f"{f(values):.{digits}f}" for f in (median, min, max)] if values else [] for values in found]
        cells = [f"{'{} ({}-{})'.format(*three) if three else '-':>20}" for three in figures]
        ratio = f"{median(found[1]) / median(found[0]):.2f}" if all(found) else "-"
        print(f"| {name:43} | {' | '.join(cells)} | {ratio:>5} |")
        rows.append([name, *map(str.strip, cells), ratio])
    record.write("data", ["seconds", *columns, "ratio"], rows, "Medians (least-most).")


def main(data: str = "data/sample", repeats: str = "3", times: str = "") -> None:
    folder = Path(data).resolve()
    if repeats == "--times":
        with tempfile.TemporaryDirectory() as grown:
            grow(folder, Path(grown), int(times))
            columns = {"once": [measure("ours", folder)], f"{times} times": [measure("ours", Path(grown))]}
    else:
        columns = {name: [] for name in CONTENDERS}
        for _ in range(int(repeats)):  # in turn: what changes on the machine meets both
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
