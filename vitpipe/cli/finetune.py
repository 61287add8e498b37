"""`vitpipe finetune`: the graph of `vitpipe run`, from a pretrained backbone."""

import json
from pathlib import Path
from typing import Annotated

import typer

from components.errors import UsageError
from vitpipe.cli.run import run


def finetune(
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="The backbone: a pipeline (the model it serves), a version folder, a .keras or .weights.h5 file, the "
            "folder of a KerasHub preset, or hub:PRESET.",
        ),
    ],
    config: Annotated[str, typer.Option("--config", "-c", metavar="PRESET|FILE")],
    data: Annotated[Path | None, typer.Option(help="Data folder, instead of the setting data.dir.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting.")] = None,
    span: Annotated[int | None, typer.Option(help="Span to train on; the newest when not given.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show settings and nodes, run nothing.")] = False,
) -> None:
    """Give a pretrained model a new head, train that, then the top of the model; gate and push as `run` does.

    The same as `vitpipe run --set finetune.source=SOURCE`, which takes all options.
    """
    if not source:
        raise UsageError("--from is empty: name the backbone, or train from scratch with `vitpipe run`")
    # As JSON, for a pipeline may be called 10, and a path may hold what YAML reads as something else.
    run(config, data, [*(overrides or []), f"finetune.source={json.dumps(source)}"], span, dry_run=dry_run)
