"""The commands of `vitpipe data`."""

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data.ingest import manifest
from components.data.ingest.sources import SOURCES
from tests.helpers.command import on_terminal

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-m", "vitpipe", "data"]


@pytest.fixture
def vitpipe(in_this_process, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("NO_COLOR", "1")
    return lambda *arguments, cwd=ROOT: in_this_process(cwd, "data", *arguments)


@pytest.fixture(scope="module")
def pets(tmp_path_factory) -> Path:
    """Return an image folder without splits, with 10 images of each of two classes."""
    root = tmp_path_factory.mktemp("pets")
    for seed in range(20):
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = root / ("cat" if seed % 2 else "dog") / f"{seed}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    return root


def test_help_names_every_source(vitpipe):
    assert "{" + "|".join(SOURCES) + "}" in vitpipe("prepare", "--help").stdout


def test_prepare_twice_and_verify(vitpipe, pets, tmp_path):
    first = vitpipe("prepare", "images", "--source", pets, cwd=tmp_path)
    assert (first.returncode, first.stdout) == (
        0,
        "data/images/span-1: 12 train, 5 val, 3 test images of 2 classes in 3 shards\n",
    )
    assert first.stderr.splitlines()[:3] == ["files hashed: 20", "images read: 20/20", "images written: 20/20"]
    second = vitpipe("prepare", "images", "--source", pets, cwd=tmp_path)
    assert (second.returncode, second.stdout) == (
        0,
        "span-1 is already there and unchanged: data/images/span-1\n",
    )
    verified = vitpipe("verify", tmp_path / "data" / "images")
    assert (verified.returncode, len(verified.stdout.splitlines())) == (0, 1)


def test_the_first_span_of_own_images_ends_with_the_command_to_train_on_it(vitpipe, pets, tmp_path):
    first = vitpipe("prepare", "images", "--source", pets, "--out", tmp_path / "my pets")
    command, reason = first.stderr.splitlines()[-2:]
    assert command.startswith("to train on it: vitpipe run -c cifar10")  # the images have 8 pixels
    assert f" --data '{tmp_path / 'my pets'}' --set name=my-pets " in command
    assert reason.startswith("why cifar10")
    more = shutil.copytree(pets, tmp_path / "more")
    shutil.copy(more / "cat" / "1.png", more / "cat" / "again.png")
    for kind, *source in (("images", "--source", more, "--out", tmp_path / "my pets"), ("sample", "--out", tmp_path)):
        done = vitpipe("prepare", kind, *source)
        assert done.returncode == 0 and "to train on it" not in done.stderr


def test_remarks_on_images_are_counted_and_printed(vitpipe, pets, tmp_path):
    source = shutil.copytree(pets, tmp_path / "pets")
    Image.new("RGBA", (8, 8), (0, 0, 0, 99)).save(source / "dog" / "0.png")
    rows = np.arange(64, dtype=np.uint16).reshape(8, 8)
    for number in range(3):
        Image.fromarray(rows * 60 + number).save(source / "cat" / f"{number}.12bits.png")
    done = vitpipe("prepare", "images", "--source", source, "--out", tmp_path / "out")
    assert done.returncode == 0
    lines = [line for line in done.stderr.splitlines() if " of 23 images " in line]
    assert [line.split(" of 23")[0] for line in lines] == ["narrow_range: in 3", "one_colour: in 1"]
    for line, file, fix in zip(
        lines, ("cat/0.12bits.png", "dog/0.png"), ("multiply 16", "model.background"), strict=True
    ):
        assert f"(first: {file})" in line and fix in line
    remarked = manifest.read(tmp_path / "out" / "span-1").remarked
    assert [(group.remark, group.count, group.images) for group in remarked] == [
        ("narrow_range", 3, 23),
        ("one_colour", 1, 23),
    ]


def test_a_source_of_large_photographs_is_rejected_with_the_fix(vitpipe, pets, tmp_path):
    source = shutil.copytree(pets, tmp_path / "pets")
    for name in ("large.png", "larger.png"):
        Image.new("1", (6000, 4000)).save(source / "cat" / name)
    done = vitpipe("prepare", "images", "--source", source, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "2: a PNG of more than 16,777,216 pixels (first: cat/large.png): convert it to JPEG" in done.stderr
    assert "mogrify -resize '4096x4096>'" in done.stderr


def test_a_class_with_fewer_images_than_requested_is_reported(vitpipe, pets, tmp_path):
    source = shutil.copytree(pets, tmp_path / "pets")
    shutil.copytree(source / "cat", source / "owl")
    (source / "dog" / "0.png").unlink()
    part = ("--out", tmp_path / "out", "--classes", "dog, cat", "--per-class", 9)
    done = vitpipe("prepare", "images", "--source", source, *part)
    assert done.stdout.endswith("span-1: 11 train, 5 val, 3 test images of 2 classes in 3 shards\n")
    lines = [line for line in done.stderr.splitlines() if "not 9" in line]
    assert lines == [f"{name} has only 8 images for train and val, not 9" for name in ("cat", "dog")]


def test_stray_files_and_the_bound_on_rejected_images(vitpipe, pets, tmp_path):
    source = shutil.copytree(pets, tmp_path / "pets")
    for name in ("README.txt", "Thumbs.db", "cat/desktop.ini"):
        (source / name).write_text("no image")
    (source / "dog" / "broken.png").write_bytes(b"")
    refused = vitpipe("prepare", "images", "--source", source, "--out", tmp_path / "out")
    assert refused.returncode == 3
    assert "1 of 21 records rejected (4.8%), the bound is 1.0%" in refused.stderr
    assert "--max-rejected" in refused.stderr
    allowed = vitpipe("prepare", "images", "--source", source, "--out", tmp_path / "out", "--max-rejected", 0.05)
    assert allowed.returncode == 0
    assert "ignored 3 files that are not images (first: Thumbs.db)\n" in allowed.stderr
    for share in (5, -1, "nan"):
        bad = vitpipe("prepare", "images", "--source", source, "--out", tmp_path / "out", "--max-rejected", share)
        assert bad.returncode == 2 and "use a share from 0 to 1" in bad.stderr and "Traceback" not in bad.stderr


def test_a_class_named_like_a_split_is_rejected(vitpipe, pets, tmp_path):
    source = shutil.copytree(pets, tmp_path / "pets")
    shutil.copytree(source / "cat", source / "train")
    refused = vitpipe("prepare", "images", "--source", source, "--out", tmp_path / "out")
    assert refused.returncode == 3 and "folder 'train' has the name of a split" in refused.stderr


def test_verify_names_each_problem(vitpipe, pets, tmp_path):
    vitpipe("prepare", "images", "--source", pets, "--out", tmp_path)
    for split in ("train", "val"):
        (tmp_path / "span-1" / split / "part-00000-of-00001.tfrecord").unlink()
    verified = vitpipe("verify", tmp_path)
    assert verified.returncode == 3
    assert len(verified.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["prepare", "cats"], "no source 'cats': use one of"),
        (["prepare", "images"], "`images` needs --source"),
        (["prepare", "images", "--source", "nowhere"], "--source 'nowhere': no such file or folder"),
        (["prepare", "sample", "--span", "0"], "--span"),
        (
            ["prepare", "sample", "--set", "training.epochs=5"],
            "--set training.epochs=5 has no effect on `data prepare`",
        ),
        (["prepare", "sample", "--set", "beam.runner=flink"], "beam.runner flink requires beam.job_service"),
        (["prepare", "sample", "--classes", "one"], "name at least two classes"),
        (["prepare", "sample", "--classes", "one,tow"], "did you mean two?"),
        (["verify", "nowhere"], "nowhere: holds no span"),
    ],
)
def test_bad_usage_exits_with_2(vitpipe, arguments, message, tmp_path):
    result = vitpipe(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_refused_data_exits_with_3(vitpipe, tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("../../etc/passwd"), io.BytesIO())
    result = vitpipe("prepare", "images", "--source", tmp_path / "x.tar", "--out", tmp_path / "out")
    assert result.returncode == 3
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and "member '../../etc/passwd' leads out of the archive" in line


def test_a_terminal_shows_bars(pets, tmp_path):
    done, shown = on_terminal(tmp_path, "data", "prepare", "images", "--source", pets, "--out", tmp_path)
    assert done.returncode == 0
    assert done.stdout.endswith("in 3 shards\n")
    assert "images read" in shown and "━" in shown and "20/20" in shown


def test_ctrl_c(tmp_path):
    photo = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (500, 500, 3), dtype=np.uint8)).save(photo, "PNG")
    for name in ("cat", "dog"):
        (tmp_path / "source" / name).mkdir(parents=True)
        for row in range(100):
            (tmp_path / "source" / name / f"{row}.png").write_bytes(photo.getvalue())
    command = [*COMMAND, "prepare", "images", "--source", str(tmp_path / "source"), "--out", str(tmp_path / "out")]
    # As on a terminal, the signal goes to the whole process group, which includes the child processes.
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while process.poll() is None and not any((tmp_path / "out").glob(".tmp-*/spool")):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        errors = process.communicate()[1]
    assert process.returncode not in (0, 3)
    assert "Traceback" not in errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".lock"]


def test_prepare_reports_when_decisions_take_effect_and_when_they_are_missing(vitpipe, pets, tmp_path):
    (tmp_path / "decisions.csv").write_text("id,verdict\ncat/1.png,drop\n")
    prepare = ["prepare", "images", "--source", pets]
    assert "decisions" not in vitpipe(*prepare, cwd=tmp_path).stderr
    decided = vitpipe(*prepare, "--decisions", "decisions.csv", cwd=tmp_path)
    assert "set data.gate_span to 2" in decided.stderr
    assert "not applied in this one" not in decided.stderr
    without = vitpipe(*prepare, cwd=tmp_path)
    assert without.returncode == 0 and "prepare it again with --decisions" in without.stderr
