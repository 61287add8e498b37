"""`vitpipe predict`: classes of images, from a pushed model or from a model server."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from components.errors import Exit
from pipeline.console.terminal import print_json, print_line
from vitpipe import prediction
from vitpipe.cli.options import Json, Runs
from vitpipe.cli.panels import DEPLOY, example
from vitpipe.cli.tables import print_rows

app = typer.Typer()

TrustModel = Annotated[
    bool,
    typer.Option(
        "--trust-model",
        help="Load a SavedModel even if it was not pushed here. Such a model can read and write files as it runs.",
    ),
]


@app.command(
    rich_help_panel=DEPLOY,
    epilog=example("vitpipe predict cat.jpg dog.png", "vitpipe predict cat.jpg --server localhost:8501"),
)
def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG or JPEG files.")],
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of a SavedModel.", show_default="the newest pushed model"),
    ] = None,
    runs: Runs = Path("runs"),
    server: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Model server to query instead, by TensorFlow Serving's REST API."),
    ] = None,
    grpc: Annotated[bool, typer.Option("--grpc", help="Query the server by gRPC instead of REST.")] = False,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the model on the server.")] = prediction.MODEL_NAME,
    trust_model: TrustModel = False,
    as_json: Json = False,
) -> None:
    """Print the class of each image and its probability.

    Exits with 3 if an image cannot be decoded.
    """
    predictions = prediction.predict(
        images, model=model, runs=runs, server=server, grpc=grpc, name=name, trust_model=trust_model
    )
    from components.data.ingest.images import notes

    for answer in predictions:
        for line in notes(answer.reason, answer.remarks):
            print_line(f"{answer.image}: {line}", sys.stderr)
    if as_json:
        print_json([_as_json(answer) for answer in predictions])
    else:
        print_line(f"model {predictions[0].model}", sys.stderr)
        print_rows(
            ("image", "class", "probability"),
            [(str(answer.image), answer.label or answer.reason, f"{answer.probability:.3f}") for answer in predictions],
        )
    if not all(answer.valid for answer in predictions):
        raise typer.Exit(Exit.DATA_REFUSED)


def _as_json(answer: prediction.Prediction) -> dict[str, object]:
    return {
        "image": str(answer.image),
        "valid": answer.valid,
        "reason": answer.reason,
        "remarks": answer.remarks,
        "class": answer.label,
        "probability": answer.probability,
        "probabilities": answer.probabilities,
    }
