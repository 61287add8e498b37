"""Advice on how to train on new data: which preset, and which of its settings to change."""

import io
import math
import re
import shlex
import warnings
from itertools import islice
from pathlib import Path
from statistics import median
from typing import NamedTuple

from PIL import Image

from components.data.ingest import manifest as manifests
from components.data.ingest import span_folder, spans, tfrecord
from pipeline.settings import load

_MAX_IMAGES = 200  # images whose sizes are read
_SMALL_SIDE = 64  # pixels; smaller images are not photographs
# With fewer images, or fewer per class, a ViT that is trained from scratch is far behind a pretrained ViT.
_FROM_SCRATCH, _FROM_SCRATCH_PER_CLASS = 100_000, 500
_FEWEST_STEPS = 8  # steps that an epoch should have at least
_LARGE_SHARE = 0.25  # share of a class past which it decides the bound of the accuracy
# Number of images that the presets for a CPU train on in minutes. An image counts once per epoch.
_IMAGES_ON_CPU = {"photos-cpu": 100_000, "cifar10-cpu": 225_000}
_FEWEST_EPOCHS, _MOST_EPOCHS = 5, 100


class Facts(NamedTuple):
    """Facts about a span that decide how to train on it."""

    images: int  # number of training images
    classes: int
    side: int  # median of the shorter sides of the images, in pixels
    largest_share: float  # share of the largest class in the test images


class Advice(NamedTuple):
    """Preset for a span, the settings `a.b` that differ from it, and the reason in one line."""

    preset: str
    settings: dict[str, object]
    reason: str

    def command(self, data: Path) -> str:
        """Return the command that trains on a data folder, quoted for a shell."""
        words = ["vitpipe", "run", "-c", self.preset, "--data", str(data)]
        name = re.sub(r"[^a-z0-9]+", "-", data.resolve().name.lower()).strip("-")[:63]
        for setting, value in {**({"name": name} if name else {}), **self.settings}.items():
            words += ["--set", f"{setting}={value}"]
        return shlex.join(words)


def read_facts(data: Path) -> Facts:
    """Return the facts about the newest span of a data folder.

    Raises:
        DataRefused: If the span cannot be read.
    """
    span = span_folder(data, spans(data)[-1])
    manifest = manifests.read(span)
    # The images are in random order, so the first ones are a random sample.
    shard = min(name for name in manifest.shards if name.startswith("train/"))
    sides = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # only headers are read
        for example in islice(tfrecord.read_examples(span / shard), _MAX_IMAGES):
            with Image.open(io.BytesIO(example.image)) as image:
                sides.append(min(image.size))
    test = manifest.counts["test"].values()
    return Facts(
        images=manifest.examples("train"),
        classes=len(manifest.class_names),
        side=round(median(sides)),
        largest_share=max(test) / sum(test),
    )


def advise(facts: Facts, has_gpu: bool) -> Advice:
    """Choose a preset for a span, and the settings of the preset to change for it.

    Args:
        facts: The facts about the span.
        has_gpu: Whether this machine has a GPU.
    """
    per_class = facts.images // facts.classes
    counted = f"{facts.images:,} training images, {per_class:,} per class"
    device = "a GPU" if has_gpu else "no NVIDIA GPU on this machine"
    if facts.side < _SMALL_SIDE:
        preset = "cifar10" if has_gpu else "cifar10-cpu"
        reason = f"images of {facts.side} pixels, as small as CIFAR-10's, and {device}"
    elif not has_gpu:
        preset = "photos-cpu"
        reason = f"{device}; with a GPU, photos-finetune or photos learns much more"
    elif facts.images < _FROM_SCRATCH or per_class < _FROM_SCRATCH_PER_CLASS:
        preset = "photos-finetune"
        reason = f"{counted}, are too few to train from scratch"
    else:
        preset = "photos"
        reason = f"{counted}, are enough to train from scratch, and {device}"
    return Advice(preset, _changes(preset, facts), reason)


def _changes(preset: str, facts: Facts) -> dict[str, object]:
    """Return the settings of a preset to change for a span, with their new values."""
    settings = load(preset, environment={})
    changes: dict[str, object] = {}
    if preset in _IMAGES_ON_CPU:
        changes["training.epochs"] = min(max(_IMAGES_ON_CPU[preset] // facts.images, _FEWEST_EPOCHS), _MOST_EPOCHS)
    batch_size = 2 ** max(int(math.log2(facts.images / _FEWEST_STEPS)), 1)
    if batch_size < settings.training.batch_size:
        changes["training.batch_size"] = batch_size
    # The bounds of the presets for CIFAR-10 are meant for its classes. If one class has a large share of the images, a
    # model that always answers with that class must not pass.
    gate = {"accuracy": 0.5, "class_accuracy": 0.0, "calibration": 1.0}
    if facts.largest_share > _LARGE_SHARE:
        gate["accuracy"] = math.floor(50 * (1 + facts.largest_share)) / 100
    changes |= {f"gate.{name}": value for name, value in gate.items() if value != getattr(settings.gate, name)}
    return changes


def has_nvidia_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU with a driver. TensorFlow would take seconds to import."""
    return any(Path("/dev").glob("nvidia[0-9]*"))
