"""Classify images with a model server, over TensorFlow Serving's REST API. Needs Python alone.

python examples/model_server.py localhost:8501 IMAGE...

docs/serving.md explains how to start a server that serves a pushed model under the name `vit`.
"""

import base64
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path


def main(server: str, files: list[str]) -> None:
    """Print the class and the probability of each PNG or JPEG file."""
    instances = [{"b64": base64.b64encode(Path(file).read_bytes()).decode()} for file in files]
    request = urllib.request.Request(
        f"http://{server}/v1/models/vit:predict",
        data=json.dumps({"signature_name": "serving_bytes", "instances": instances}).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            answers = json.load(response)["predictions"]
    except urllib.error.HTTPError as error:
        sys.exit(f"{server} rejects the request: {error.code} {error.read().decode()}")
    except urllib.error.URLError as error:
        sys.exit(f"no model server answers at {server} ({error.reason}). Start one, or correct HOST:PORT.")
    for file, answer in zip(files, answers, strict=True):
        result = f"{answer['class']} {max(answer['probabilities']):.3f}"
        print(file, result if answer["valid"] else "is not a PNG or JPEG image")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
