"""Asks a SavedModel as its clients will, in a process that has TensorFlow and nothing of ours.

Run as a script, isolated: `python -I serving_probe.py MODEL FOLDER`. FOLDER holds `requests.npz` with the arrays
`images` (uint8 [N, H, W, 3]), and byte strings as `encoded`, `examples` and `hostile` (uint8, joined), each with where
its strings end in `<name>_ends`. Writes `answers.npz` and `figures.json` there.
"""

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np

_TIMED = 100  # requests with one image


def main(model: str, folder: str) -> None:
    import tensorflow as tf

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    signatures = tf.saved_model.load(model).signatures
    load_seconds = time.perf_counter() - start
    with np.load(Path(folder, "requests.npz")) as requests:
        images = requests["images"]
        strings = {name: _strings(requests, name) for name in ("encoded", "examples", "hostile")}
    inputs = {
        "serving_images": ("images", images),
        "serving_bytes": ("image_bytes", strings["encoded"]),
        "serving_default": ("examples", strings["examples"]),
        "explain": ("image_bytes", strings["encoded"]),
    }
    answers = {}
    for signature, (name, rows) in inputs.items():
        if signature not in signatures:
            continue
        for batch in (1, len(rows)):
            answer = signatures[signature](**{name: tf.constant(rows[:batch])})
            for output in ("probabilities", "valid"):
                answers[f"{signature}/{batch}/{output}"] = answer[output].numpy()

    # Between two good images, so that a batch that is spoilt shows.
    mixed = [strings["encoded"][0], *strings["hostile"], strings["encoded"][1]]
    answer = signatures["serving_bytes"](image_bytes=tf.constant(mixed))
    answers["hostile/valid"] = answer["valid"].numpy()
    answers["hostile/probabilities"] = answer["probabilities"].numpy()

    milliseconds = []
    for number in range(_TIMED):
        row = strings["encoded"][number % len(images)]
        start = time.perf_counter()
        signatures["serving_bytes"](image_bytes=tf.constant([row]))
        milliseconds.append(1000 * (time.perf_counter() - start))
    np.savez(Path(folder, "answers.npz"), **answers)
    figures = {
        "signatures": sorted(signatures),
        "load_seconds": load_seconds,
        "latency_ms": [float(np.percentile(milliseconds, share)) for share in (50, 99)],
        # Of the process, TensorFlow in it, and of what the model adds.
        "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "model_memory_gib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20,
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    }
    Path(folder, "figures.json").write_text(json.dumps(figures))


def _strings(requests, name: str) -> list[bytes]:
    joined, ends = requests[name].tobytes(), requests[f"{name}_ends"].tolist()
    return [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]


if __name__ == "__main__":
    main(*sys.argv[1:])
