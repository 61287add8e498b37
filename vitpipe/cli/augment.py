"""`vitpipe augment`: training images as a preset augments them, on one sheet."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.console.logs import display_path
from pipeline.console.terminal import print_line
from pipeline.settings import load
from vitpipe.cli.options import Config, Data, Overrides
from vitpipe.cli.panels import PREPARE, example

app = typer.Typer()


@app.command(
    rich_help_panel=PREPARE,
    epilog=example("vitpipe augment -c cifar10 --set augment.mixup=0 --out augment.png"),
)
def augment(
    config: Config = "sample",
    data: Data = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="File to write.")] = Path("augment.png"),
) -> None:
    """Draw training images next to augmented versions of them, as the model sees them in training."""
    settings = load(config, overrides, data={} if data is None else {"dir": str(data.expanduser())})
    from vitpipe.augmentation_sheet import draw

    sheet = draw(settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, "PNG")
    print_line(display_path(out))
