"""`vitpipe gc`: remove the files of artifacts that nothing needs any more."""

import sys
from pathlib import Path
from typing import Annotated, Any

import filelock
import typer
from rich.filesize import decimal
from rich.progress import track

from components.errors import DataRefused, NotFound, SettingsError
from components.model.serving_folder import read_record, versions
from pipeline.console.terminal import Console, print_json, print_line
from pipeline.metadata.address import ADDRESS, Address
from pipeline.metadata.garbage import garbage, is_own_folder, remove_folder
from pipeline.metadata.reader import reader
from pipeline.metadata.records import Artifact
from pipeline.metadata.stores import server
from pipeline.run_lock import check_cluster
from vitpipe.cli.options import Json, OnlyPipeline, Runs
from vitpipe.cli.tables import print_rows

_BATCH = 50  # artifacts between two notes to the store


def gc(
    keep: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="Keep all that the newest so many runs of each pipeline need.")
    ],
    pipeline: OnlyPipeline = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, remove nothing.")] = False,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Remove files that no kept run, no pushed model and no comparison with an earlier span needs.

    ML Metadata then calls their artifacts deleted, and runs do not find them in the cache.
    """
    found = {folder.parent.name: folder.parent.resolve() for folder in sorted(runs.glob("*/root"))}
    if not found:
        raise NotFound(f"--runs {runs}: no run folder with artifacts there; name the folder that holds the run folders")
    if pipeline is not None and pipeline not in found:
        raise NotFound(f"--pipeline {pipeline}: no artifacts below {runs}; there are {', '.join(found) or 'none'}")
    removed: list[dict[str, Any]] = []
    for name in [pipeline] if pipeline else found:
        file = found[name] / "metadata.db"
        address = server() or Address(file=file)
        if address.file and not file.is_file():
            raise NotFound(f"{file} is not there: name the server that knows {name} by the variable {ADDRESS}")
        try:
            with filelock.FileLock(found[name] / ".lock", timeout=0):
                check_cluster(address, name)
                doomed, refused = _doomed(found[name], address, keep)
                sizes = [_bytes(Path(one.uri)) for one in doomed]
                if not dry_run:
                    _remove(doomed, found[name] / "root", address)
        except filelock.Timeout:
            raise SettingsError(f"a run of {name} is going on: wait for it to end") from None
        of_pipeline = [
            {"pipeline": name, "id": one.id, "type": one.type, "uri": one.uri, "bytes": size}
            for one, size in zip(doomed, sizes, strict=True)
        ]
        removed += of_pipeline
        _warn(name, refused, found[name] / "root")
        if not as_json:
            _say(name, of_pipeline, dry_run)
    if as_json:
        print_json(removed)


def _doomed(folder: Path, address: Address, keep: int) -> tuple[list[Artifact], list[Artifact]]:
    """Return the artifacts that nothing needs any more: those to remove, and those with a path that no run records."""
    serving = folder / "serving"
    try:
        pushed = [read_record(serving / str(version)).model for version in versions(serving)]
    except ValueError as error:  # which models must stay is not known then
        raise DataRefused(str(error)) from None
    with reader(address) as store:
        found = garbage(store, folder.name, folder / "root", keep, pushed)
    own = [one for one in found if is_own_folder(one.uri, folder / "root")]
    return own, [one for one in found if one not in own]


def _remove(doomed: list[Artifact], root: Path, address: Address) -> None:
    from pipeline.metadata.writer import MetadataStore, mark_deleted, mark_for_deletion

    store = MetadataStore(address.connection_config())
    # Before the first file goes: what is half removed when this process is killed must not be found in the cache.
    mark_for_deletion(store, [one.id for one in doomed])
    batches = [doomed[start : start + _BATCH] for start in range(0, len(doomed), _BATCH)]
    for batch in track(batches, "removing", console=Console(stderr=True), transient=True):
        for one in batch:
            remove_folder(root, *Path(one.uri).relative_to(root).parts)
            if Path(one.uri).exists():
                raise SettingsError(f"{one.uri} cannot be removed: may this user write there? Then start again")
        mark_deleted(store, [one.id for one in batch])


def _warn(pipeline: str, refused: list[Artifact], root: Path) -> None:
    if not refused:
        return
    print(
        f"warning: {pipeline}: {len(refused)} artifact(s) not removed, because their paths are not "
        f"{root}/<node>/<key>/<execution>, or lead through a link. No run records such paths: somebody changed the "
        "store or the folder. Check each of them, and remove it by hand.",
        file=sys.stderr,
    )
    for one in refused:
        print_line(f"  {one.type} {one.id}: {one.uri!r}", sys.stderr)


def _say(pipeline: str, removed: list[dict[str, Any]], dry_run: bool) -> None:
    sizes: dict[str, list[int]] = {}
    for one in removed:
        sizes.setdefault(one["type"], []).append(one["bytes"])
    rows = [(name, str(len(of_type)), decimal(sum(of_type))) for name, of_type in sorted(sizes.items())]
    print_rows(("type", "artifacts", "size"), rows)
    total = f"{len(removed)} artifacts, {decimal(sum(one['bytes'] for one in removed))}"
    done = "would be removed" if dry_run else "removed"
    print_line(f"{pipeline}: {total} {done}" if removed else f"{pipeline}: nothing to remove")


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
