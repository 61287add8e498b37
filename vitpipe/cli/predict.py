"""`vitpipe predict`: ask a pushed model, or a server that serves it."""

import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from components.errors import DataRefused, Exit, SettingsError
from pipeline.console.logs import redirected
from pipeline.console.terminal import print_json, print_line
from pipeline.pushed_models import check, newest_pushed
from vitpipe.cli.options import Json, Runs
from vitpipe.cli.tables import print_rows
from vitpipe.model_server import Answer, Server, ask

_BATCH = 32  # images a call
_NAME = "vit"  # the model's, as our serving manifests have it

TrustModel = Annotated[
    bool,
    typer.Option(
        "--trust-model",
        help="Load even a SavedModel that was not pushed here, which can read and write files as it runs.",
    ),
]


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG or JPEG files.")],
    model: Annotated[Path | None, typer.Option(help="SavedModel folder; the newest pushed one when not given.")] = None,
    runs: Runs = Path("runs"),
    server: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Ask this model server (TensorFlow Serving's REST).")
    ] = None,
    grpc: Annotated[bool, typer.Option("--grpc", help="The server's port speaks gRPC.")] = False,
    name: Annotated[str, typer.Option(help="What the server calls the model.")] = _NAME,
    trust_model: TrustModel = False,
    as_json: Json = False,
) -> None:
    """Class and probability of each image."""
    for image in images:
        if not image.is_file():
            raise SettingsError(f"{image} is not a file: name PNG or JPEG files")
    from components.data.ingest.images import UNDECODABLE, examine, notes

    # A model decodes more than `data prepare` accepts, for example a JPEG that lost its second half.
    examined = [examine(image.read_bytes()) for image in images]
    usable = [None if reason else image for image, (reason, _) in zip(images, examined, strict=True)]
    if server is None:
        if grpc or name != _NAME:
            raise SettingsError("--grpc and --name are for a model server: name it with --server HOST:PORT")
        folder = model or newest_pushed(runs)
        source, rows = str(folder), _from_folder(folder, usable, trust_model)
    else:
        if model is not None:
            raise SettingsError("--server and --model cannot be used together: leave one of them out")
        source, rows = f"{name} at {server}", _from_server(Server(_address(server), name, grpc), usable)
    answers: list[dict[str, Any]] = [
        {
            "image": str(image),
            "valid": row.valid,
            "reason": "" if row.valid else reason or UNDECODABLE,
            "remarks": remarks,
            "class": row.name,
            "probability": max(row.probabilities),
            "probabilities": row.probabilities,
        }
        for image, (reason, remarks), row in zip(images, examined, rows, strict=True)
    ]
    for answer in answers:
        for line in notes(answer["reason"], answer["remarks"]):
            print_line(f"{answer['image']}: {line}", sys.stderr)
    if as_json:
        print_json(answers)
    else:
        print_line(f"model {source}", sys.stderr)
        print_rows(
            ("image", "class", "probability"),
            [
                (answer["image"], answer["class"] or answer["reason"], f"{answer['probability']:.3f}")
                for answer in answers
            ],
        )
    if not all(answer["valid"] for answer in answers):
        raise typer.Exit(Exit.DATA_REFUSED)


def _from_folder(folder: Path, images: list[Path | None], trusted: bool) -> list[Answer]:
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
            answer = loaded.signatures["serving_bytes"](image_bytes=tf.constant([_content(image) for image in batch]))
            columns = (answer[output].numpy().tolist() for output in ("valid", "class", "probabilities"))
            for valid, name, probabilities in zip(*columns, strict=True):
                answers.append(Answer(valid, name.decode(), probabilities))
    return answers


def _content(image: Path | None) -> bytes:
    """Return the bytes of an image; no bytes for an unusable one, which the model answers as invalid."""
    return b"" if image is None else image.read_bytes()


def _from_server(server: Server, images: list[Path | None]) -> list[Answer]:
    contents = (_content(image) for image in images)
    if not server.grpc:
        return list(ask(server, contents))
    with redirected(Path(os.devnull)):  # gRPC's messages bring TensorFlow and what it prints
        return list(ask(server, contents))


def _address(server: str) -> str:
    match = re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})", server, re.ASCII)
    if not match or not 1 <= int(match[1]) <= 65535:
        raise SettingsError(
            f"--server {server!r} is not HOST:PORT with a port from 1 to 65535: "
            "write it like localhost:8501 or [::1]:8501"
        )
    return server
