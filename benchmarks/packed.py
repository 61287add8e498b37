"""The encoded images of a span in one file that numpy alone can read: 17.6 MiB for CIFAR-10 as JPEG images.

python benchmarks/packed.py data/cifar10/span-1 data/cifar10.npz
"""

from __future__ import annotations

import io
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

SPLITS = ("train", "val", "test")

Splits = dict[str, tuple[np.ndarray, np.ndarray]]  # images uint8 [N, height, width, 3] and labels int32 [N]


def pack(span: Path, out: Path) -> None:
    """Write all encoded images of a span to a file.

    Args:
        span: Folder of the span.
        out: The file, `NAME.npz`.
    """
    import tensorflow as tf

    from components.data.ingest import manifest, tfrecord
    from trainer.examples import IMAGE, LABEL

    images, labels, splits = [], [], []
    span_manifest = manifest.read(span)
    for name in sorted(span_manifest.shards):
        for record in tfrecord.read(span / name):
            feature = tf.train.Example.FromString(record).features.feature
            images.append(feature[IMAGE].bytes_list.value[0])
            labels.append(feature[LABEL].int64_list.value[0])
            splits.append(SPLITS.index(name.partition("/")[0]))
    # Most bytes of a JPEG as small as CIFAR-10's are tables that all files share, so compression saves two thirds.
    np.savez_compressed(
        out,
        encoded=np.frombuffer(b"".join(images), np.uint8),
        ends=np.cumsum([len(image) for image in images]),
        labels=np.array(labels, np.int32),
        splits=np.array(splits, np.uint8),
        class_names=np.array(span_manifest.class_names),
    )
    print(f"{len(images):,} images in {out}: {out.stat().st_size / 2**20:.1f} MiB")


def load(path: Path, most: int | None = None) -> Splits:
    """Decode the images that `pack` wrote.

    Args:
        path: The file.
        most: Number of images of each split to decode, from the first. None: all.
    """
    from PIL import Image

    try:
        with np.load(path, allow_pickle=False) as packed:
            encoded, ends, labels, splits = (packed[name] for name in ("encoded", "ends", "labels", "splits"))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        sys.exit(f"{path} holds no packed images ({error}): write them with benchmarks/packed.py")
    starts = np.append(0, ends[:-1])

    def decode(index: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(encoded[starts[index] : ends[index]])).convert("RGB"))

    chosen = {name: np.flatnonzero(splits == index)[:most] for index, name in enumerate(SPLITS)}
    with ThreadPoolExecutor() as pool:
        return {name: (np.stack(list(pool.map(decode, rows))), labels[rows]) for name, rows in chosen.items()}


if __name__ == "__main__":
    pack(*map(Path, sys.argv[1:]))
