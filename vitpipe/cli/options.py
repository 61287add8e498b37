"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from components.errors import StoreError
from pipeline.metadata import stores


def complete_run(incomplete: str) -> list[str]:
    """Return the names of runs that begin with `incomplete`, for completion in the shell."""
    try:
        answers, _ = stores.ask_all(Path("runs"), lambda store: store.run_names())
    except StoreError:
        return []
    return [name for _, names in answers for name in names if name.startswith(incomplete) and name.isprintable()]


Config = Annotated[str, typer.Option("--config", "-c", metavar="PRESET|FILE")]
Data = Annotated[Path | None, typer.Option(help="Data folder, instead of the setting data.dir.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting.")]
Span = Annotated[int | None, typer.Option(help="Span to train on; the newest when not given.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show settings and nodes without running anything.")]

Runs = Annotated[Path, typer.Option(help="Folder that holds the run folders.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, or `last`.", autocompletion=complete_run)]
OnlyPipeline = Annotated[str | None, typer.Option("--pipeline", help="Only this pipeline.")]
OnePipeline = Annotated[
    str | None, typer.Option("--pipeline", help="Name of the pipeline; not needed if there is only one.")
]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
