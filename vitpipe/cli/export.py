"""`vitpipe export`: a pushed model in another format."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline import export as exports
from pipeline.console.logs import display_path
from pipeline.console.terminal import print_json, print_line
from vitpipe.cli.options import Json, Runs
from vitpipe.cli.panels import DEPLOY, example

app = typer.Typer()


class Format(StrEnum):
    """Formats that a model can be exported to."""

    LITERT = "litert"


@app.command(
    rich_help_panel=DEPLOY,
    epilog=example("vitpipe export sample --to litert", "vitpipe export sample/1 --to litert --int8"),
)
def export(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Pipeline, for its newest version, or PIPELINE/VERSION.")],
    to: Annotated[Format, typer.Option(metavar="FORMAT", help="Format: `litert` (formerly TensorFlow Lite).")],
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantize to int8, calibrated with images of the train split.")
    ] = False,
    max_difference: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            help="Largest difference of a probability from the pushed model.",
            show_default=f"{exports.MOST_DIFFERENCE}, or no bound with --int8",
        ),
    ] = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Convert a pushed model for phones and small devices.

    Both models answer the test images of the model gate. Exits with 4, and leaves no file, if the exported model
    differs from the pushed one by more than the bound, or misses a bound of the model gate.
    """
    exported = exports.export(name, to=to.value, int8=int8, max_difference=max_difference, runs=runs)
    comparison = exported.comparison
    if as_json:
        checks = [check.model_dump() for check in comparison.checks]
        print_json(
            {**exported.__dict__, "file": str(exported.file), "comparison": {**comparison.__dict__, "checks": checks}}
        )
        return
    print_line(
        f"{comparison.same_class:,} of {comparison.examples:,} test images get the same class; probabilities differ by "
        f"at most {comparison.largest_difference:.6f}"
    )
    for check in comparison.checks:
        print_line(check)
    print_line(
        f"The exported model has {comparison.bytes / 1e6:.2f} MB, the pushed model {comparison.model_bytes / 1e6:.2f} "
        f"MB. One image takes {comparison.milliseconds:.2f} ms, with the pushed model "
        f"{comparison.model_milliseconds:.2f} ms."
    )
    print_line(
        f"exported version {exported.version} of {exported.pipeline} to {display_path(exported.file)}, artifact "
        f"{exported.artifact}"
    )
