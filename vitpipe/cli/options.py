"""Options and arguments that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from components.errors import StoreError
from pipeline.metadata import stores


def complete_run(incomplete: str) -> list[str]:
    """Return the ids of runs that begin with `incomplete`, for completion in the shell."""
    try:
        answers, _ = stores.ask_all(Path("runs"), lambda store: store.run_names())
    except StoreError:
        return []
    return [name for _, names in answers for name in names if name.startswith(incomplete) and name.isprintable()]


Config = Annotated[
    str,
    typer.Option(
        "--config", "-c", metavar="PRESET|FILE", help="Preset, such as `cifar10`, or YAML file with the settings."
    ),
]
Data = Annotated[Path | None, typer.Option(metavar="DIR", help="Data folder.", show_default="the setting data.dir")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Override a setting, such as `training.epochs=5`. Repeatable."),
]
Span = Annotated[
    int | None, typer.Option(metavar="N", help="Number of the span to train on.", show_default="the newest")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Print the resolved settings and the nodes, without running anything.")
]
Accept = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CHECK", help="Continue even if this check of the data gate fails. Repeatable, requires `--reason`."
    ),
]

Runs = Annotated[Path, typer.Option(metavar="DIR", help="Folder that contains the run folders.")]
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Id of the run, or `last` for the newest.", autocompletion=complete_run)
]
OnlyPipeline = Annotated[
    str | None,
    typer.Option("--pipeline", metavar="NAME", help="Include only this pipeline.", show_default="all"),
]
OnePipeline = Annotated[
    str | None,
    typer.Option("--pipeline", metavar="NAME", help="Name of the pipeline. Required if there are several."),
]
Limit = Annotated[int, typer.Option(min=0, max=1_000_000, metavar="N", help="Maximum number of lines; 0 for all.")]

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
