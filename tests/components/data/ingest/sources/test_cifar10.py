import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from components.data.ingest import schema, tfrecord
from components.data.ingest.manifest import Recipe
from components.data.ingest.source import RejectedRecord, no_progress
from components.data.ingest.sources.cifar10 import CLASS_NAMES, Archive, open_source
from components.data.ingest.write import write
from components.errors import DataRefused
from trainer.examples import class_names

NAMES_FILE = ("\n".join(CLASS_NAMES) + "\n\n").encode()
TOP = "cifar-10-batches-bin"


def batch(seed: int, labels: range | list[int]) -> bytes:
    random = np.random.default_rng(seed)
    return b"".join(bytes([label]) + random.bytes(3072) for label in labels)


@pytest.fixture
def official(in_archive, tmp_path):
    """A small archive in the official layout and order, and its description."""
    members = {f"{TOP}/data_batch_1.bin": batch(1, range(10)), f"{TOP}/batches.meta.txt": NAMES_FILE}
    members |= {f"{TOP}/data_batch_{n}.bin": batch(n, range(10)) for n in (3, 4)}
    members |= {f"{TOP}/test_batch.bin": batch(0, range(10)), f"{TOP}/readme.html": b"<p>"}
    members |= {f"{TOP}/data_batch_{n}.bin": batch(n, range(10)) for n in (5, 2)}
    return described(in_archive(tmp_path / "cifar-10-binary.tar.gz", members), 60)


def described(path, images):
    data = path.read_bytes()
    archive = Archive("http://host/cifar-10-binary.tar.gz", len(data), hashlib.sha256(data).hexdigest(), images)
    return path, archive


def open_at(path, archive, tmp_path):
    return open_source(str(path), tmp_path / "cache", no_progress, archive)


def test_binary_archive(official, tmp_path):
    source = open_at(*official, tmp_path)
    assert (source.class_names, source.total, source.sha256) == (CLASS_NAMES, 60, official[1].sha256)
    records = list(source.records())
    assert [record.split for record in records].count("test") == 10
    record = next(record for record in records if record.id == b"data_batch_3.bin:7")
    assert (record.split, record.class_name) == ("train", "horse")
    raw = np.frombuffer(batch(3, range(10)), np.uint8).reshape(10, 3073)[7, 1:]
    pixels = np.asarray(Image.open(io.BytesIO(record.image)))
    assert pixels.shape == (32, 32, 3)
    assert (pixels[:, :, 0].ravel() == raw[:1024]).all() and (pixels[:, :, 2].ravel() == raw[2048:]).all()


def test_span_of_the_binary_archive(official, tmp_path):
    manifest = write("cifar10", open_at(*official, tmp_path), tmp_path / "out", None, Recipe())
    assert [manifest.examples(split) for split in ("train", "val", "test")] == [40, 10, 10]
    assert class_names(schema.read(tmp_path / "out")) == list(CLASS_NAMES)
    (shard,) = (tmp_path / "out" / "span-1" / "test").iterdir()
    assert sorted(tfrecord.parse(record).label for record in tfrecord.read(shard)) == list(range(10))


def test_label_out_of_range(in_archive, tmp_path):
    members = {f"{TOP}/batches.meta.txt": NAMES_FILE, f"{TOP}/data_batch_1.bin": batch(1, [3, 10, 255])}
    source = open_at(*described(in_archive(tmp_path / "x.tar.gz", members), 3), tmp_path)
    assert list(source.records())[1:] == [
        RejectedRecord(f"data_batch_1.bin:{row}".encode(), "label not from 0 to 9") for row in (1, 2)
    ]


def test_batch_that_ends_inside_a_record(in_archive, tmp_path):
    members = {f"{TOP}/batches.meta.txt": NAMES_FILE, f"{TOP}/data_batch_1.bin": batch(1, [3])[:-1]}
    source = open_at(*described(in_archive(tmp_path / "x.tar.gz", members), 3), tmp_path)
    with pytest.raises(DataRefused, match=r"bin: 3,072 bytes are not a whole number of 3073-byte records"):
        list(source.records())


@pytest.mark.parametrize("name", ["cifar-10-binary.tar.gz", "renamed.tar.gz"])
@pytest.mark.parametrize("change", [lambda data: data[:-200], lambda data: data[:-9] + b"x" + data[-8:]])
def test_altered_archive(official, tmp_path, name, change):
    path, archive = official
    altered = tmp_path / "altered" / name
    altered.parent.mkdir()
    altered.write_bytes(change(path.read_bytes()))
    with pytest.raises(DataRefused) as raised:
        open_at(altered, archive, tmp_path)
    assert archive.sha256 in str(raised.value)
    assert hashlib.sha256(altered.read_bytes()).hexdigest() in str(raised.value)


def folder_of(names, image):
    return {
        f"{split}/{name}/{row}.png": image(row) for split in ("train", "test") for name in names for row in range(2)
    }


@pytest.mark.parametrize("ending", [None, "tar", "tar.gz", "tar.xz"])
def test_image_folder(image, in_folder, in_archive, tmp_path, official, ending):
    files = folder_of(CLASS_NAMES, image)
    path = in_archive(tmp_path / f"x.{ending}", files) if ending else in_folder(tmp_path / "x", files)
    manifest = write("cifar10", open_at(path, official[1], tmp_path), tmp_path / "out", None, Recipe())
    assert manifest.class_names == CLASS_NAMES
    assert [manifest.examples(split) for split in ("train", "val", "test")] == [10, 10, 20]


def test_image_folder_of_other_classes(image, in_folder, official, tmp_path):
    path = in_folder(tmp_path / "x", folder_of((*CLASS_NAMES[:-1], "lorry"), image))
    with pytest.raises(DataRefused, match=r"x: missing classes \['truck'\], unexpected classes \['lorry'\]"):
        write("cifar10", open_at(path, official[1], tmp_path), tmp_path / "out", None, Recipe())
