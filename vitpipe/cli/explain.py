"""`vitpipe explain`: what a model attends to, in some images or over its test set."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from components.errors import Exit, UsageError
from pipeline.console.display import Display
from pipeline.console.logs import display_path, own_stderr
from pipeline.console.terminal import print_json, print_line
from vitpipe import explanation
from vitpipe.cli.options import Json, Runs
from vitpipe.cli.panels import LOOK, example
from vitpipe.cli.predict import TrustModel
from vitpipe.cli.tables import print_rows

app = typer.Typer()


@app.command(
    rich_help_panel=LOOK,
    epilog=example("vitpipe explain cat.jpg dog.png --out explain", "vitpipe explain --images 500"),
)
def explain(
    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE|ID", help="PNG or JPEG files, or ids of examples. Omit them to explain the model itself."
        ),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Folder of a SavedModel, `.keras` file, or the `model_run` folder of a Trainer.",
            show_default="the newest pushed model",
        ),
    ] = None,
    runs: Runs = Path("runs"),
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Data folder, or one of its spans.",
            show_default="the test data of the model gate",
        ),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the page and its pictures.")] = Path("explain"),
    count: Annotated[
        int | None,
        typer.Option(
            "--images",
            min=1,
            max=1_000_000,
            metavar="N",
            help="Number of test images for the page about the model.",
            show_default=str(explanation.IMAGES),
        ),
    ] = None,
    curves: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1_000_000,
            metavar="N",
            help="Number of test images for the deletion and insertion curves, which check the maps; 0 for none.",
            show_default=str(explanation.CURVES),
        ),
    ] = None,
    trust_model: TrustModel = False,
    as_json: Json = False,
) -> None:
    """Show what a model attends to, in some images or over its test set.

    With images, one page shows the attention of every block and head over them. Without images, a page about the model
    shows statistics of its attention over many test images, and whether the attention maps can be trusted.
    """
    if images and (count, curves) != (None, None):
        raise UsageError("--images and --curves are for the page about the model: leave them out, or name no image")
    if images:
        _explain_images(images, model, runs, data, out, trust_model, as_json)
        return
    with own_stderr() as stderr:
        explained = explanation.explain_model(
            model=model,
            runs=runs,
            data=data,
            out=out,
            images=count or explanation.IMAGES,
            curves=explanation.CURVES if curves is None else curves,
            trust_model=trust_model,
            display=Display(stderr),
        )
    page = display_path(explained.page)
    if as_json:
        print_json({**explained.figures.model_dump(mode="json"), "page": page})
        return
    print_line(f"model {display_path(explained.model)}", sys.stderr)
    for curve in explained.figures.removal.curves if explained.figures.removal else []:
        print_line(curve.line)
    print_line(page)


def _explain_images(
    images: list[str], model: Path | None, runs: Path, data: Path | None, out: Path, trust_model: bool, as_json: bool
) -> None:
    explained = explanation.explain(images, model=model, runs=runs, data=data, out=out, trust_model=trust_model)
    from components.data.ingest.images import notes

    for image in explained.images:
        for line in notes(image.reason, image.remarks):
            print_line(f"{image.image}: {line}", sys.stderr)
    page = display_path(explained.page) if explained.page else None
    if as_json:
        rows = [
            {
                "image": image.image,
                "valid": image.valid,
                "reason": image.reason,
                "remarks": image.remarks,
                **image.figures,
            }
            for image in explained.images
        ]
        print_json({"model": str(explained.model), "page": page, "images": rows})
    else:
        print_line(f"model {display_path(explained.model)}", sys.stderr)
        print_rows(
            ("image", "class", "probability"),
            [
                (image.image, image.figures["class"], f"{max(image.figures['probabilities'].values()):.3f}")
                if image.valid
                else (image.image, image.reason, "")
                for image in explained.images
            ],
        )
        if page:
            print_line(page)
    if not all(image.valid for image in explained.images):
        raise typer.Exit(Exit.DATA_REFUSED)
