"""Models and records of versions in which `model.pool` was still called `model.head`."""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from components.data.ingest import prepare
from components.data.ingest.manifest import Recipe
from components.errors import SettingsError
from components.model.serving_folder import ModelId, ModelRecord, push
from kubeflow.steps.start import NEWEST, resolve_settings
from pipeline.metadata.records import Run
from pipeline.report.model import Report
from pipeline.result.differences import differences
from pipeline.settings import load
from pipeline.warm_start import plan
from tests.pipeline.report.test_page import report
from trainer.backbone import load_backbone
from trainer.finetune import adapt
from trainer.settings import ModelSettings
from trainer.vit import ViT

# An earlier version wrote it: 1 block 8 wide with 2 heads, patches of 4 pixels, images of 8, and head "seqpool".
MODEL = Path(__file__).parent / "fixtures" / "head-seqpool.keras"
FLAGS = ["model.depth=1", "model.width=8", "model.heads=2", "model.patch_size=4", "model.image_size=8"]


@pytest.fixture(scope="module")
def model():
    return load_backbone(str(MODEL))


def test_a_model_loads_with_its_weights(model):
    assert model.config["pool"] == "seqpool" and "head" not in model.config
    images = np.arange(8 * 8 * 3, dtype="float32").reshape(1, 8, 8, 3)
    np.testing.assert_allclose(model(images), [[0.541895, 1.634512, -8.438228]], rtol=1e-4)


def test_a_model_is_fine_tuned_and_saved_under_the_new_name(model, tmp_path):
    adapted = adapt(model, ModelSettings(image_size=16), 2, None)
    adapted.save(tmp_path / "vit.keras")
    assert load_backbone(str(tmp_path / "vit.keras")).config["pool"] == "seqpool"
    assert ViT.from_config(adapted.get_config()).config == adapted.config


def test_a_warm_start_compares_its_architecture(tmp_path):
    prepare("sample", tmp_path / "data", recipe=Recipe(classes=("one", "zero")))
    (tmp_path / "model" / "assets.extra").mkdir(parents=True)
    shutil.copy(MODEL, tmp_path / "model" / "assets.extra" / "vit.keras")
    record = ModelRecord(
        version=1,
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
    push(tmp_path / "model", tmp_path / "runs" / "sample" / "serving", record)
    flags = [f"runs={tmp_path / 'runs'}", f"data.dir={tmp_path / 'data'}", "training.warm_start=true", *FLAGS]
    assert plan(load("sample", [*flags, "model.pool=seqpool"], environment={}), 1).new == ["zero"]
    with pytest.raises(SettingsError, match="which has pool seqpool, not cls:"):
        plan(load("sample", flags, environment={}), 1)


@pytest.fixture(scope="module")
def recorded():
    """Settings that a run of this version records, and as an earlier version recorded them."""
    current = load("sample", ["model.pool=mean"], environment={}).resolved(1)
    earlier = current.replace('"pool": "mean"', '"head": "mean"')
    assert earlier != current
    return current, earlier


def test_the_record_of_a_run_equals_that_of_a_new_one(recorded):
    runs = [
        Run(number, f"run-{number}", "sample", started_ms=0, facts={"settings": text, "exit": "0"}, executions=())
        for number, text in enumerate(recorded)
    ]
    assert differences(*runs) == []


def test_a_report_is_read(recorded, tmp_path):
    written = report(2).model_copy(update={"settings": json.loads(recorded[1])})
    (tmp_path / "report.json").write_text(written.as_json())
    assert Report.read(tmp_path / "report.json").settings == json.loads(recorded[0])


def test_a_compiled_package_starts_with_its_settings(recorded):
    text = json.dumps({**json.loads(recorded[1]), "metadata": {}})
    assert resolve_settings(text, NEWEST, {}).model.pool == "mean"


def test_a_compiled_package_starts_without_the_settings_that_no_longer_exist(recorded):
    settings = {**json.loads(recorded[1]), "metadata": {}}
    settings["training"] = {**settings.get("training", {}), "memory_gib": 4.0}
    settings["data_gate"] = {**settings.get("data_gate", {}), "rotated": {"warn": 0, "stop": None}}
    assert resolve_settings(json.dumps(settings), NEWEST, {}).model.pool == "mean"
