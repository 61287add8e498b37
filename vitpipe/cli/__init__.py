"""The `vitpipe` command, with one file for each command group.

Nothing here imports TensorFlow or TFX at module level: `vitpipe --help` answers at once.
"""

import logging
import sys

import typer
from rich.text import Text

from vitpipe.shadowing import shadows  # comes first, because other packages may be hidden

# isort: split

from components.errors import Exit, UsageError, VitpipeError
from pipeline.console.terminal import Console, escape_output, printable
from pipeline.error_messages import explain_error, is_disk_full
from vitpipe.cli import (
    artifacts,
    augment,
    bless,
    data,
    doctor,
    explain,
    finetune,
    gc,
    models,
    predict,
    report,
    run,
    runs,
    settings,
    study,
    ui,
    watch,
    why,
)
from vitpipe.cli.tables import print_warnings

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")
app.command()(doctor.doctor)
app.add_typer(data.app, name="data")
app.command()(settings.settings)
app.command()(augment.augment)
app.command()(run.run)
app.command()(finetune.finetune)
app.command()(watch.watch)
app.add_typer(runs.app, name="runs")
app.add_typer(study.app, name="study")
app.add_typer(artifacts.app, name="artifacts")
app.command()(artifacts.lineage)
app.command()(gc.gc)
app.command()(ui.ui)
app.command()(why.why)
app.command()(bless.bless)
app.command()(report.report)
app.command()(predict.predict)
app.command()(explain.explain)
app.add_typer(models.app, name="models")
app.command()(models.rollback)


def _add_kfp() -> None:
    """Add the commands of a cluster, unless a foreign package `kubeflow`, as the Kubeflow SDK is, hides ours."""
    if hidden := shadows(("kubeflow",)):
        _unavailable("kfp", "; ".join(hidden))
    else:
        from vitpipe.cli import kfp

        app.add_typer(kfp.app, name="kfp")


def _unavailable(name: str, why: str) -> None:
    def command() -> None:
        raise UsageError(f"vitpipe {name}: {why}")

    anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(name, hidden=True, context_settings=anything)(command)


_add_kfp()


@app.callback()
def vitpipe() -> None:
    """A production training pipeline for Vision Transformers on TFX."""


class _Warnings(logging.Handler):
    """Handler that prints logged warnings in the same way as those of the commands."""

    def emit(self, record: logging.LogRecord) -> None:
        print_warnings([record.getMessage()])


_WARNINGS = _Warnings(logging.WARNING)


def main() -> None:
    """Run the command; errors a person can mend end as one message and their exit code, not as a trace."""
    escape_output()
    logging.getLogger("pipeline.metadata").addHandler(_WARNINGS)
    try:
        app()
    except VitpipeError as error:
        _fail(error, error.exit)
    except Exception as error:
        if (text := explain_error(error)) is None:
            raise
        named = isinstance(error, OSError) and error.filename and not is_disk_full(error)
        _fail(text, Exit.USAGE if named else Exit.CRASHED)


def _fail(error: object, code: Exit) -> None:
    # Lines after the first are indented, so that no value can imitate a separate error.
    lines = error.args if isinstance(error, VitpipeError) else [error]
    message = "\n  ".join(printable(line) for line in lines)
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), message))
    sys.exit(code)
