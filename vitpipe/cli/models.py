"""`vitpipe models`: list and verify the pushed models."""

import sys
from pathlib import Path

import typer

from components.errors import DataRefused, Exit
from components.model.serving_folder import CARD, ModelRecord
from pipeline import pushed_models
from pipeline.console.terminal import print_json, print_line
from vitpipe.cli.options import Json, Runs
from vitpipe.cli.panels import DEPLOY, MAINTAIN, example
from vitpipe.cli.tables import print_rows

app = typer.Typer(
    name="models", help="List and verify the pushed models.", no_args_is_help=True, rich_help_panel=DEPLOY
)


@app.command("list", rich_help_panel=DEPLOY, epilog=example("vitpipe models list"))
def list_models(runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """List every pushed version of a model, and mark the versions that serve."""
    listing = pushed_models.list_models(runs)
    if as_json:
        rows = [
            {
                "pipeline": model.pipeline,
                "serving": model.serving,
                **model.record.model_dump(mode="json", exclude={"files"}),
                "version": int(model.folder.name),
                "card": str(model.folder / CARD) if (model.folder / CARD).is_file() else None,
            }
            for model in listing.models
        ]
        print_json(rows)
    else:
        print_rows(
            ("pipeline", "version", "pushed", "run", "span", "accuracy", "code", ""),
            [
                (
                    model.pipeline,
                    model.folder.name,
                    f"{model.record.pushed_at:%Y-%m-%d %H:%M}",
                    model.record.run_id,
                    str(model.record.span),
                    accuracy_text(model.record),
                    model.record.code_version,
                    _state(model.record, model.serving),
                )
                for model in listing.models
            ],
        )
    if listing.unreadable:
        raise DataRefused("; ".join(listing.unreadable))


@app.command(rich_help_panel=MAINTAIN, epilog=example("vitpipe models verify"))
def verify(runs: Runs = Path("runs")) -> None:
    """Check the files of all pushed models against the digests that were recorded when they were pushed.

    Exits with 3 if a file was changed.
    """
    verification = pushed_models.verify_models(runs)
    for line in verification.changed:
        print_line(line)
    if verification.unreadable:
        raise DataRefused("; ".join(verification.unreadable))
    if verification.changed:
        raise typer.Exit(Exit.DATA_REFUSED)
    print(f"{verification.versions} pushed version(s), all files are unmodified")
    for line in verification.warnings:
        print_line(f"warning: {line}", sys.stderr)


def accuracy_text(record: ModelRecord) -> str:
    """Return the accuracy as text, or an empty string: a record that a user wrote may lack it."""
    return f"{record.metrics['accuracy']:.4f}" if "accuracy" in record.metrics else ""


def _state(record: ModelRecord, serves: bool) -> str:
    restored = f"version {record.restored_from} again" if record.restored_from else ""
    return ", ".join(filter(None, ["serving" if serves else "", restored]))
