"""Predictions for image files, by a pushed model or a model server."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from components.errors import DataRefused, UsageError
from pipeline.console.logs import redirected
from pipeline.pushed_models import check, newest_pushed
from vitpipe.model_server import Answer, Server, ask

MODEL_NAME = "vit"  # the name under which our serving manifests serve the model
_BATCH = 32  # images in one call of the model


@dataclass(frozen=True)
class Prediction:
    """Answer of a model for one image.

    Attributes:
        image: the file.
        model: the folder of the model, or its name and the address of its server.
        valid: whether the image can be used.
        reason: why the image is not valid; empty if it is.
        remarks: names of `components.data.ingest.images.REMARKS` that apply to the image.
        label: the name of the most probable class; empty if the image is not valid.
        probabilities: the probability of each class, in index order.
    """

    image: Path
    model: str
    valid: bool
    reason: str
    remarks: tuple[str, ...]
    label: str
    probabilities: list[float]

    @property
    def probability(self) -> float:
        """Probability of the most probable class."""
        return max(self.probabilities)


def predict(
    images: Sequence[Path | str],
    *,
    model: Path | None = None,
    runs: Path = Path("runs"),
    server: str | None = None,
    grpc: bool = False,
    name: str = MODEL_NAME,
    trust_model: bool = False,
) -> list[Prediction]:
    """Classify images with a pushed model, or with a model server.

    Args:
        images: PNG or JPEG files.
        model: folder of a SavedModel. None: the newest pushed model below `runs`.
        runs: folder of the run folders.
        server: HOST:PORT of a model server to query instead, with TensorFlow Serving's REST API.
        grpc: query the server with gRPC instead of REST.
        name: name of the model on the server.
        trust_model: load a SavedModel even if it was not pushed here. Such a model can read and write files as it runs.

    Returns:
        A prediction for each image, in the order of `images`.

    Raises:
        UsageError: if a file or model is missing, a model is not trusted, or arguments contradict each other.
        DataRefused: if the model was changed after its push, or does not load.
        ServerError: if the server does not answer, rejects the request, or gives an unexpected answer.
    """
    files = [Path(image) for image in images]
    for file in files:
        if not file.is_file():
            raise UsageError(f"{file} is not a file: name PNG or JPEG files")
    from components.data.ingest.images import UNDECODABLE, examine

    # Images that `data prepare` rejects are rejected here too. The model itself accepts some of them, for example a
    # JPEG whose second half is missing.
    examined = [examine(file.read_bytes()) for file in files]
    usable = [None if reason else file for file, (reason, _) in zip(files, examined, strict=True)]
    if server is None:
        if grpc or name != MODEL_NAME:
            raise UsageError("--grpc and --name need a model server: name it with --server HOST:PORT")
        folder = model or newest_pushed(runs)
        source, answers = str(folder), _ask_folder(folder, usable, trust_model)
    else:
        if model is not None:
            raise UsageError("--server and --model cannot be used together: leave one of them out")
        source, answers = f"{name} at {server}", _ask_server(Server(_check_address(server), name, grpc), usable)
    return [
        Prediction(
            image=file,
            model=source,
            valid=answer.valid,
            reason="" if answer.valid else reason or UNDECODABLE,
            remarks=remarks,
            label=answer.name,
            probabilities=answer.probabilities,
        )
        for file, (reason, remarks), answer in zip(files, examined, answers, strict=True)
    ]


def _ask_folder(folder: Path, images: list[Path | None], trusted: bool) -> list[Answer]:
    check(folder, trusted)
    answers = []
    with redirected(Path(os.devnull)):
        import tensorflow as tf

        from trainer.saved_model import open_saved_model

        try:
            loaded = open_saved_model(folder, serving_bytes="image_bytes")
        except ValueError as error:
            raise DataRefused(f"{error}: push or restore it again, or name another folder with --model") from None
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            encoded = tf.constant([_read_image(image) for image in batch])
            answer = loaded.signatures["serving_bytes"](image_bytes=encoded)
            columns = (answer[output].numpy().tolist() for output in ("valid", "class", "probabilities"))
            for valid, name, probabilities in zip(*columns, strict=True):
                answers.append(Answer(valid, name.decode(), probabilities))
    return answers


def _read_image(image: Path | None) -> bytes:
    """Return the bytes of an image. An unusable image is replaced by no bytes, which the model reports as invalid."""
    return b"" if image is None else image.read_bytes()


def _ask_server(server: Server, images: list[Path | None]) -> list[Answer]:
    contents = (_read_image(image) for image in images)
    if not server.grpc:
        return list(ask(server, contents))
    with redirected(Path(os.devnull)):  # gRPC's message types import TensorFlow, which prints
        return list(ask(server, contents))


def _check_address(server: str) -> str:
    match = re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", server, re.ASCII)
    if not match or not 1 <= int(match[1]) <= 65535:
        raise UsageError(
            f"--server {server!r} is not HOST:PORT with a port from 1 to 65535: "
            "write for example localhost:8501 or [::1]:8501"
        )
    return server
