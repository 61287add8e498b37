"""What there is to train on: one device, several of a machine, or several machines."""

import json
import os

import tensorflow as tf


def strategy() -> tf.distribute.Strategy:
    """How a step is spread: over the workers that TF_CONFIG names, over all GPUs of this machine, or not at all.

    Call it before anything else of TensorFlow where TF_CONFIG is set: it joins the other workers.
    """
    workers = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster", {})
    if sum(len(workers.get(role, [])) for role in ("chief", "worker")) > 1:
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(spread: tf.distribute.Strategy) -> bool:
    """Whether this process is the one of its cluster that writes files."""
    resolver = spread.cluster_resolver
    return (
        resolver is None
        or resolver.task_type in (None, "chief")
        or (resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs)
    )


def wait_for_all(spread: tf.distribute.Strategy) -> None:
    """Return when every worker has come here."""
    mean(spread, 0.0)


def mean(spread: tf.distribute.Strategy, value: float) -> float:
    """The mean of each worker's `value`."""
    return float(spread.reduce("MEAN", spread.run(lambda: tf.constant(value)), axis=None))


def precision(wanted: str) -> str:
    """What to compute in. "auto" is what this machine does best: bfloat16 or float16 on a GPU, float32 on a CPU."""
    if wanted != "auto":
        return wanted
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return "float32"
    # NVIDIA's matrix units take float16 from 7.0 (V100) and bfloat16 from 8.0 (A100).
    capability = min(tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0)) for gpu in gpus)
    if capability >= (8, 0):
        return "bfloat16"
    return "float16" if capability >= (7, 0) else "float32"
