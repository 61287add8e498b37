"""`vitpipe gc`: remove the files of artifacts that nothing needs any more."""

import shutil
from pathlib import Path
from typing import Annotated

import filelock
import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import track

from components.ingest import DataRefused
from components.serving_folder import read_record, versions
from pipeline.cli.tables import print_rows
from pipeline.config import SettingsError
from pipeline.metadata.address import ADDRESS, Address
from pipeline.metadata.garbage import garbage
from pipeline.metadata.reader import reader
from pipeline.metadata.stores import NotFound, server

_BATCH = 50  # artifacts between two notes to the store


def gc(
    keep: Annotated[int, typer.Option(min=1, help="Keep all that the newest so many runs of each pipeline need.")],
    pipeline: Annotated[str | None, typer.Option(help="Of this pipeline only.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    runs: Annotated[Path, typer.Option(help="Where the run folders are.")] = Path("runs"),
) -> None:
    """Remove files that no kept run, no pushed model and no comparison with an earlier span needs.

    ML Metadata then calls their artifacts deleted, and runs do not find them in the cache.
    """
    found = {folder.parent.name: folder.parent.resolve() for folder in sorted(runs.glob("*/root"))}
    if pipeline is not None and pipeline not in found:
        raise NotFound(f"--pipeline {pipeline}: no artifacts below {runs}; there are {', '.join(found) or 'none'}")
    for name in [pipeline] if pipeline else found:
        file = found[name] / "metadata.db"
        address = server() or Address(file=file)
        if address.file and not file.is_file():
            raise NotFound(f"{file} is not there: name the server that knows {name} by the variable {ADDRESS}")
        try:
            with filelock.FileLock(found[name] / ".lock", timeout=0):
                _collect(found[name], address, keep, dry_run)
        except filelock.Timeout:
            raise SettingsError(f"a run of {name} is going on: wait for it to end") from None


def _collect(folder: Path, address: Address, keep: int, dry_run: bool) -> None:
    serving = folder / "serving"
    try:
        pushed = [read_record(serving / str(version)).model for version in versions(serving)]
    except ValueError as error:  # which models must stay is not known then
        raise DataRefused(str(error)) from None
    with reader(address) as store:
        doomed = garbage(store, folder.name, folder / "root", keep, pushed)
    sizes = {one.id: _bytes(Path(one.uri)) for one in doomed}
    by_type: dict[str, list[int]] = {}
    for one in doomed:
        by_type.setdefault(one.type, []).append(sizes[one.id])
    rows = [(name, str(len(of_type)), decimal(sum(of_type))) for name, of_type in sorted(by_type.items())]
    print_rows(("type", "artifacts", "size"), rows)
    total = f"{len(doomed)} artifacts, {decimal(sum(sizes.values()))}"
    if dry_run or not doomed:
        print(f"{folder.name}: {total} would be removed" if doomed else f"{folder.name}: nothing to remove")
        return

    from pipeline.metadata.store import MetadataStore, mark_deleted, mark_for_deletion

    writer = MetadataStore(address.connection_config())
    # Before the first file goes: what is half removed when this process is killed must not be found in the cache.
    mark_for_deletion(writer, [one.id for one in doomed])
    batches = [doomed[start : start + _BATCH] for start in range(0, len(doomed), _BATCH)]
    for batch in track(batches, f"{folder.name}: removing", console=Console(stderr=True), transient=True):
        for one in batch:
            shutil.rmtree(one.uri, ignore_errors=True)
            if Path(one.uri).exists():
                raise SettingsError(f"{one.uri} cannot be removed: may this user write there? Then start again")
        mark_deleted(writer, [one.id for one in batch])
    print(f"{folder.name}: {total} removed")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
