"""Share of CIFAR-10's known near-duplicates between test and train that the data gate's rule and other rules find.

    python benchmarks/near_leaks.py data/cifar10/span-1 duplicates_cifar10.csv [labels.npz]

The pairs are those that people confirmed for ciFAIR (Barz and Denzler, 2020): `meta/duplicates_cifar10.csv` of its
repository, where images are numbered as in the official files. The ids of a span from the official archive contain
these numbers. The files of an image folder are numbered within their class. For a span from an image folder,
`labels.npz` must hold the labels in the official order, as `train` and `test`.

A rule flags a pair of images if their perceptual hashes differ in at most `distance` bits and the correlation of their
edges is at least `edges`. The data gate uses 10 and 0.40. The rules are applied to all pairs; the last line shows how
many of the gate's pairs its search by bands finds.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import record

from components.data.ingest import tfrecord
from components.data.ingest.images import as_seen, open_image
from components.data.ingest.sources.cifar10 import CLASS_NAMES
from components.data.statistics.candidates import DISTANCE, IMAGE, divide_by_bands, similar_pairs
from components.data.statistics.perceptual import CORRELATION, edge_correlation, phash, thumbnail

NEAR = "1"  # ciFAIR's judgment of a near-duplicate; 2 is "similar"


def main(span: str, duplicates: str, labels: str = "") -> None:
    """Measure the rules and print the table.

    Args:
        span: Folder of the span.
        duplicates: ciFAIR's list of duplicates, a CSV file.
        labels: Labels in the official order, a `.npz` file. Only needed for a span from an image folder.
    """
    official = _numbers_within_classes(labels) if labels else {}
    thumbnails = {"train": np.zeros((50_000, 32, 32), np.uint8), "test": np.zeros((10_000, 32, 32), np.uint8)}
    for shard in sorted(Path(span).glob("*/part-*")):
        for serialized in tfrecord.read(shard):
            example = tfrecord.parse(serialized)
            split, number = _place(example.id.decode(), official)
            thumbnails[split][number] = thumbnail(np.asarray(as_seen(open_image(example.image)).convert("L")))
    with Path(duplicates).open() as file:
        near = {int(row["TestID"]) for row in csv.DictReader(file) if row["Judgment"] == NEAR}

    hashes = {split: phash(images) for split, images in thumbnails.items()}
    print(f"according to ciFAIR, {len(near)} test images have a near-duplicate in train")
    rows = []
    print("distance  edges  test images flagged  of ciFAIR's found  share")
    for distance in (2, 4, 6, 8, DISTANCE, 12):
        i, j = _close_pairs(hashes["test"], hashes["train"], distance)
        blocks = range(0, len(i), 10_000)
        correlation = [
            edge_correlation(
                thumbnails["test"][i[start : start + 10_000]], thumbnails["train"][j[start : start + 10_000]]
            )
            for start in blocks
        ]
        for edges in (None, CORRELATION):
            flagged = set(i if edges is None else i[np.concatenate(correlation) >= edges])
            found = len(flagged & near)
            rule = "any" if edges is None else f"{edges:.2f}"
            print(f"{distance:8}  {rule:>5}  {len(flagged):19,}  {found:17}  {found / len(near):5.2f}")
            rows.append([distance, rule, f"{len(flagged):,}", found, f"{found / len(near):.2f}"])
        if distance == DISTANCE:
            gate = np.concatenate(correlation) >= CORRELATION
            pairs = {*zip(i[gate].tolist(), j[gate].tolist(), strict=True)}
    found = len(pairs & _pairs_by_bands(hashes))
    print(
        f"of the {len(pairs):,} pairs of the gate's rule, its search by bands finds {found:,}: {found / len(pairs):.4f}"
    )
    record.write("near leaks", ["distance", "edges", "test images flagged", "of ciFAIR's found", "share"], rows)


def _close_pairs(first: np.ndarray, second: np.ndarray, distance: int) -> tuple[np.ndarray, np.ndarray]:
    """Compare all hashes of `first` with all of `second`. Returns the indices of close pairs in both."""
    found = [np.zeros((2, 0), np.int64)]
    for start in range(0, len(first), 8):
        i, j = np.nonzero(np.bitwise_count(first[start : start + 8, None] ^ second) <= distance)
        found.append(np.stack([i + start, j]))
    i, j = np.concatenate(found, axis=1)
    return i, j


def _pairs_by_bands(hashes: dict[str, np.ndarray]) -> set[tuple[int, int]]:
    """Return the pairs of numbers of test and train that the search of the data gate finds."""
    count = len(hashes["test"])
    images = np.zeros(count + len(hashes["train"]), IMAGE)
    images["code"] = np.concatenate([hashes["test"], hashes["train"]])
    images["digest"] = [b"%d" % number for number in range(len(images))]
    images["split"][count:] = 1
    return {
        (min(pair), max(pair) - count)
        for _, part in divide_by_bands(images)
        for pairs in similar_pairs(part)
        for pair in pairs.astype(int).tolist()
    }


def _numbers_within_classes(labels: str) -> dict[tuple[str, str], list[int]]:
    """Return the official numbers of the images of each split and class, in order."""
    numbers = defaultdict(list)
    with np.load(labels) as archive:
        for split in ("train", "test"):
            for number, label in enumerate(archive[split]):
                numbers[split, CLASS_NAMES[label]].append(number)
    return numbers


def _place(id: str, official: dict[tuple[str, str], list[int]]) -> tuple[str, int]:
    """Return split and official number of an id: `test_batch.bin:7`, `data_batch_2.bin:7` or `train/cat/0007.jpg`."""
    batch, colon, row = id.partition(".bin:")
    if colon:
        return ("test", int(row)) if batch == "test_batch" else ("train", 10_000 * (int(batch[-1]) - 1) + int(row))
    split, name, file = id.split("/")[-3:]
    return split, official[split, name][int(Path(file).stem)]


if __name__ == "__main__":
    main(*sys.argv[1:])
