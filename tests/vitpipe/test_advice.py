"""Advice on how to train on new data."""

import itertools
import shlex
from pathlib import Path

import pytest

from components.data.ingest import prepare
from pipeline.settings import load
from tests.helpers.photographs import write_photographs
from vitpipe.advice import Facts, advise, read_facts

PHOTOGRAPHS = Facts(images=20_000, classes=20, side=375, largest_share=0.05)


@pytest.mark.parametrize(
    ("changes", "has_gpu", "preset"),
    [
        ({}, False, "photos-cpu"),
        ({}, True, "photos-finetune"),
        ({"images": 100_000}, True, "photos"),
        ({"images": 100_000, "classes": 201}, True, "photos-finetune"),  # fewer than 500 images a class
        ({"images": 99_999}, True, "photos-finetune"),
        ({"side": 64}, True, "photos-finetune"),
        ({"side": 63}, True, "cifar10"),
        ({"side": 32}, False, "cifar10-cpu"),
    ],
)
def test_preset_fits_the_data_and_the_machine(changes, has_gpu, preset):
    advice = advise(PHOTOGRAPHS._replace(**changes), has_gpu)
    assert advice.preset == preset
    assert advice.reason and "\n" not in advice.reason


@pytest.mark.parametrize("has_gpu", [True, False])
@pytest.mark.parametrize("images", [6, 100, 2_000, 3_000_000])
@pytest.mark.parametrize("side", [32, 375])
def test_the_settings_load_and_every_epoch_has_a_step(side, images, has_gpu, tmp_path):
    advice = advise(Facts(images, 2, side, 0.5), has_gpu)
    words = shlex.split(advice.command(tmp_path / "mine"))
    flags = [value for option, value in itertools.pairwise(words) if option == "--set"]
    settings = load(advice.preset, flags, environment={}, data={"dir": words[words.index("--data") + 1]})
    assert (settings.name, settings.data.dir) == ("mine", tmp_path / "mine")
    assert settings.training.batch_size <= images
    assert settings.gate.accuracy == 0.75  # half of the images are of one class, so 0.5 would be chance


def test_the_gate_does_not_expect_the_accuracy_of_cifar10():
    settings = advise(PHOTOGRAPHS._replace(side=32), has_gpu=True).settings
    assert (settings["gate.accuracy"], settings["gate.class_accuracy"]) == (0.5, 0)
    assert "gate.accuracy" not in advise(PHOTOGRAPHS, has_gpu=True).settings


def test_few_images_are_trained_on_for_more_epochs_of_smaller_batches():
    few, many = (advise(PHOTOGRAPHS._replace(images=images), has_gpu=False).settings for images in (200, 20_000))
    assert few == {"training.epochs": 100, "training.batch_size": 16}
    assert many == {"training.epochs": 5}


@pytest.mark.parametrize(
    ("folder", "quoted", "name"),
    [
        ("data/mine", "data/mine", "mine"),
        ("data/My pets, 2026", "'data/My pets, 2026'", "my-pets-2026"),
        ("data/'; ls", "'data/'\"'\"'; ls'", "ls"),
    ],
)
def test_the_command_can_be_copied_into_a_shell(folder, quoted, name):
    command = advise(PHOTOGRAPHS, has_gpu=True).command(Path(folder))
    assert command == f"vitpipe run -c photos-finetune --data {quoted} --set name={name}"


def test_a_folder_whose_name_has_no_latin_letters_keeps_the_name_of_the_preset():
    assert "name=" not in advise(PHOTOGRAPHS, has_gpu=True).command(Path("写真"))


def test_facts_of_a_span(tmp_path):
    write_photographs(tmp_path / "photographs", 40, size=(96, 72))
    written = prepare("images", tmp_path / "data", str(tmp_path / "photographs"))
    facts = read_facts(tmp_path / "data")
    assert facts == Facts(written.examples("train"), 10, 72, facts.largest_share)
    assert 1 / 10 <= facts.largest_share < 1
