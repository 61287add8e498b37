"""`vitpipe predict`: ask a pushed model, or a server that serves it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from components.errors import Exit
from pipeline.console.terminal import print_json, print_line
from vitpipe import prediction
from vitpipe.cli.options import Json, Runs
from vitpipe.cli.tables import print_rows

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
    name: Annotated[str, typer.Option(help="What the server calls the model.")] = prediction.MODEL_NAME,
    trust_model: TrustModel = False,
    as_json: Json = False,
) -> None:
    """Class and probability of each image."""
    predictions = prediction.predict(
        images, model=model, runs=runs, server=server, grpc=grpc, name=name, trust_model=trust_model
    )
    from components.data.ingest.images import notes

    for one in predictions:
        for line in notes(one.reason, one.remarks):
            print_line(f"{one.image}: {line}", sys.stderr)
    if as_json:
        print_json([_as_json(one) for one in predictions])
    else:
        print_line(f"model {predictions[0].model}", sys.stderr)
        print_rows(
            ("image", "class", "probability"),
            [(str(one.image), one.label or one.reason, f"{one.probability:.3f}") for one in predictions],
        )
    if not all(one.valid for one in predictions):
        raise typer.Exit(Exit.DATA_REFUSED)


def _as_json(one: prediction.Prediction) -> dict[str, object]:
    return {
        "image": str(one.image),
        "valid": one.valid,
        "reason": one.reason,
        "remarks": one.remarks,
        "class": one.label,
        "probability": one.probability,
        "probabilities": one.probabilities,
    }
