"""Photographs from a folder to a prediction, with the command that `vitpipe data prepare` advises."""

import json
import shlex
from pathlib import Path

import pytest

from pipeline.backbone import fit_to_backbone
from pipeline.settings import load
from tests.helpers.command import pushed, read_report, vitpipe
from tests.helpers.photographs import CLASS_NAMES, photograph, write_photographs
from vitpipe.advice import advise, read_facts


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_from_a_folder_of_photographs_to_a_prediction(tmp_path):
    write_photographs(tmp_path / "my photographs", 500)
    data = Path("data", "my photographs")
    prepared = vitpipe(tmp_path, "data", "prepare", "images", "--source", "my photographs", "--out", data)
    assert prepared.returncode == 0, prepared.stderr

    advice = advise(read_facts(tmp_path / data), has_gpu=False)
    assert advice.preset == "photos-cpu"
    # The advised number of epochs would take three times as long.
    done = vitpipe(tmp_path, *shlex.split(advice.command(data))[1:], "--set", "training.epochs=30")
    assert done.returncode == 0, done.stdout + done.stderr
    assert pushed(tmp_path, "my-photographs") == ["1"]
    assert read_report(tmp_path, done)["judgement"]["checks"][0]["bound"] == 0.5

    # The new photographs are larger, and in portrait format.
    for label, name in enumerate(CLASS_NAMES):
        (tmp_path / f"{name}.jpg").write_bytes(photograph(label, 100_000, (480, 640)))
    answers = vitpipe(tmp_path, "predict", *(f"{name}.jpg" for name in CLASS_NAMES), "--json")
    assert answers.returncode == 0, answers.stderr
    classes = [answer["class"] for answer in json.loads(answers.stdout)]
    assert sum(answer == name for answer, name in zip(classes, CLASS_NAMES, strict=True)) >= 5


def test_fine_tuning_crops_photographs_to_the_size_of_the_backbone(tmp_path):
    hub = pytest.importorskip("keras_hub", reason="KerasHub is not installed: make setup")
    layers = {"num_layers": 5, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 64}
    hub.models.ViTBackbone(image_shape=(224, 224, 3), patch_size=16, **layers).save_to_preset(str(tmp_path))
    converter = hub.layers.ViTImageConverter(image_size=(224, 224), scale=1 / 127.5, offset=-1.0)
    converter.save_to_preset(str(tmp_path))
    settings = fit_to_backbone(load("photos-finetune", [f"finetune.source={tmp_path}"], environment={}))
    assert (settings.model.depth, settings.model.width, settings.model.patch_size) == (5, 16, 16)
    assert (settings.model.image_size, settings.model.resize) == (224, "crop")
