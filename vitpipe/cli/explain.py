"""`vitpipe explain`: what a model looks at, in some images or over the test set."""

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
from vitpipe.cli.predict import TrustModel
from vitpipe.cli.tables import print_rows


def explain(
    images: Annotated[
        list[str] | None,
        typer.Argument(metavar="IMAGE|ID", help="PNG or JPEG files, or ids of examples; none: the model itself."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="SavedModel folder, .keras file, or a Trainer's model_run; else the newest pushed model."),
    ] = None,
    runs: Runs = Path("runs"),
    data: Annotated[
        Path | None, typer.Option(help="Data folder or one of its spans; else what the model's gate looked at.")
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where the page and its pictures go.")] = Path("explain"),
    count: Annotated[
        int | None,
        typer.Option(
            "--images",
            min=1,
            max=1_000_000,
            help="Test images that the model's page is over.",
            show_default=str(explanation.IMAGES),
        ),
    ] = None,
    curves: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1_000_000,
            help="Test images for deletion and insertion; 0 leaves them out.",
            show_default=str(explanation.CURVES),
        ),
    ] = None,
    trust_model: TrustModel = False,
    as_json: Json = False,
) -> None:
    """Draw attention over images, of every block and head, on one page; without images, the page of the model."""
    if images and (count, curves) != (None, None):
        raise UsageError("--images and --curves are for the model's page: leave them out, or name no image")
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

    for one in explained.images:
        for line in notes(one.reason, one.remarks):
            print_line(f"{one.image}: {line}", sys.stderr)
    page = display_path(explained.page) if explained.page else None
    if as_json:
        rows = [
            {"image": one.image, "valid": one.valid, "reason": one.reason, "remarks": one.remarks, **one.figures}
            for one in explained.images
        ]
        print_json({"model": str(explained.model), "page": page, "images": rows})
    else:
        print_line(f"model {display_path(explained.model)}", sys.stderr)
        print_rows(
            ("image", "class", "probability"),
            [
                (one.image, one.figures["class"], f"{max(one.figures['probabilities'].values()):.3f}")
                if one.valid
                else (one.image, one.reason, "")
                for one in explained.images
            ],
        )
        if page:
            print_line(page)
    if not all(one.valid for one in explained.images):
        raise typer.Exit(Exit.DATA_REFUSED)
