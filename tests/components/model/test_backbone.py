import shutil

import numpy as np
import pytest

from components import artifacts
from components.errors import DataRefused
from components.model.backbone import ACCEPTED_CLASSES, FILE, Executor
from components.model.serving_folder import push
from tests.helpers.model_records import record
from trainer import serving
from trainer.backbone import digest
from trainer.settings import FinetuneSettings, ModelSettings
from trainer.train import build_vit

MODEL = ModelSettings(image_size=8, depth=1, width=8, heads=1)


@pytest.fixture(scope="module")
def pushed(tmp_path_factory):
    """A pushed version, and its model."""
    folder = tmp_path_factory.mktemp("pretrained")
    model = build_vit(MODEL, 2, [100.0] * 3, [50.0] * 3)
    serving.export(model, ["a", "b"], str(folder / "saved"))
    push(folder / "saved", folder / "serving", record(3))
    return folder / "serving" / "3", model


def keep(source, out, **finetune):
    backbone = artifacts.BackboneArtifact()
    backbone.uri = str(out)
    settings = {"model": MODEL.model_dump_json(), "finetune": FinetuneSettings(**finetune).model_dump_json()}
    Executor().Do({}, {"backbone": [backbone]}, {"source": str(source), "content": "", **settings})
    return backbone


def test_a_pushed_model_is_copied_and_its_origin_recorded(pushed, tmp_path):
    folder, model = pushed
    backbone = keep(folder, tmp_path / "out")
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3))
    kept = serving.read_vit(tmp_path / "out" / FILE)
    np.testing.assert_array_equal(kept(images), model(images))
    told = {name: backbone.get_string_custom_property(name) for name in ("source", "version", "run_id", "data_digest")}
    assert told == {"source": str(folder), "version": "3", "run_id": "run-3", "data_digest": "d"}
    assert backbone.get_string_custom_property("content_digest") == digest(model)


def test_the_classes_of_a_model_that_is_accepted_without_training_are_recorded(pushed, tmp_path):
    def classes(source, **finetune):
        backbone = keep(source, tmp_path / "out", **finetune)
        return backbone.get_string_custom_property(ACCEPTED_CLASSES) or None

    folder, model = pushed
    model.save(tmp_path / "vit.keras")
    accepted = {"head_epochs": 0, "epochs": 0}
    assert classes(folder, **accepted) == classes(folder.parent.parent / "saved", **accepted) == '["a", "b"]'
    assert classes(tmp_path / "vit.keras", **accepted) == "[]"  # the file does not record them
    assert classes(folder) is None


def test_a_changed_pushed_model_is_rejected(pushed, tmp_path):
    changed = shutil.copytree(pushed[0], tmp_path / "4")
    (changed / "saved_model.pb").write_bytes(b"other")
    with pytest.raises(DataRefused, match=r"saved_model.pb: expected sha256 .* not the model that was pushed"):
        keep(changed, tmp_path / "out")


def test_an_unreadable_backbone_is_rejected(tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"no archive")
    with pytest.raises(DataRefused, match=r"bad.keras cannot be read as a Keras model"):
        keep(tmp_path / "bad.keras", tmp_path / "out")
