"""The command `vitpipe study`."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers.command import on_terminal, vitpipe

TINY = ["architectures=[vit-small]", "sizes=[4]", "steps=[2]", "seeds=1", "batch_size=8", "image_size=8"]


def study(data: Path, out: Path, *more: str) -> list[object]:
    return ["study", "data-regime", "--data", data, "--out", out, *(f"--set={flag}" for flag in TINY), *more]


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    """Return a data folder with 20 images of each of two classes."""
    root = tmp_path_factory.mktemp("pets")
    for seed in range(40):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = root / "images" / ("cat" if seed % 2 else "dog") / f"{seed}.png"
        path.parent.mkdir(exist_ok=True, parents=True)
        Image.fromarray(pixels).save(path)
    prepared = vitpipe(root, "data", "prepare", "images", "--source", root / "images", "--out", root / "data")
    assert not prepared.returncode, prepared.stderr
    return root / "data"


@pytest.mark.slow
def test_a_study_shows_its_progress_prints_a_table_and_is_not_computed_twice(pets, tmp_path):
    done, output = on_terminal(tmp_path, *study(pets, tmp_path / "out"), columns=200)
    assert not done.returncode, output
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", output)
    assert "vit-small, 4 a class, seed 0 " in text and re.search(r"done ━+ +0:\d\d:\d\d", text)
    assert re.search(r"1/1  vit-small, 4 a class, seed 0: \d+\.\d% in (\d+ min )?[\d.]+ s\s", text)
    assert "ViT, 4 blocks 64 wide" in done.stdout and done.stdout.splitlines()[-1] == "out/study.html"

    again = vitpipe(tmp_path, *study(pets, tmp_path / "out", "--json"))
    assert "1 of 1 cells are already trained" in again.stderr
    [row] = json.loads(again.stdout)["rows"]
    assert f"{row['accuracy']:.1%}" in done.stdout and row["steps"] == 2


def test_an_error_is_one_line(in_this_process, pets, tmp_path):
    (tmp_path / "file").touch()
    for arguments, message in (
        (study(pets, tmp_path / "file"), r"--out .*file cannot be written \(File exists\): name another folder"),
        (study(tmp_path / "none", tmp_path / "out"), r"no data in .*none: name a folder that `vitpipe data prepare`"),
        (study(pets, tmp_path / "out", "--budget=huge"), r"no budget huge: use one of small, full"),
        (study(pets, tmp_path / "out", "--set=learning_rates.vit-smal=1"), r"no architecture vit-smal"),
        (study(pets, tmp_path / "out", "--pretrained=nobody"), r"no backbone nobody"),
    ):
        refused = in_this_process(tmp_path, *arguments)
        assert refused.returncode == 2 and re.search(message, refused.stderr), refused.stderr
        assert "Traceback" not in refused.stderr
