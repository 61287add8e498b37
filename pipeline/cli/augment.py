"""`vitpipe augment`: training images as a preset augments them, on one sheet."""

from pathlib import Path
from typing import Annotated

import typer

from components import ingest
from pipeline.cli.options import Config, Data, Overrides
from pipeline.config import load
from pipeline.logs import shown
from pipeline.terminal import print_line


def augment(
    config: Config = "sample",
    data: Data = None,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture.")] = Path("augment.png"),
) -> None:
    """Draw training images beside what the model sees of them in training."""
    settings = load(config, overrides, data={} if data is None else {"dir": str(data.expanduser())})
    span = ingest.span_folder(settings.data.dir, settings.chosen_span())
    from pipeline.augment_sheet import draw

    sheet = draw(span, settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, "PNG")
    print_line(shown(out))
