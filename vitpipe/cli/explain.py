"""`vitpipe explain`: what a model looks at, in some images or over the test set."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from components.errors import DataRefused, Exit, SettingsError
from pipeline.console.display import Display
from pipeline.console.logs import own_stderr, redirected, shown
from pipeline.console.terminal import print_json, print_line
from pipeline.pushed_models import newest_pushed
from vitpipe.cli.options import Json, Runs
from vitpipe.cli.predict import TrustModel
from vitpipe.cli.tables import print_rows

_IMAGES, _CURVES = 1000, 200


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
            show_default=str(_IMAGES),
        ),
    ] = None,
    curves: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=1_000_000,
            help="Test images for deletion and insertion; 0 leaves them out.",
            show_default=str(_CURVES),
        ),
    ] = None,
    trust_model: TrustModel = False,
    as_json: Json = False,
) -> None:
    """Draw attention over images, of every block and head, on one page; without images, the page of the model."""
    if images and (count, curves) != (None, None):
        raise SettingsError("--images and --curves are for the model's page: leave them out, or name no image")
    from vitpipe import inputs

    folder = inputs.model(model or newest_pushed(runs), trust_model)
    if images:
        told, lines, broken = _of_images(folder, images, data, runs, out)
    else:
        count, curves, broken = count or _IMAGES, _CURVES if curves is None else curves, False
        told, lines = _of_model(folder, data, runs, out, count, min(curves, count))
    if as_json:
        print_json(told)
    else:
        print_line(f"model {shown(folder)}", sys.stderr)
        lines()
        if told["page"]:
            print_line(told["page"])
    if broken:
        raise typer.Exit(Exit.DATA_REFUSED)


def _of_images(folder: Path, names: list[str], data: Path | None, runs: Path, out: Path):
    from components.data.ingest import manifest
    from components.data.ingest.images import UNDECODABLE, examine, notes
    from vitpipe.inputs import by_id, gate_span, given_span

    files = {}
    for name in names:
        try:
            if Path(name).is_file():
                files[name] = Path(name).read_bytes()
        except OSError as error:
            raise SettingsError(f"{name} cannot be read ({error.strerror}): name another file") from None
    ids = [name for name in names if name not in files]
    span = given_span(data) if data else None
    if ids and span is None:
        try:
            span = gate_span(folder, runs)
        except SettingsError as error:
            raise SettingsError(f"{ids[0]} is not a file, and cannot be looked up as an id: {error}") from None
    encoded = {**files, **(by_id(span, ids) if span and ids else {})}
    examined = {name: examine(encoded[name]) for name in names}
    for name, (reason, remarks) in examined.items():
        for line in notes(reason, remarks):
            print_line(f"{name}: {line}", sys.stderr)
    with redirected(Path(os.devnull)):
        from pipeline.drawing.explain_images import figures, write
        from pipeline.explained_model import open_model

        opened = open_model(folder, manifest.read(span).class_names if span else None)
        found = opened.explain([b"" if examined[name][0] else encoded[name] for name in names])
        valid = [name for name, decodes in zip(names, found.valid, strict=True) if decodes]
        rows = figures(opened, valid, found)
        page = _written(out, lambda: write(opened, rows, found, out)) if rows else None
    by_name = {row["image"]: row for row in rows}
    told = [
        {
            "image": name,
            "valid": name in by_name,
            "reason": "" if name in by_name else examined[name][0] or UNDECODABLE,
            "remarks": examined[name][1],
            **by_name.get(name, {}),
        }
        for name in names
    ]

    def lines() -> None:
        print_rows(
            ("image", "class", "probability"),
            [
                (one["image"], one["class"], f"{max(one['probabilities'].values()):.3f}")
                if one["valid"]
                else (one["image"], one["reason"], "")
                for one in told
            ],
        )

    return {"model": str(folder), "page": page, "images": told}, lines, not found.valid.all()


def _of_model(folder: Path, data: Path | None, runs: Path, out: Path, count: int, curves: int):
    from itertools import islice

    from components.data.ingest import manifest
    from vitpipe.inputs import examples, gate_span, given_span

    span = given_span(data) if data else gate_span(folder, runs)
    names = manifest.read(span).class_names
    tests = list(islice(examples(span, "test"), count))
    if not tests:
        raise DataRefused(f"{span} has no test images: name other data with --data")
    stderr = own_stderr()
    if len(tests) < count:
        print_line(f"{len(tests):,} test images are all that {span} has, {count:,} were asked for", stderr)
    with redirected(Path(os.devnull)), Display(stderr) as display:
        from pipeline.drawing.explain_model import measure, write
        from pipeline.explained_model import open_model

        opened = open_model(folder, names)
        if opened.classes != list(names):
            raise SettingsError(f"{folder} answers other classes than {span} has: name its own data with --data")
        tell = display.started if stderr.isatty() else display.line
        encoded, labels = [one.image for one in tests], [one.label for one in tests]
        figures = measure(opened, str(span), encoded, labels, curves, tell)
        page = _written(out, lambda: write(opened, figures, out))

    def lines() -> None:
        for curve in figures.removal.curves if figures.removal else []:
            print_line(curve.line)

    return {**figures.model_dump(mode="json"), "page": page}, lines


def _written(out: Path, write: Callable[[], Path]) -> str:
    try:
        return shown(write())
    except OSError as error:
        raise SettingsError(f"{out} cannot be written ({error.strerror}): name another folder with --out") from None
