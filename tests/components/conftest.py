"""Fixtures that make small image sources."""

import io
import itertools
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from components.data.ingest import tfrecord

CLASSES = ("cat", "dog", "fox")


@pytest.fixture(scope="session")
def image() -> Callable[..., bytes]:
    """Function image(seed, size, format) that returns an encoded picture of noise, which depends on the seed."""

    def make(seed: int = 0, size: tuple[int, int] = (8, 8), format: str = "PNG") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, format)
        return out.getvalue()

    return make


@pytest.fixture(scope="session")
def files(image) -> dict[str, bytes]:
    """Image folder as {path: bytes}, with 20 training and 3 test images of each of three classes."""
    paths = [f"train/{name}/{row:02}.png" for name in CLASSES for row in range(20)]
    paths += [f"test/{name}/{row:02}.png" for name in CLASSES for row in range(3)]
    return {path: image(seed) for seed, path in enumerate(paths)}


@pytest.fixture
def folder(files, tmp_path) -> Path:
    """Folder on the disk with the content of `files`."""
    return write_folder(tmp_path / "source", files)


@pytest.fixture(scope="session")
def in_folder() -> Callable[[Path, dict[str, bytes]], Path]:
    """Function in_folder(root, {path: bytes}) that writes files into a folder."""
    return write_folder


@pytest.fixture(scope="session")
def in_archive() -> Callable[..., Path]:
    """Function in_archive(path, {path: bytes or TarInfo}) that packs files in the format of the path's ending."""
    return write_archive


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for path, data in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(data)
    return root


def write_archive(path: Path, files: dict[str, bytes | tarfile.TarInfo]) -> Path:
    packing = {"gz": "w:gz", "xz": "w:xz", "bz2": "w:bz2"}.get(path.suffix[1:], "w")
    with tarfile.open(path, packing) as tar:
        for name, data in files.items():
            if isinstance(data, tarfile.TarInfo):
                tar.addfile(data)
            else:
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture
def measured(tmp_path):
    """Function measured(split=[(image, label)]) that returns the table of images, with ids `<split>-<number>`."""
    from components.data.statistics.measure import measure_shard  # imports TensorFlow
    from trainer.framing import Framing

    def measure(**splits):
        tables = []
        for split, examples in splits.items():
            path = tmp_path / split
            records = [
                tfrecord.example(image, label, f"{split}-{n}".encode()) for n, (image, label) in enumerate(examples)
            ]
            path.write_bytes(b"".join(map(tfrecord.frame, records)))
            tables += [table.to_pandas() for table in measure_shard((split, str(path)), Framing(32))]
        return pd.concat(tables, ignore_index=True)

    return measure


@pytest.fixture
def summarized(tmp_path):
    """Function summarized(images, classes) that returns the artifact folder of a table of images, with its summary."""
    import apache_beam as beam

    from components.data.statistics.component import summarize
    from components.data.statistics.figures import TABLE

    numbers = itertools.count()

    def write(images, classes=CLASSES):
        folder = tmp_path / f"statistics-{next(numbers)}"
        (folder / TABLE).mkdir(parents=True)
        for part in range(2):
            images[part::2].to_parquet(folder / TABLE / f"part-{part}.parquet")
        with beam.Pipeline() as pipeline:
            summarize(pipeline, folder, [*classes], {"span": 3, "gate_span": 1, "image_size": 32})
        return folder

    return write


@pytest.fixture
def find(summarized):
    """Function find(images) that returns the twins and the conflicts in a table of images."""
    from components.data.statistics.component import CONFLICTS, TWINS

    def find(images):
        folder = summarized(images)
        return tuple(pd.read_parquet(folder / name).sort_values(["split", "id"]) for name in (TWINS, CONFLICTS))

    return find
