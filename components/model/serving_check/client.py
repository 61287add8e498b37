"""Send requests to a SavedModel as its clients will, in a process without this project's modules.

Run it as an isolated script: `python -I client.py MODEL FOLDER`. FOLDER holds `requests.npz` with the array `images`
(uint8 [N, H, W, 3]) and with lists of byte strings, `encoded`, `examples` and `hostile`. The strings of a list are
joined to one array (uint8), and the offsets of their ends are in `<name>_ends`. The script writes `answers.npz` and
`figures.json` to FOLDER.
"""

import json
import resource
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

_TIMED = 100  # timed requests with one image each


def main(model: str, folder: str) -> None:
    """Send all requests, and write the answers and figures.

    Args:
        model: Folder of the SavedModel.
        folder: Folder of `requests.npz`, to which the results are written.
    """
    import tensorflow as tf

    peak = 0.0
    signatures = tf.saved_model.load(model).signatures
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
            for output in ("probabilities", "valid", "label"):
                answers[f"{signature}/{batch}/{output}"] = answer[output].numpy()
            answers[f"{signature}/{batch}/class"] = answer["class"].numpy().astype("S")
            peak = max(peak, _resident_gib())

    # Each batch starts and ends with a valid request, whose answers show whether the hostile ones affect others.
    for signature in ("serving_default", "serving_bytes", "explain"):
        if signature in signatures:
            name, rows = inputs[signature]
            answer = signatures[signature](**{name: tf.constant([rows[0], *strings["hostile"], rows[1]])})
            answers[f"hostile/{signature}/valid"] = answer["valid"].numpy()
            answers[f"hostile/{signature}/probabilities"] = answer["probabilities"].numpy()
            peak = max(peak, _resident_gib())

    milliseconds = []
    for number in range(_TIMED):
        row = strings["encoded"][number % len(images)]
        start = time.perf_counter()
        signatures["serving_bytes"](image_bytes=tf.constant([row]))
        milliseconds.append(1000 * (time.perf_counter() - start))
    np.savez(Path(folder, "answers.npz"), **answers)
    figures = {
        "signatures": sorted(signatures),
        "latency_ms": [float(np.percentile(milliseconds, share)) for share in (50, 99)],
        "memory_gib": max(peak, _resident_gib()),
        "modules": sorted({name.partition(".")[0] for name in sys.modules}),
    }
    Path(folder, "figures.json").write_text(json.dumps(figures))


def _resident_gib() -> float:
    """Return the current resident memory of this process.

    The peak that the operating system records would be wrong: a child process inherits that of its parent.
    """
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**30


def _strings(requests: Mapping[str, np.ndarray], name: str) -> list[bytes]:
    joined, ends = requests[name].tobytes(), requests[f"{name}_ends"].tolist()
    return [joined[start:end] for start, end in zip([0, *ends], ends, strict=False)]


if __name__ == "__main__":
    main(*sys.argv[1:])
