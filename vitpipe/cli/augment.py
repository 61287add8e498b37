"""`vitpipe augment`: training images as a preset augments them, on one sheet."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.console.logs import shown
from pipeline.console.terminal import print_line
from pipeline.settings import load


def augment(
    config: Annotated[str, typer.Option("--config", "-c", metavar="PRESET|FILE")] = "sample",
    data: Annotated[Path | None, typer.Option(help="Data folder, instead of the setting data.dir.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting.")] = None,
    out: Annotated[Path, typer.Option(metavar="FILE.png", help="The picture.")] = Path("augment.png"),
) -> None:
    """Draw training images beside what the model sees of them in training."""
    settings = load(config, overrides, data={} if data is None else {"dir": str(data.expanduser())})
    from vitpipe.augmentation_sheet import draw

    sheet = draw(settings)
    out.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(out, "PNG")
    print_line(shown(out))
