"""A training from TFX's call to the exported model, in this process."""

import json
import logging

from tests.helpers.training import SIZE, write_inputs
from trainer.run import run_fn
from trainer.serving import load_vit, read_vit
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
from trainer.worker import Job


def test_a_training_on_val_uses_all_images_and_exports_the_last_epoch(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    training = TrainingSettings(
        epochs=2, batch_size=16, warmup_epochs=1, learning_rate=1e-2, ema_epochs=0.5, use_val=True
    )
    run_fn(
        Job(
            workers=["localhost:1"],  # not read here
            **write_inputs(tmp_path, train=48, val=32),
            serving_model_dir=str(tmp_path / "model"),
            model_run_dir=str(tmp_path / "run"),
            custom_config={
                "model": ModelSettings(image_size=SIZE, depth=1, width=16, heads=2).model_dump_json(),
                "augment": AugmentSettings(crop_padding=1).model_dump_json(),
                "training": training.model_dump_json(),
                "checkpoints": str(tmp_path / "checkpoints"),
                "mean": [128.0] * 3,
                "std": [64.0] * 3,
                "code": "",
            },
        )
    )
    assert "80 training and 32 validation images, 5 steps an epoch" in caplog.text
    rows = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2]
    assert not any(name.startswith("val") for row in rows for name in row)
    exported, last = load_vit(str(tmp_path / "model")), read_vit(tmp_path / "run" / "last.keras")
    assert all((one == other).all() for one, other in zip(exported.get_weights(), last.get_weights(), strict=True))
