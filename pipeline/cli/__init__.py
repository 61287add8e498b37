"""The `vitpipe` command, one file a command group.

Nothing here imports TensorFlow or TFX at module level: `vitpipe --help` answers at once.
"""

import contextlib
import importlib.metadata
import sys
from collections.abc import Iterable

import typer
from rich.text import Text

from pipeline.shadowed import shadows  # comes first, because other packages may be hidden

# isort: split

from components.ingest import DataRefused, UsageError
from pipeline.cli import (
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
)  # fmt: skip
from pipeline.config import SettingsError
from pipeline.exits import Exit
from pipeline.metadata.address import StoreError
from pipeline.metadata.stores import NotFound
from pipeline.model_server import ServerError
from pipeline.problems import explained, is_full
from pipeline.terminal import Console, escape_output, printable

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


def _add_layers_above() -> None:
    """Groups of commands of layers that this one may not import: entry points of our own distribution."""
    found: Iterable[importlib.metadata.EntryPoint] = ()
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        found = importlib.metadata.distribution("vitpipe").entry_points.select(group="vitpipe.commands")
    for entry in found:
        try:
            app.add_typer(entry.load(), name=entry.name)
        except Exception as error:  # the package may be a foreign one, and raise anything
            hidden = "; ".join(shadows(("kubeflow",)))
            _unavailable(entry.name, hidden or f"{entry.value} does not load: {error}; `vitpipe doctor` may say more")
    if not found:
        _unavailable("kfp", "this installation is older than the code, and does not know it: `make setup`")


def _unavailable(name: str, why: str) -> None:
    def command() -> None:
        raise SettingsError(f"vitpipe {name}: {why}")

    anything = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
    app.command(name, hidden=True, context_settings=anything)(command)


_add_layers_above()


@app.callback()
def vitpipe() -> None:
    """A production training pipeline for Vision Transformers on TFX."""


def main() -> None:
    """Run the command; errors a person can mend end as one message and their exit code, not as a trace."""
    escape_output()
    try:
        app()
    except (SettingsError, UsageError, NotFound) as error:
        _fail(error, Exit.USAGE)
    except DataRefused as error:
        _fail(error, Exit.DATA_REFUSED)
    except (ServerError, StoreError) as error:
        _fail(error, Exit.CRASHED)
    except Exception as error:
        if (text := explained(error)) is None:
            raise
        named = isinstance(error, OSError) and error.filename and not is_full(error)
        _fail(text, Exit.USAGE if named else Exit.CRASHED)


def _fail(error: object, code: Exit) -> None:
    # Lines after the first are indented, so that no value can imitate a separate error.
    lines = error.args if isinstance(error, SettingsError) else [error]
    message = "\n  ".join(printable(line) for line in lines)
    Console(stderr=True, soft_wrap=True).print(Text.assemble(("error: ", "bold red"), message))
    sys.exit(code)
