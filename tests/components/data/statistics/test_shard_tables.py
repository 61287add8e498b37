"""Tables of shards, measured once and used by several runs."""

from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from components.data.ingest import tfrecord
from components.data.statistics.measure import ROW, measure_shard
from components.data.statistics.shard_tables import write_table
from components.errors import DataRefused
from tests.helpers.spans import encoded, picture
from trainer.framing import Framing

MEASURE = partial(measure_shard, framing=Framing.of({"image_size": 32}))


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "part-00000-of-00001.tfrecord"
    path.write_bytes(b"".join(tfrecord.frame(tfrecord.example(encoded(picture(n)), n, b"%d" % n)) for n in range(3)))
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "measured").mkdir()
    return tmp_path


def write(folder, shard, name, key="", measure=MEASURE, split="train"):
    """Write the table of a shard as a run would, and return its file."""
    target = folder / name
    target.mkdir(exist_ok=True)
    write_table((split, str(shard)), measure, ROW, key, str(folder / "measured"), str(target))
    [file] = target.glob("*.parquet")
    return file


def not_again(source):
    raise AssertionError("the shard is measured again")


def test_a_shard_is_measured_once(folder, shard):
    first = write(folder, shard, "first")
    second = write(folder, shard, "second", measure=not_again)
    assert pq.read_table(first)["id"].to_pylist() == [b"0", b"1", b"2"]
    assert second.samefile(first) and second.stat().st_nlink == 3
    assert write(folder, shard, "second", measure=not_again) == second  # another attempt


@pytest.mark.parametrize("changed", ["key", "split", "shard"])
def test_another_shard_split_or_key_is_measured(folder, shard, changed):
    first = write(folder, shard, "first")
    if changed == "shard":
        shard.write_bytes(tfrecord.frame(tfrecord.example(encoded(picture(9)), 9, b"9")))
    second = write(
        folder, shard, "second", key="other" * (changed == "key"), split="val" if changed == "split" else "train"
    )
    assert not second.samefile(first)
    assert pq.read_table(second)["split"].to_pylist()[0] == ("val" if changed == "split" else "train")


def test_nothing_is_kept_of_a_shard_that_cannot_be_measured(folder, shard):
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(DataRefused):
        write(folder, shard, "first")
    assert not list((folder / "measured").iterdir())
    assert not list((folder / "first").iterdir())


def test_on_another_disk_the_table_is_copied(folder, shard, tmp_path_factory):
    shm = Path("/dev/shm")
    if not shm.is_dir() or shm.stat().st_dev == folder.stat().st_dev:
        pytest.skip("there is no second file system")
    other = Path(f"/dev/shm/{folder.name}-table")
    other.mkdir()
    try:
        write_table(("train", str(shard)), MEASURE, ROW, "", str(folder / "measured"), str(other))
        [file] = other.iterdir()
        assert file.stat().st_nlink == 1
        assert pq.read_table(file)["id"].to_pylist() == [b"0", b"1", b"2"]
    finally:
        for file in other.iterdir():
            file.unlink()
        other.rmdir()
