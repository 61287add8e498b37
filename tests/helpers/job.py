"""A tiny training as a process of its own: `python job.py FOLDER SETTINGS`, with FOLDER/checkpoints shared by all.

SETTINGS is JSON: "model", "training" and "augment" over the defaults below, "replicas" on this machine.
Writes the weights to FOLDER/weights-<worker>.npz and its history under FOLDER/log; prints the trainer's log lines.
"""

import json
import logging
import os
import sys
from functools import partial
from pathlib import Path

import numpy as np

MODEL = {"image_size": 8, "depth": 1, "width": 16, "heads": 2}
TRAINING = {"epochs": 4, "batch_size": 16, "warmup_epochs": 1, "learning_rate": 1e-2, "ema_epochs": 0.5}
PLAIN = {"crop_padding": 1, "randaugment_ops": 0, "mixup": 0.0, "cutmix": 0.0, "erase": 0.0}


def split(count, seed):
    """Two classes that anybody can tell apart: dark and bright images."""
    from trainer.input import Split

    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    images = rng.integers(0, 100, (count, 8, 8, 3)) + 150 * labels[:, None, None, None]
    return Split(images.astype("uint8"), labels)


def main(folder: Path, settings: dict) -> None:
    import tensorflow as tf

    replicas = settings.get("replicas", 1)
    if replicas > 1:
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)

    from trainer import devices
    from trainer.checkpoint import Checkpoints
    from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings
    from trainer.train import build_vit, train

    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(message)s")
    if replicas > 1:
        strategy = tf.distribute.MirroredStrategy([f"CPU:{index}" for index in range(replicas)])
    else:
        strategy = devices.choose_strategy()
    best, last, _ = train(
        partial(build_vit, ModelSettings(**MODEL | settings.get("model", {})), 2, [128.0] * 3, [64.0] * 3),
        2,
        AugmentSettings(**PLAIN | settings.get("augment", {})),
        TrainingSettings(**TRAINING | {"checkpoint_seconds": 0} | settings.get("training", {})),
        split(64, 0),
        split(40, 1),
        log_dir=folder / "log",
        checkpoints=Checkpoints(folder / "checkpoints" / "tiny"),
        strategy=strategy,
    )
    weights = {f"best-{index}": weight for index, weight in enumerate(best.get_weights())}
    weights |= {f"last-{index}": weight for index, weight in enumerate(last.get_weights())}
    worker = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task", {}).get("index", 0)
    np.savez(folder / f"weights-{worker}.npz", **weights)


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
