import os

import numpy as np
import pytest

from trainer.checkpoint import Checkpoints


def arrays(value):
    return {"model/0000-kernel": np.full((3, 2), value, "float32"), "steps": np.int32(value)}


@pytest.fixture
def checkpoints(tmp_path):
    return Checkpoints(tmp_path / "checkpoints" / "this")


def test_the_newest_checkpoint_is_read_back_unchanged(checkpoints):
    assert checkpoints.newest(like=arrays(0)) is None
    for epoch in (9, 10):
        checkpoints.save(epoch, arrays(epoch), {"history": [{"epoch": epoch}]})
    found = checkpoints.newest(like=arrays(0))
    assert (found.epoch, found.info) == (10, {"history": [{"epoch": 10}]})
    assert found.path == checkpoints.paths()[0]
    assert found.arrays.keys() == arrays(0).keys()
    np.testing.assert_array_equal(found.arrays["model/0000-kernel"], arrays(10)["model/0000-kernel"])
    assert found.arrays["steps"] == 10


def test_two_checkpoints_are_kept_and_no_temporary_files(checkpoints):
    checkpoints.folder.mkdir(parents=True)
    (checkpoints.folder / ".tmp-epoch-00001.npz").write_bytes(b"killed while it was written")
    for epoch in range(2, 6):
        checkpoints.save(epoch, arrays(epoch), {})
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["epoch-00004.npz", "epoch-00005.npz"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit_of_the_pixels(path):
    content = bytearray(path.read_bytes())
    content[content.index(np.full(6, 2, "float32").tobytes()) + 5] ^= 1
    path.write_bytes(content)


def claim_a_compression_that_nobody_knows(path):
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 10] = 77  # in the directory at the end
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, flip_a_bit_of_the_pixels, claim_a_compression_that_nobody_knows, empty])
def test_a_damaged_checkpoint_is_reported_and_the_older_one_used(checkpoints, caplog, damage):
    checkpoints.save(1, arrays(1), {})
    damage(checkpoints.save(2, arrays(2), {}))
    assert checkpoints.newest(like=arrays(0)).epoch == 1
    assert "epoch-00002.npz is damaged" in caplog.text


@pytest.mark.parametrize(
    ("foreign", "reason"),
    [
        (
            {"model/0000-kernel": np.zeros((3, 4), "float32"), "steps": np.int32(0)},
            r"float32 (3, 4), not float32 (3, 2)",
        ),
        ({"steps": np.int32(0)}, "missing or unexpected: model/0000-kernel"),
    ],
)
def test_a_checkpoint_of_another_training_is_reported_and_the_older_one_used(checkpoints, caplog, foreign, reason):
    checkpoints.save(1, arrays(1), {})
    checkpoints.save(2, foreign, {})
    assert checkpoints.newest(like=arrays(0)).epoch == 1
    assert "epoch-00002.npz belongs to another training" in caplog.text and reason in caplog.text


def test_pickled_objects_are_not_loaded(checkpoints, caplog):
    checkpoints.folder.mkdir(parents=True)
    np.savez(checkpoints.folder / "epoch-00001.npz", **arrays(1), info=np.array({"epoch": 1}, dtype=object))
    assert checkpoints.newest(like=arrays(0)) is None
    assert "damaged" in caplog.text and "allow_pickle" in caplog.text


def test_checkpoints_of_the_latest_other_trainings_are_kept(tmp_path):
    for age in range(6):
        Checkpoints(tmp_path / f"other-{age}").save(1, arrays(1), {})
        os.utime(tmp_path / f"other-{age}", (10_000 - age, 10_000 - age))
    Checkpoints(tmp_path / "this", others=3).save(1, arrays(1), {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other-0", "other-1", "other-2", "this"]
