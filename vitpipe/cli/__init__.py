"""The `vitpipe` command, with one file for each command group.

Nothing here imports TensorFlow or TFX at module level: `vitpipe --help` answers at once.
"""

import logging
import sys
from types import ModuleType

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
    export,
    finetune,
    gc,
    lineage,
    models,
    monitor,
    predict,
    report,
    rollback,
    run,
    runs,
    settings,
    study,
    tune,
    ui,
    watch,
    why,
)
from vitpipe.cli.panels import example
from vitpipe.cli.tables import print_warnings

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    epilog=example("vitpipe data prepare sample", "vitpipe run -c sample", "vitpipe report last"),
)


def _add(*modules: ModuleType) -> None:
    for module in modules:
        # Typer does not read the panel of a group from the group itself.
        app.add_typer(module.app, rich_help_panel=module.app.rich_help_panel)


def _add_kfp() -> None:
    """Add the commands of a cluster, unless a foreign package `kubeflow`, such as the Kubeflow SDK, hides ours."""
    if hidden := shadows(("kubeflow",)):
        _add_unavailable("kfp", "; ".join(hidden))
    else:
        from vitpipe.cli import kfp

        _add(kfp)


def _add_unavailable(name: str, why: str) -> None:
    def command() -> None:
        raise UsageError(f"vitpipe {name}: {why}")

    accept_anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(name, hidden=True, context_settings=accept_anything)(command)


# The help shows panels and commands in this order.
_add(doctor, data, settings, augment)
_add(run, finetune, tune, study)
_add(runs, why, report, explain, ui, artifacts, lineage)
_add(models, predict, export, bless, rollback, monitor)
_add_kfp()
_add(watch, gc)


@app.callback()
def vitpipe() -> None:
    """Train Vision Transformers with TFX, check the models, and push those that pass.

    A *span* is one numbered version of the training data. *Pushing* a model publishes it in the folder that a model
    server watches. A model is *blessed* if it meets its bounds and is not worse than the serving model.
    """


class _WarningHandler(logging.Handler):
    """Handler that prints logged warnings in the same way as those of the commands."""

    def emit(self, record: logging.LogRecord) -> None:
        print_warnings([record.getMessage()])


_WARNING_HANDLER = _WarningHandler(logging.WARNING)


def main() -> None:
    """Run the command. An error that a user can fix ends as one message with its exit code, without a traceback."""
    escape_output()
    logging.getLogger("pipeline.metadata").addHandler(_WARNING_HANDLER)
    try:
        app()
    except VitpipeError as error:
        _fail(error, error.exit)
    except Exception as error:
        if (text := explain_error(error)) is None:
            raise
        names_a_file = isinstance(error, OSError) and error.filename and not is_disk_full(error)
        _fail(text, Exit.USAGE if names_a_file else Exit.CRASHED)


def _fail(error: object, code: Exit) -> None:
    # Lines after the first are indented, so that no value can imitate a separate error.
    lines = error.args if isinstance(error, VitpipeError) else [error]
    message = "\n  ".join(printable(line) for line in lines)
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), message))
    sys.exit(code)
