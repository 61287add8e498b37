"""Devices of a training: one device, several GPUs of one machine, or several machines."""

import json
import os
import re
from pathlib import Path

import tensorflow as tf

# Smallest `model.width` for which a training step on a CPU with instructions for bfloat16 is faster in bfloat16 than in
# float32. In narrower models, the conversions cost more time than the products save.
_BFLOAT16_WIDTH = 128


def choose_strategy() -> tf.distribute.Strategy:
    """Return the strategy that distributes a training step over the available devices.

    The step is distributed over all workers if TF_CONFIG names more than one, else over all GPUs of this machine if it
    has more than one. Otherwise it runs on one device.

    With TF_CONFIG set, call this before any other TensorFlow function, because it connects this worker to the others.
    """
    workers = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster", {})
    if sum(len(workers.get(role, [])) for role in ("chief", "worker")) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Return whether this process is the worker that writes the files of a training."""
    resolver = strategy.cluster_resolver
    return (
        resolver is None
        or resolver.task_type in (None, "chief")
        or (resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs)
    )


def wait_for_all(strategy: tf.distribute.Strategy) -> None:
    """Wait until every worker has called this function."""
    mean_over_workers(strategy, 0.0)


def mean_over_workers(strategy: tf.distribute.Strategy, value: float) -> float:
    """Compute the mean of a value over all workers. Every worker must call this function.

    Args:
        strategy: Strategy that connects the workers.
        value: This worker's value.

    Returns:
        The mean, the same on every worker.
    """
    return float(strategy.reduce("MEAN", strategy.run(lambda: tf.constant(value)), axis=None))


def resolve_precision(setting: str, width: int = 0) -> str:
    """Return the floating-point type to compute in: "float32", "bfloat16" or "float16".

    Args:
        setting: The setting `training.precision`. "auto" selects bfloat16 or float16 if all GPUs of this machine
            support it. Without a GPU it selects bfloat16 if the CPU has instructions for it and the model is wide
            enough to gain from them. Otherwise it selects float32. Any other setting is returned unchanged.
        width: Width of a token.
    """
    if setting != "auto":
        return setting
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "bfloat16" if width >= _BFLOAT16_WIDTH and cpu_multiplies_bfloat16() else "float32"
    # NVIDIA's tensor cores compute in float16 from compute capability 7.0 (V100), and in bfloat16 from 8.0 (A100).
    capability = min(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus)
    if capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"


def agree_on_precision(strategy: tf.distribute.Strategy, precision: str) -> str:
    """Return the precision that all workers chose, or float32 if they differ. Every worker must call this function.

    Args:
        strategy: Strategy that connects the workers.
        precision: This worker's choice, from `resolve_precision`.
    """
    for candidate in ("bfloat16", "float16"):
        if mean_over_workers(strategy, float(precision == candidate)) == 1:
            return candidate
    return "float32"


def cpu_multiplies_bfloat16() -> bool:
    """Return whether this CPU has instructions for products of bfloat16; False on systems other than Linux."""
    info = Path("/proc/cpuinfo")
    return info.exists() and bool(re.search(r"\b(avx512_bf16|amx_bf16)\b", info.read_text()))
