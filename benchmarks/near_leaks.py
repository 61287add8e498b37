"""How many of CIFAR-10's known near-duplicates between test and train our rule finds, beside other rules.

    python benchmarks/near_leaks.py data/cifar10/span-1 duplicates_cifar10.csv [labels.npz]

The pairs are those that people confirmed for ciFAIR (Barz and Denzler, 2020): `meta/duplicates_cifar10.csv` of its
repository, with images by their number in the official files. A span from the official archive carries these numbers in
its ids. For one from an image folder, whose files are numbered within their class, `labels.npz` must hold the labels in
the official order, as `train` and `test`.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import csv
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

from components.data.ingest import tfrecord
from components.data.ingest.images import open_image
from components.data.ingest.sources.cifar10 import CLASS_NAMES
from components.data.statistics.perceptual import CORRELATION, DISTANCE, close_pairs, edge_correlation, phash, thumbnail

NEAR = "1"  # ciFAIR's judgement of a near-duplicate; 2 is "similar"


def main(span: str, duplicates: str, labels: str = "") -> None:
    official = _numbers_within_classes(labels) if labels else {}
    thumbnails = {"train": np.zeros((50_000, 32, 32), np.uint8), "test": np.zeros((10_000, 32, 32), np.uint8)}
    for shard in sorted(Path(span).glob("*/part-*")):
        for record in tfrecord.read(shard):
            example = tfrecord.parse(record)
            split, number = _place(example.id.decode(), official)
            thumbnails[split][number] = thumbnail(open_image(example.image))
    with Path(duplicates).open() as file:
        near = {int(row["TestID"]) for row in csv.DictReader(file) if row["Judgment"] == NEAR}

    hashes = {split: phash(images) for split, images in thumbnails.items()}
    print(f"{len(near)} test images have a near-duplicate in train, says ciFAIR")
    rows = []
    print("distance  edges  test images flagged  of ciFAIR's found  share")
    for distance in (2, 4, 6, 8, DISTANCE, 12):
        i, j = close_pairs(hashes["test"], hashes["train"], distance)
        blocks = range(0, len(i), 10_000)
        correlation = [
            edge_correlation(thumbnails["test"][i[at : at + 10_000]], thumbnails["train"][j[at : at + 10_000]])
            for at in blocks
        ]
        for edges in (None, CORRELATION):
            flagged = set(i if edges is None else i[np.concatenate(correlation) >= edges])
            found = len(flagged & near)
            rule = "any" if edges is None else f"{edges:.2f}"
            print(f"{distance:8}  {rule:>5}  {len(flagged):19,}  {found:17}  {found / len(near):5.2f}")
            rows.append([distance, rule, f"{len(flagged):,}", found, f"{found / len(near):.2f}"])
    record.write("near leaks", ["distance", "edges", "test images flagged", "of ciFAIR's found", "share"], rows)


def _numbers_within_classes(labels: str) -> dict[tuple[str, str], list[int]]:
    """The official numbers of the images of each split and class, in order."""
    numbers = defaultdict(list)
    with np.load(labels) as of:
        for split in ("train", "test"):
            for number, label in enumerate(of[split]):
                numbers[split, CLASS_NAMES[label]].append(number)
    return numbers


def _place(id: str, official: dict[tuple[str, str], list[int]]) -> tuple[str, int]:
    """Split and official number of `test_batch.bin:7`, `data_batch_2.bin:7` or `train/cat/0007.jpg`."""
    batch, colon, row = id.partition(".bin:")
    if colon:
        return ("test", int(row)) if batch == "test_batch" else ("train", 10_000 * (int(batch[-1]) - 1) + int(row))
    split, name, file = id.split("/")[-3:]
    return split, official[split, name][int(Path(file).stem)]


if __name__ == "__main__":
    main(*sys.argv[1:])
