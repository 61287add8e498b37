"""Serve the newest version in a folder of pushed models, and load each newer one: python server.py FOLDER PORT.

It needs TensorFlow, but nothing of vitpipe. model_server.py of tests/helpers must be beside it.
"""

import sys
import time
from pathlib import Path

import tensorflow as tf
from model_server import Served, rest

POLL_S = 10


def newest(folder: Path) -> int:
    """Return the newest version. 0 if there is none."""
    return max((int(path.name) for path in folder.glob("*") if path.name.isdigit()), default=0)


def main(folder: Path, port: int) -> None:
    """Serve until the process is ended."""
    while not (version := newest(folder)):
        time.sleep(POLL_S)
    served = Served({})
    while True:
        model = tf.saved_model.load(str(folder / str(version)))
        served.signatures = model.signatures
        print(f"serving version {version}", flush=True)
        with rest(served, port, host="0.0.0.0"):
            while newest(folder) == version:
                time.sleep(POLL_S)
        version = newest(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
