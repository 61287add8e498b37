"""Time of the data steps for a window of two spans that has moved by one span, with and without the run before.

    python benchmarks/window.py data/cifar10

The images of CIFAR-10 for training are divided into three spans. The steps run on the window of the spans 3 and 2 in a
run folder in which they ran on the spans 2 and 1 before, and in an empty one. They run in this process, so the seconds
do not include the import of TFX.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import os
import sys
import tempfile
from pathlib import Path

import record

from components.data.ingest import manifest, schema, span_folder
from components.data.ingest.manifest import Manifest
from pipeline.console.logs import redirected

SPANS = 3


def divide(source: Path, data: Path) -> None:
    """Write a span as several spans, of which each has a part of the shards of train and val, and all of test.

    Args:
        source: Folder of the span.
        data: Data folder to write.
    """
    whole = manifest.read(source)
    data.mkdir()
    (data / schema.NAME).write_bytes(schema.read_bytes(source.parent))
    for number in range(1, SPANS + 1):
        names = [
            name
            for split in ("train", "val", "test")
            for place, name in enumerate(sorted(name for name in whole.shards if name.startswith(f"{split}/")))
            if split == "test" or place % SPANS == number - 1
        ]
        folder = span_folder(data, number)
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            os.link(source / name, folder / name)
        part = {name: whole.shards[name] for name in names}
        manifest.write(
            whole.model_copy(update={"shards": part, "counts": counts(folder, whole), "history": None}), folder
        )


def counts(folder: Path, whole: Manifest) -> dict[str, dict[str, int]]:
    """Count the examples of a span by split and class."""
    from components.data.ingest import tfrecord

    found = {split: dict.fromkeys(whole.class_names, 0) for split in ("train", "val", "test")}
    for split, classes in found.items():
        for example in tfrecord.read_split(folder / split):
            classes[whole.class_names[example.label]] += 1
    return found


def run(data: Path, runs: Path, span: int) -> dict[str, float]:
    """Run the steps up to the data gate, and return the seconds of each.

    Args:
        data: The data folder.
        runs: Folder of the run folders.
        span: Newest span of the window.
    """
    from tfx.orchestration.portable import runtime_parameter_utils

    from pipeline import node
    from pipeline.graph import compile_graph
    from pipeline.metadata.address import Address
    from pipeline.outcome import NodeState
    from pipeline.settings import load

    changes = [f"runs={runs}", f"data.dir={data}", "data.window=2", "data_gate.near_leaks.stop=null"]
    settings = load("cifar10-cpu", changes, {})
    settings.folder.mkdir(parents=True, exist_ok=True)
    ir = compile_graph(settings, span)
    runtime_parameter_utils.substitute_runtime_parameter(ir, {"pipeline-run-id": f"span-{span}"})
    connection = Address(file=settings.folder / "metadata.db").connection_config()
    names = [found.pipeline_node.node_info.id for found in ir.nodes if found.WhichOneof("node") == "pipeline_node"]
    seconds = {}
    for name in names[: names.index("DataGate") + 1]:
        outcome = node.launch(ir, name, connection)
        if outcome.state is NodeState.FAILED:
            raise RuntimeError(f"{name} failed: {outcome.error}")
        seconds[name] = outcome.seconds
    return seconds


def main() -> None:
    """Measure and print the table."""
    source = span_folder(Path(sys.argv[1]).resolve(), 1)
    with tempfile.TemporaryDirectory(dir=source.parent) as scratch:  # on the same disk, for links to the shards
        folder = Path(scratch)
        divide(source, folder / "data")
        with redirected(folder / "log.txt"):
            run(folder / "data", folder / "moved", 2)
            moved = run(folder / "data", folder / "moved", 3)
            empty = run(folder / "data", folder / "empty", 3)
    columns = ["seconds", "empty run folder", "after the window before", "ratio"]
    rows = [
        [name, f"{empty[name]:.1f}", f"{moved[name]:.1f}", f"{moved[name] / empty[name]:.2f}"]
        for name in ("ImportExampleGen", "StatisticsGen", "ImageStatistics", "DataGate")
    ]
    for line in (columns, ["-"] * len(columns), *rows):
        print(f"| {' | '.join(line)} |")
    record.write("window", columns, rows)


if __name__ == "__main__":
    main()
