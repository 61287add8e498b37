"""`vitpipe models` and `vitpipe rollback`: list and verify the pushed models, return to an older one."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from components.errors import DataRefused, Exit
from components.model.serving_folder import ModelRecord
from pipeline import pushed_models
from pipeline.console.logs import display_path
from pipeline.console.terminal import print_json, print_line
from pipeline.rollback import Restored, roll_back
from vitpipe.cli.options import Json, OnePipeline, Runs
from vitpipe.cli.tables import print_rows

app = typer.Typer(help="Pushed models.", no_args_is_help=True)


@app.command("list")
def list_models(runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Every pushed version, the one that serves last."""
    listing = pushed_models.list_models(runs)
    if as_json:
        rows = [
            {
                "pipeline": model.pipeline,
                "serving": model.serving,
                **model.record.model_dump(mode="json", exclude={"files"}),
                "version": int(model.folder.name),
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
                    _accuracy(model.record),
                    model.record.code_version,
                    _state(model.record, model.serving),
                )
                for model in listing.models
            ],
        )
    if listing.unreadable:
        raise DataRefused("; ".join(listing.unreadable))


@app.command()
def verify(runs: Runs = Path("runs")) -> None:
    """Compare every pushed file with the digest it was pushed with. Exits with 3 when one is changed."""
    found = pushed_models.verify_models(runs)
    for line in found.changed:
        print_line(line)
    if found.unreadable:
        raise DataRefused("; ".join(found.unreadable))
    if found.changed:
        raise typer.Exit(Exit.DATA_REFUSED)
    print(f"{found.versions} pushed version(s), every file as it was pushed")
    for line in found.warnings:
        print_line(f"warning: {line}", sys.stderr)


def rollback(
    version: Annotated[int | None, typer.Argument(help="Version to go back to.", show_default="the one before")] = None,
    pipeline: OnePipeline = None,
    runs: Runs = Path("runs"),
) -> None:
    """Push an older model again, as the newest version, which a model server then serves.

    The model that served is not pushed again by later runs.
    """
    if roll_back(version, pipeline=pipeline, runs=runs, report=_print).earlier:
        print(
            "an earlier, interrupted roll-back had done this already; roll back again to go further back",
            file=sys.stderr,
        )


def _print(restored: Restored) -> None:
    record = restored.record
    accuracy = f", accuracy {_accuracy(record)}" if _accuracy(record) else ""
    print_line(
        f"version {record.version} in {display_path(restored.folder)} is version {record.restored_from} again: "
        f"run {record.run_id}{accuracy}"
    )
    sys.stdout.flush()  # the roll-back counts as done after this, so the user must have seen it


def _accuracy(record: ModelRecord) -> str:
    """Return the accuracy as text; empty if the record has none, because anyone may write a record."""
    return f"{record.metrics['accuracy']:.4f}" if "accuracy" in record.metrics else ""


def _state(record: ModelRecord, serves: bool) -> str:
    restored = f"version {record.restored_from} again" if record.restored_from else ""
    return ", ".join(filter(None, ["serving" if serves else "", restored]))
