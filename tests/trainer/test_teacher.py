"""Distillation: a teacher that is trained first, and a ViT that learns from it."""

from functools import partial

import numpy as np
import pytest

from tests.helpers import job
from trainer.checkpoint import Checkpoints
from trainer.input import Split
from trainer.resnet9 import ResNet9
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
from trainer.teacher import train_teacher
from trainer.train import build_vit, train

MEAN, STD = np.full(3, 128.0), np.full(3, 64.0)
AUGMENT = AugmentSettings(**job.PLAIN)
TRAINING = TrainingSettings(**job.TRAINING | {"epochs": 12, "teacher_epochs": 3, "teacher_weight": 1.0})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher")
    arguments = (2, 8, MEAN, STD, AUGMENT, TRAINING, job.split(64, 0), job.split(40, 1))
    return folder, arguments, train_teacher(*arguments, folder / "log", Checkpoints(folder / "checkpoints" / "one"))


def test_the_teacher_learns_and_has_its_own_history(teacher):
    folder, _, build = teacher
    val = job.split(40, 1)
    answers = np.array(build("float32")(val.images, training=False)).argmax(-1)
    assert (answers == val.labels).mean() > 0.9
    assert len((folder / "log" / "history.jsonl").read_text().splitlines()) == 3


def test_a_finished_teacher_is_not_trained_again(teacher, caplog):
    folder, arguments, build = teacher
    with caplog.at_level("INFO"):
        again = train_teacher(*arguments, None, Checkpoints(folder / "checkpoints" / "one"))
    messages = [record.getMessage() for record in caplog.records]
    assert any("continuing from" in message for message in messages)
    assert not any(message.startswith("epoch") for message in messages)
    for one, two in zip(build("float32").get_weights(), again("float32").get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)


def test_the_vit_learns_from_the_teacher_even_if_the_labels_say_nothing(teacher, tmp_path):
    images = job.split(64, 0).images
    random = Split(images, np.random.default_rng(5).integers(0, 2, len(images)))
    learn = partial(
        train,
        partial(build_vit, ModelSettings(**job.MODEL), 2, MEAN, STD),
        2,
        AUGMENT,
        train_split=random,
        val_split=job.split(40, 1),
        log_dir=tmp_path,
    )
    with_teacher = learn(TRAINING, checkpoints=Checkpoints(tmp_path / "with" / "one"), teacher=teacher[2])
    without = learn(TRAINING, checkpoints=Checkpoints(tmp_path / "without" / "one"))
    assert with_teacher.rows[-1]["val_accuracy"] > 0.9
    assert without.rows[-1]["val_accuracy"] < 0.9


def test_the_teacher_accepts_images_of_16_pixels():
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), "uint8")
    assert ResNet9(16, 5, width=8)(images).shape == (2, 5)
