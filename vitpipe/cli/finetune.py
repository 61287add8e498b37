"""`vitpipe finetune`: the graph of `vitpipe run`, from a pretrained backbone."""

import json
from typing import Annotated

import typer

from components.errors import UsageError
from vitpipe.cli.options import Config, Data, DryRun, Overrides, Span
from vitpipe.cli.panels import RUN, example
from vitpipe.cli.run import run

app = typer.Typer()


@app.command(
    rich_help_panel=RUN,
    epilog=example(
        "vitpipe finetune --from cifar10 -c pets.yaml",
        "vitpipe finetune --from hub:vit_base_patch16_224_imagenet -c pets.yaml",
    ),
)
def finetune(
    source: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="SOURCE",
            help="The pretrained backbone: a pipeline (its serving model), the folder of a pushed version, a `.keras` "
            "or `.weights.h5` file, the folder of a KerasHub preset, or `hub:PRESET`.",
        ),
    ],
    config: Config,
    data: Data = None,
    overrides: Overrides = None,
    span: Span = None,
    dry_run: DryRun = False,
) -> None:
    """Fine-tune a pretrained backbone, then check and push the model as `run` does.

    A new head is trained first, then the top of the model. This is `vitpipe run --set finetune.source=SOURCE`, which
    accepts more options.
    """
    if not source:
        raise UsageError("--from is empty: name the backbone, or train from scratch with `vitpipe run`")
    # JSON quotes the value: YAML would read a pipeline called 10 as a number.
    run(config, data, [*(overrides or []), f"finetune.source={json.dumps(source)}"], span, dry_run=dry_run)
