"""`vitpipe models` and `vitpipe rollback`: what is pushed, whether it is untouched, and back to an older one."""

import sys
from pathlib import Path
from typing import Annotated

import filelock
import typer

from components.errors import DataRefused, Exit, SettingsError, StoreError
from components.model.serving_folder import (
    ModelRecord,
    acknowledge,
    interrupted,
    problems,
    read_record,
    restore,
    versions,
)
from pipeline.console.logs import shown
from pipeline.console.terminal import print_json, print_line
from pipeline.metadata import relocation
from pipeline.metadata.address import Address
from pipeline.metadata.stores import server
from pipeline.run_lock import check_cluster
from vitpipe.cli.options import Json, OnePipeline, Runs
from vitpipe.cli.tables import print_rows

app = typer.Typer(help="Pushed models.", no_args_is_help=True)


@app.command("list")
def list_models(runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Every pushed version, the one that serves last."""
    rows: list[tuple[Path, int, ModelRecord]] = []
    unreadable: list[str] = []
    for folder in _serving(runs):
        for version in versions(folder):
            try:
                rows.append((folder, version, read_record(folder / str(version))))
            except ValueError as error:
                unreadable.append(str(error))
    serving = {folder: versions(folder)[-1] for folder, _, _ in rows}
    if as_json:
        listing = [
            {
                "pipeline": folder.parent.name,
                "serving": version == serving[folder],
                **record.model_dump(mode="json", exclude={"files"}),
                "version": version,
            }
            for folder, version, record in rows
        ]
        print_json(listing)
    else:
        print_rows(
            ("pipeline", "version", "pushed", "run", "span", "accuracy", "code", ""),
            [
                (
                    folder.parent.name, str(version), f"{record.pushed_at:%Y-%m-%d %H:%M}", record.run_id,
                    str(record.span), _accuracy(record), record.code_version,
                    _state(record, version == serving[folder]),
                )
                for folder, version, record in rows
            ],
        )  # fmt: skip
    if unreadable:
        raise DataRefused("; ".join(unreadable))


@app.command()
def verify(runs: Runs = Path("runs")) -> None:
    """Compare every pushed file with the digest it was pushed with. Exits with 3 when one is changed."""
    folders = [folder / str(version) for folder in _serving(runs) for version in versions(folder)]
    changed, unreadable = [], []
    for folder in folders:
        try:
            changed += problems(folder)
        except ValueError as error:
            unreadable.append(str(error))
    if changed:
        for line in changed:
            print_line(line)
    if unreadable:
        raise DataRefused("; ".join(unreadable))
    if changed:
        raise typer.Exit(Exit.DATA_REFUSED)
    print(f"{len(folders)} pushed version(s), every file as it was pushed")
    for folder in _serving(runs):
        try:
            address = server() or Address(file=folder.parent / "metadata.db")
            lines = relocation.problems(address, folder.parent.resolve())
        except StoreError as error:
            lines = [str(error)]
        for line in lines:
            print_line(f"warning: {line}", sys.stderr)


def rollback(
    version: Annotated[int | None, typer.Argument(help="Version to go back to.", show_default="the one before")] = None,
    pipeline: OnePipeline = None,
    runs: Runs = Path("runs"),
) -> None:
    """Push an older model again, as the newest version, which a model server then serves.

    The model that served is not pushed again by later runs.
    """
    folder = _only(pipeline, runs)
    try:
        with filelock.FileLock(folder.parent / ".lock", timeout=0):
            check_cluster(server() or Address(file=folder.parent / "metadata.db"), folder.parent.name)
            record, done = interrupted(folder), True
            if record is None or version not in (None, record.restored_from):
                record, done = restore(folder, _before(folder) if version is None else version), False
            accuracy = f", accuracy {_accuracy(record)}" if _accuracy(record) else ""
            print_line(
                f"version {record.version} in {shown(folder)} is version {record.restored_from} again: "
                f"run {record.run_id}{accuracy}"
            )
            acknowledge(folder)
    except filelock.Timeout:
        raise SettingsError(f"a run of {folder.parent.name} is going on: wait for it to end") from None
    except ValueError as error:
        raise SettingsError(str(error)) from None
    except OSError as error:
        raise SettingsError(
            f"{error.filename or folder} cannot be written ({error.strerror or error}): make room there or give "
            "yourself the right, then roll back again"
        ) from None
    if done:
        print(
            "an earlier, interrupted roll-back had done this already; roll back again to go further back",
            file=sys.stderr,
        )


def _accuracy(record: ModelRecord) -> str:
    """Return the accuracy as text; empty if the record has none, because anyone may write a record."""
    return f"{record.metrics['accuracy']:.4f}" if "accuracy" in record.metrics else ""


def _state(record: ModelRecord, serves: bool) -> str:
    restored = f"version {record.restored_from} again" if record.restored_from else ""
    return ", ".join(filter(None, ["serving" if serves else "", restored]))


def _serving(runs: Path) -> list[Path]:
    """Folders of pushed models. Raises SettingsError when there is none."""
    folders = [folder for folder in sorted(runs.glob("*/serving")) if versions(folder)]
    if not folders:
        raise SettingsError(f"no pushed model below {runs}: `vitpipe run` makes one, or try another --runs")
    return folders


def _only(pipeline: str | None, runs: Path) -> Path:
    folders = {folder.parent.name: folder for folder in _serving(runs)}
    if pipeline is None and len(folders) > 1:
        raise SettingsError(f"several pipelines have pushed models: say which with --pipeline {'|'.join(folders)}")
    name = pipeline or next(iter(folders))
    if name not in folders:
        raise SettingsError(f"--pipeline {name}: it has pushed no model; these have: {', '.join(folders)}")
    return folders[name]


def _before(folder: Path) -> int:
    """The newest version whose model is another than the one that serves, and was not rolled back itself."""
    records = [read_record(folder / str(version)) for version in versions(folder)]
    serving = records[-1]
    for record in reversed(records):
        if record.model not in (serving.model, *serving.withdrawn):
            return record.version
    raise ValueError(f"{folder} holds no model to go back to: only version {serving.version} and what was rolled back")
