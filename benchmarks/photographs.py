"""Time and memory of photographs: from a span to pixels, and from pixels to batches, compared with tf.data.

    python benchmarks/photographs.py                        # 1,000 and 3,000 photographs, three rounds
    python benchmarks/photographs.py 1000 3000 30000 --rounds 1
    python benchmarks/photographs.py --large                # one JPEG of 48 megapixels through `decode`

The photographs are made by `tests/helpers/photographs.py` and prepared as a span, which is not measured. The model's
images have 224x224 pixels.

- The nodes ImportExampleGen to DataGate, and Transform, as in `benchmarks/data.py`. They are compared with a bare pass
  of tf.data over the same shards, which decodes every image and resizes it with antialiasing.
- The input of the Trainer: the time until both splits are decoded, and the rate of batches after the first epoch. It is
  compared with tf.data, which decodes the images of each epoch again, or caches their pixels in memory.

Each measurement has its own process and an empty folder, and a round measures all of them in turn. Seconds do not
include imports.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import record
from data import call_alone, launch_nodes, ours, peak_memory

sys.path.append(str(Path(__file__).resolve().parents[1]))

from components.data import ingest
from components.data.ingest import manifest, span_folder
from components.data.ingest.source import SPLITS
from pipeline.console.logs import redirected
from tests.helpers.photographs import photograph, write_photographs

if TYPE_CHECKING:
    import tensorflow as tf
    from tfx.proto.orchestration.pipeline_pb2 import Pipeline

SIZE = 224  # pixels on a side of the model's images
BATCH = 64
STEPS = 200  # batches that are measured, of one or more epochs
LARGE = (8_000, 6_000)

# Names of the measurements. Each runs in its own process.
ALL = "ImportExampleGen to DataGate, and Transform"
BARE = "bare pass of tf.data"
TRAINER = "Trainer's input"
DECODING = "tf.data, decoding in each epoch"
CACHED = "tf.data, pixels cached in memory"

Measurement = dict[str, float]


def shards(data: Path, *splits: str) -> list[str]:
    """Return the shards of some splits of the first span."""
    return [str(path) for split in splits for path in sorted((span_folder(data, 1) / split).iterdir())]


def compile_for_photographs(data: Path, folder: Path) -> tuple[Pipeline, list[str]]:
    """Compile the graph for images of 224x224 pixels, as `ours` does."""
    return ours(data, folder, [f"model.image_size={SIZE}", "model.patch_size=16"])


def launch_to_transform(data: Path, folder: Path) -> Measurement:
    """Launch the nodes up to Transform.

    Args:
        data: Folder of the prepared data.
        folder: Empty folder for the run.

    Returns:
        Seconds and CPU seconds of each node and in sum, and the peak memory in GiB.
    """
    usage = launch_nodes(*compile_for_photographs(data, folder), folder)
    usage[ALL] = {unit: sum(used[unit] for used in usage.values()) for unit in ("seconds", "cpu")}
    flat = {f"{name}: {unit}": value for name, used in usage.items() for unit, value in used.items()}
    return flat | {"peak": peak_memory()}


def decode_images(records: tf.data.Dataset) -> tf.data.Dataset:
    """Decode raw examples and resize their images, as fast as tf.data can.

    Args:
        records: Serialized raw examples.

    Returns:
        Pixels, uint8 [224, 224, 3], and labels, in any order.
    """
    import tensorflow as tf

    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def decode(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        pixels = tf.image.resize(tf.io.decode_jpeg(example["image"], channels=3), (SIZE, SIZE), antialias=True)
        return tf.cast(tf.round(tf.clip_by_value(pixels, 0, 255)), tf.uint8), example["label"]

    return records.map(decode, tf.data.AUTOTUNE, deterministic=False)


def bare_pass(data: Path, folder: Path) -> Measurement:
    """Decode all images once with tf.data.

    Args:
        data: Folder of the prepared data.
        folder: Not used.

    Returns:
        Seconds, CPU seconds, and the peak memory in GiB.
    """
    import tensorflow as tf

    start, cpu = time.perf_counter(), time.process_time()
    for _ in decode_images(tf.data.TFRecordDataset(shards(data, *SPLITS))).batch(BATCH).prefetch(2):
        pass
    return {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "peak": peak_memory()}


def rate_after_first_epoch(batches: Iterable[object], steps: int) -> float:
    """Return the images per second of STEPS batches that follow a first epoch.

    Args:
        batches: Batches of BATCH images, without end.
        steps: Batches of an epoch.
    """
    iterator = iter(batches)
    for _ in range(steps):
        next(iterator)
    start = time.perf_counter()
    for _ in range(STEPS):
        next(iterator)
    return STEPS * BATCH / (time.perf_counter() - start)


def trainer_input(data: Path, folder: Path) -> Measurement:
    """Load both splits as the Trainer does, and make the batches of a training.

    Args:
        data: Folder of the prepared data.
        folder: Empty folder for a run, which writes the transform graph.

    Returns:
        Seconds and CPU seconds until the splits are loaded, images per second, and peak memory in GiB.
    """
    import tensorflow_transform as tft

    from trainer.augment import draws_per_image
    from trainer.input import Share, dataset, decode_by_graph, load, training_batches
    from trainer.settings import AugmentSettings

    launch_nodes(*compile_for_photographs(data, folder), folder)
    [transform_graph] = folder.glob("*/root/Transform/transform_graph/*")
    start, cpu = time.perf_counter(), time.process_time()
    transform = tft.TFTransformOutput(str(transform_graph))
    train, _ = (load(shards(data, split), decode_by_graph(transform), SIZE) for split in ("train", "val"))
    loaded = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    draws, share = draws_per_image(AugmentSettings()), Share(first=0, replicas=1, parts=1)
    batches = dataset(lambda: training_batches(train, BATCH, draws, 0, 0, share), train, BATCH, draws)
    return loaded | {"rate": rate_after_first_epoch(batches, len(train) // BATCH), "peak": peak_memory()}


def tf_data_input(data: Path, folder: Path, cache: bool = False) -> Measurement:
    """Make the batches of a training with tf.data.

    Args:
        data: Folder of the prepared data.
        folder: Not used.
        cache: Keep the pixels in memory. Otherwise each epoch decodes its images.

    Returns:
        Images per second, and the peak memory in GiB.
    """
    import tensorflow as tf

    count = manifest.read(span_folder(data, 1)).examples("train")
    records = tf.data.TFRecordDataset(shards(data, "train"))
    # Without a cache the encoded images are shuffled, because they need less memory than the pixels.
    images = decode_images(records).cache().shuffle(count) if cache else decode_images(records.shuffle(count))
    batches = images.repeat().batch(BATCH, drop_remainder=True).prefetch(4)
    return {"rate": rate_after_first_epoch(batches, count // BATCH), "peak": peak_memory()}


def decode_large(jpeg: Path, folder: Path) -> Measurement:
    """Decode a JPEG with the preprocessing of the model.

    Args:
        jpeg: The file.
        folder: Not used.

    Returns:
        Seconds of a call, and the peak memory in GiB before and after the calls.
    """
    import tensorflow as tf

    from trainer.framing import Framing
    from trainer.preprocessing import decode

    encoded = tf.constant(jpeg.read_bytes())
    traced = tf.function(lambda image: decode(image, Framing(SIZE)), input_signature=[tf.TensorSpec((), tf.string)])
    traced(tf.constant(photograph(0, 0)))
    before, seconds = peak_memory(), []
    for _ in range(5):
        start = time.perf_counter()
        traced(encoded)
        seconds.append(time.perf_counter() - start)
    return {"seconds": median(seconds), "before": before, "peak": peak_memory()}


PARTS: dict[str, Callable[[Path, Path], Measurement]] = {
    ALL: launch_to_transform,
    BARE: bare_pass,
    TRAINER: trainer_input,
    DECODING: tf_data_input,
    CACHED: partial(tf_data_input, cache=True),
}


def measure(count: int, rounds: int) -> dict[str, str]:
    """Make and prepare photographs, and measure every part in each round.

    Args:
        count: Number of photographs.
        rounds: Number of rounds.

    Returns:
        Cells of the table by the name of the row.
    """
    parts: dict[str, list[Measurement]] = {part: [] for part in PARTS}
    with tempfile.TemporaryDirectory() as folder:
        source, data = Path(folder, "photographs"), Path(folder, "data")
        write_photographs(source, count)
        kilobytes = sum(path.stat().st_size for path in source.rglob("*.jpg")) / count / 1000
        print(f"{count:,} photographs of {kilobytes:.1f} kB on average", file=sys.stderr)
        ingest.prepare("images", data, str(source))
        for _ in range(rounds):
            for part, measurements in parts.items():
                measurements.append(call_alone(__file__, "--part", part, str(data)))

    def values(part: str, name: str) -> list[float]:
        return [measurement[name] for measurement in parts[part]]

    def times(part: str, prefix: str = "") -> str:
        cpu = median(values(part, f"{prefix}cpu")) / count
        return f"{spread(values(part, f'{prefix}seconds'), 1)}; {cpu * 1000:.2f} ms"

    names = [name.removesuffix(": seconds") for name in parts[ALL][0] if name.endswith(": seconds")]
    seconds = {part: median(values(part, name)) for part, name in ((ALL, f"{ALL}: seconds"), (BARE, "seconds"))}
    rates = {part: values(part, "rate") for part in (TRAINER, DECODING, CACHED)}
    ratio = median(rates[TRAINER]) / max(median(rates[DECODING]), median(rates[CACHED]))
    return {
        **{name: times(ALL, f"{name}: ") for name in names},
        BARE: times(BARE),
        "ratio of these seconds": f"{seconds[ALL] / seconds[BARE]:.2f}",
        f"peak memory, GiB: {ALL}": spread(values(ALL, "peak"), 2),
        f"peak memory, GiB: {BARE}": spread(values(BARE, "peak"), 2),
        "Trainer: decode train and val": times(TRAINER),
        **{f"images/s of training batches: {part}": spread(rate, 0) for part, rate in rates.items()},
        "ratio to the better rate of tf.data": f"{ratio:.2f}",
    }


def spread(values: list[float], digits: int) -> str:
    """Return the median, and the least and the largest value if there are several.

    Args:
        values: The values.
        digits: Digits after the decimal point.
    """
    middle, least, most = (f"{statistic(values):,.{digits}f}" for statistic in (median, min, max))
    return middle if len(values) == 1 else f"{middle} ({least}-{most})"


def measure_large() -> list[list[str]]:
    """Return the rows of the table of the JPEG of 48 megapixels."""
    with tempfile.TemporaryDirectory() as folder:
        jpeg = Path(folder, "large.jpg")
        jpeg.write_bytes(photograph(0, 0, LARGE))
        megabytes = jpeg.stat().st_size / 1e6
        measured = call_alone(__file__, "--part", "large", str(jpeg))
    return [
        [f"JPEG of {LARGE[0]:,}x{LARGE[1]:,} pixels, MB", f"{megabytes:.1f}"],
        ["seconds of one decoding", f"{measured['seconds']:.2f}"],
        ["peak memory before, GiB", f"{measured['before']:.2f}"],
        ["peak memory after, GiB", f"{measured['peak']:.2f}"],
    ]


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("counts", type=int, nargs="*", default=[1_000, 3_000], help="numbers of photographs")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds")
    parser.add_argument("--large", action="store_true", help="decode one JPEG of 48 megapixels, and nothing else")
    args = parser.parse_args()
    if args.large:
        topic, note, columns, rows = "large photograph", "", ["figure", "value"], measure_large()
    else:
        tables = {f"{count:,}": measure(count, args.rounds) for count in args.counts}
        columns = ["seconds; CPU time of an image", *tables]
        rows = [[name, *(cells[name] for cells in tables.values())] for name in next(iter(tables.values()))]
        topic, note = "photographs", f"JPEGs of 500x375 pixels, rounds: {args.rounds}. Medians (least-most)."
    widths = [max(map(len, cells)) for cells in zip(columns, *rows, strict=True)]
    for line in (columns, ["-" * width for width in widths], *rows):
        print(f"| {' | '.join(map(str.ljust, line, widths))} |")
    record.write(topic, columns, rows, note)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        part, data, folder = sys.argv[2:]
        with redirected(Path(folder, "log")):
            result = {**PARTS, "large": decode_large}[part](Path(data), Path(folder))
        print(json.dumps(result))
    else:
        main()
