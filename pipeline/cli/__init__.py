"""The `vitpipe` command, one file a command group.

Nothing here imports TensorFlow or TFX at module level: `vitpipe --help` answers at once.
"""

import sys

import typer
from rich.console import Console
from rich.markup import escape

from components.ingest import DataRefused, UsageError
from pipeline.cli import artifacts, augment, bless, data, doctor, gc, models, predict, report, run, runs, ui, watch, why
from pipeline.config import SettingsError
from pipeline.exits import Exit
from pipeline.metadata.address import StoreError
from pipeline.metadata.stores import NotFound
from pipeline.model_server import ServerError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")
app.command()(doctor.doctor)
app.add_typer(data.app, name="data")
app.command()(augment.augment)
app.command()(run.run)
app.command()(watch.watch)
app.add_typer(runs.app, name="runs")
app.add_typer(artifacts.app, name="artifacts")
app.command()(artifacts.lineage)
app.command()(gc.gc)
app.command()(ui.ui)
app.command()(why.why)
app.command()(bless.bless)
app.command()(report.report)
app.command()(predict.predict)
app.add_typer(models.app, name="models")
app.command()(models.rollback)


@app.callback()
def vitpipe() -> None:
    """A production training pipeline for Vision Transformers on TFX."""


def main() -> None:
    """Run the command; errors a person can mend end as one message and their exit code, not as a trace."""
    try:
        app()
    except (SettingsError, UsageError, NotFound) as error:
        _fail(error, Exit.USAGE)
    except DataRefused as error:
        _fail(error, Exit.DATA_REFUSED)
    except (ServerError, StoreError) as error:
        _fail(error, Exit.CRASHED)


def _fail(error: Exception, code: Exit) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print("[bold red]error:[/]", escape(str(error)))
    sys.exit(code)
