"""`vitpipe finetune`: the graph of `vitpipe run`, from a pretrained backbone."""

import json
from typing import Annotated

import typer

from components.errors import UsageError
from vitpipe.cli.options import Config, Data, DryRun, Overrides, Span
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
    config: Config,
    data: Data = None,
    overrides: Overrides = None,
    span: Span = None,
    dry_run: DryRun = False,
) -> None:
    """Give a pretrained model a new head, train that, then the top of the model; gate and push as `run` does.

    The same as `vitpipe run --set finetune.source=SOURCE`, which takes all options.
    """
    if not source:
        raise UsageError("--from is empty: name the backbone, or train from scratch with `vitpipe run`")
    # As JSON, for a pipeline may be called 10, and a path may hold what YAML reads as something else.
    run(config, data, [*(overrides or []), f"finetune.source={json.dumps(source)}"], span, dry_run=dry_run)
