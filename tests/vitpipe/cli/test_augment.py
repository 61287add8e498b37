"""The command `vitpipe augment`."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from components.data import ingest
from components.errors import SettingsError
from vitpipe.cli import app

CLASSES = ["cat", "dog", "ox"]
SMALL = ["-c", "cifar10", "--set", "model.image_size=8"]
PLAIN = [
    "crop_padding=0",
    "flip=false",
    "randaugment_ops=0",
    "erase=0",
    "mixup=0",
    "cutmix=0",
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Return a data folder with 24 training images of three classes. Each image has a single colour of its own."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("data")
    for number in range(30):
        path = source / CLASSES[number % 3] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), number * 8, "uint8")).save(path)
    ingest.prepare("images", out, str(source))
    return out


def sheet(data, out, *arguments) -> np.ndarray:
    result = CliRunner().invoke(app, ["augment", *SMALL, "--data", str(data), "--out", str(out), *arguments])
    assert result.exception is None, result.exception
    assert result.stdout == f"{out}\n"
    return np.array(Image.open(out))


def tiles(picture):
    """Cut a sheet into its tiles [rows, columns, 96, 96, 3]."""
    return np.array(
        [[picture[20 + row * 130 :, 6 + column * 102 :][:96, :96] for column in range(10)] for row in range(8)]
    )


def test_without_augmentation_every_column_shows_the_originals(data, tmp_path):
    settings = [argument for part in PLAIN for argument in ("--set", f"augment.{part}")]
    drawn = tiles(sheet(data, tmp_path / "new" / "plain.png", *settings))
    assert (drawn == drawn[:, :1, :1, :1]).all()
    greys = drawn[:, 0, 0, 0, 0]
    assert len({*greys}) == 8
    classes = greys // 8 % 3
    assert {*classes[:3]} == {*classes[3:6]} == {0, 1, 2}  # the classes take turns


def test_each_column_is_another_version_and_the_seed_reproduces_it(data, tmp_path):
    picture = sheet(data, tmp_path / "one.png")
    drawn = tiles(picture)
    assert (drawn[:, 0] == drawn[:, 0, :1, :1]).all()
    assert len({drawn[:, column].tobytes() for column in range(10)}) == 10
    np.testing.assert_array_equal(sheet(data, tmp_path / "two.png"), picture)
    assert (sheet(data, tmp_path / "three.png", "--set", "training.seed=1") != picture).any()


def test_only_the_last_columns_are_mixed(data, tmp_path):
    mixup = [argument for part in [*PLAIN, "mixup=1"] for argument in ("--set", f"augment.{part}")]
    drawn = tiles(sheet(data, tmp_path / "mixed.png", *mixup))
    assert (drawn[:, :7] == drawn[:, :1]).all()
    greys = drawn[:, :, 0, 0, 0].astype(int)
    for first, second in zip(greys[::2], greys[1::2], strict=True):
        low, high = min(first[0], second[0]), max(first[0], second[0])
        assert (np.concatenate([first, second]) >= low).all() and (np.concatenate([first, second]) <= high).all()
        assert (first[7:] != first[0]).any()


@pytest.fixture(scope="module")
def gradients(tmp_path_factory) -> Path:
    """Return a data folder with images that become brighter from left to right and from top to bottom."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("data")
    rows, columns = np.mgrid[:64, :64]
    for number in range(20):
        path = source / CLASSES[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        image = np.stack([rows * 2, columns * 3, np.full_like(rows, 10 * number)], axis=-1)
        Image.fromarray(image.astype("uint8")).save(path)
    ingest.prepare("images", out, str(source))
    return out


def test_resized_crops_are_cut_from_the_stored_images_and_large_images_are_reduced(gradients, tmp_path):
    crops = ["crop_padding=0", "resized_crop_scale=[0.2, 0.3]", "stored_size=320", "flip=false", "mixup=0", "cutmix=0"]
    crops = [*crops, "randaugment_ops=0", "erase=0"]
    settings = [argument for part in crops for argument in ("--set", f"augment.{part}")]
    size = ["--set", "model.image_size=256", "--set", "model.patch_size=16"]
    picture = sheet(gradients, tmp_path / "crops.png", *size, *settings)
    assert picture.shape == (20 + 8 * 258, 6 + 10 * 230, 3)
    drawn = np.array([picture[20:, 6 + column * 230 :][:224, :224] for column in range(10)]).astype(int)
    ranges = drawn.max(axis=(1, 2)) - drawn.min(axis=(1, 2))
    assert ranges[0].tolist() == pytest.approx([126, 189, 0], abs=2)
    # A crop of a fifth to a third of the area shows about half of each gradient, and keeps the constant channel.
    assert (ranges[1:, 0] < 90).all() and (ranges[1:, 1] < 130).all() and (ranges[1:, :2] > 40).all()
    assert (drawn[..., 2] == drawn[0, 0, 0, 2]).all()
    assert len({tile.tobytes() for tile in drawn}) == 10


def test_missing_data_is_an_error_that_names_the_folder(tmp_path):
    result = CliRunner().invoke(app, ["augment", "--data", str(tmp_path)])
    assert isinstance(result.exception, SettingsError)
    assert f"no data in {tmp_path}: make some with" in str(result.exception)


@pytest.mark.parametrize("runs", ["file", "damaged"])
def test_a_broken_run_folder_does_not_matter(data, tmp_path, in_this_process, runs):
    (tmp_path / "file").write_text("kept")
    (tmp_path / "damaged" / "cifar10").mkdir(parents=True)
    (tmp_path / "damaged" / "cifar10" / "metadata.db").write_bytes(b"no database " * 999)
    done = in_this_process(tmp_path, "augment", *SMALL, "--set", f"runs={runs}", "--data", data, "--out", "sheet.png")
    assert (done.returncode, done.stdout) == (0, "sheet.png\n"), done.stderr
    assert (tmp_path / "sheet.png").is_file() and (tmp_path / "file").read_text() == "kept"


def test_an_output_path_below_a_file_is_rejected(data, tmp_path, in_this_process):
    (tmp_path / "file").write_text("kept")
    done = in_this_process(tmp_path, "augment", *SMALL, "--data", data, "--out", "file/sheet.png")
    assert done.returncode == 2 and done.stderr.startswith("error: file") and done.stderr.count("\n") == 1, done.stderr
    assert "Name another path" in done.stderr and (tmp_path / "file").read_text() == "kept"
