import json
import shutil
import zipfile
from datetime import UTC, datetime

import pytest

from components.data.ingest import prepare
from components.data.ingest.manifest import Recipe
from components.errors import SettingsError
from components.model.serving_folder import ModelId, ModelRecord, push
from pipeline.settings import load
from pipeline.warm_start import _KERAS_MODEL as KERAS_MODEL
from pipeline.warm_start import plan
from vitpipe.cli.run import run

ARCHITECTURE = {"patch_size": 8, "depth": 4, "width": 64, "heads": 4, "mlp_ratio": 4, "pool": "cls", "conv_stem": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Create data of two classes, and a version that serves one of them and another class."""
    folder = tmp_path_factory.mktemp("warm")
    prepare("sample", folder / "data", recipe=Recipe(classes=("one", "zero")))
    file = folder / "model" / KERAS_MODEL
    file.parent.mkdir(parents=True)
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "ViT", "config": ARCHITECTURE}))
    record = ModelRecord(
        version=3,
        pushed_at=datetime.now(UTC),
        run_id="r",
        model=ModelId(uri="m", created_ms=1),
        span=1,
        data_digest="",
        code_version="",
        settings_digest="",
        metrics={},
        signatures=[],
        classes=["one", "two"],
    )
    push(folder / "model", folder / "runs" / "sample" / "serving", record)
    return folder


def settings(folder, *flags):
    return load("sample", [f"runs={folder / 'runs'}", f"data.dir={folder / 'data'}", *flags], environment={})


def test_the_plan_names_what_a_warm_start_takes_over(folder):
    start = plan(settings(folder, "training.warm_start=true"), 1)
    assert str(start) == (
        "warm start from version 3: head rebuilt, weights of 1 class copied by name, 1 new: zero, 1 dropped: two"
    )
    assert plan(settings(folder), 1) is None
    assert plan(settings(folder, "training.warm_start=true", "name=first"), 1) is None


def test_a_serving_model_whose_artifact_is_gone_is_rejected(folder, tmp_path):
    serving = tmp_path / "sample" / "serving" / "3"
    shutil.copytree(folder / "runs" / "sample" / "serving" / "3", serving)
    record = json.loads((serving / "model.json").read_text())
    record["model"]["uri"] = "/elsewhere/runs/sample/root/Trainer/model/7"
    (serving / "model.json").write_text(json.dumps(record))
    flags = "training.warm_start=true", f"runs={tmp_path}"
    with pytest.raises(SettingsError, match=r"sample/root/Trainer/model/7 is gone\. To train from scratch"):
        plan(settings(folder, *flags), 1)
    (tmp_path / "sample" / "root" / "Trainer" / "model" / "7").mkdir(parents=True)
    assert plan(settings(folder, *flags), 1).new == ["zero"]


def test_another_image_size_is_no_obstacle(folder):
    assert plan(settings(folder, "training.warm_start=true", "model.image_size=64"), 1)


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("model.depth=5", "depth 4, not 5: use its model settings, or --set training.warm_start=false"),
        ("model.heads=2", "heads 4, not 2"),
        ("model.patch_size=4", "patch_size 8, not 4"),
        ("model.pool=mean", "pool cls, not mean"),
        ("model.width=128", "width 64, not 128"),
        ("model.mlp_ratio=2", "mlp_ratio 4, not 2"),
    ],
)
def test_another_architecture_is_rejected_before_anything_runs(folder, flag, message):
    with pytest.raises(SettingsError, match=f"cannot start from version 3 in .*, which has {message}"):
        plan(settings(folder, "training.warm_start=true", flag), 1)
    with pytest.raises(SettingsError, match=message):
        run(data=folder / "data", overrides=[f"runs={folder / 'runs'}", "training.warm_start=true", flag])


def test_an_invalid_keras_model_is_left_to_the_trainer(folder, tmp_path):
    serving = tmp_path / "sample" / "serving"
    record = (folder / "runs" / "sample" / "serving" / "3" / "model.json").read_text()
    (serving / "3" / KERAS_MODEL).parent.mkdir(parents=True)
    (serving / "3" / "model.json").write_text(record)
    (serving / "3" / KERAS_MODEL).write_bytes(b"PK damaged")
    assert plan(settings(folder, "training.warm_start=true", f"runs={tmp_path}"), 1).new == ["zero"]


def test_a_version_without_a_record_is_reported(folder, tmp_path):
    (tmp_path / "sample" / "serving" / "3").mkdir(parents=True)
    with pytest.raises(
        SettingsError, match=r"training.warm_start: .*model.json does not say where the model came from"
    ):
        plan(settings(folder, "training.warm_start=true", f"runs={tmp_path}"), 1)
