"""Lock of a run folder: one run at a time, or one command that changes its pushed models or artifacts."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import filelock

from components.errors import AnotherRun, SettingsError, StoreError
from pipeline.error_messages import explain_error
from pipeline.metadata.address import Address
from pipeline.metadata.reader import Reader, reader
from pipeline.result.run_result import EXIT, RunResult
from pipeline.settings import Settings


def running_on_cluster(store: Reader, pipeline: str) -> list[str]:
    """Return the ids of a pipeline's runs on a cluster that have not recorded their end.

    Args:
        store: reader of the store that the runs are recorded in.
        pipeline: the name of the pipeline.
    """
    return [
        run.name
        for run in store.runs_without(EXIT)
        if RunResult(run).settings.get("name") == pipeline and RunResult(run).on_cluster
    ]


@contextlib.contextmanager
def lock_run_folder(settings: Settings) -> Iterator[None]:
    """Hold the lock of the pipeline's run folder.

    Raises:
        AnotherRun: if another process holds it.
        SettingsError: if the folder cannot be used, or holds artifacts of another store of ML Metadata. One folder
            cannot serve two stores, because the artifacts' folders are named by ids of the store.
    """
    folder, store = settings.folder, settings.store
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise AnotherRun(
            f"another run of {settings.name} is running in {settings.folder}, or a command such as `vitpipe export`: "
            f"wait for it, or choose another name with --set name={settings.name}-2"
        ) from None
    except OSError as error:
        raise SettingsError(f"runs {settings.runs} cannot be used: {explain_error(error, folder)}") from None
    try:
        here = folder / "metadata.db"
        if (folder / "root").exists() and here.exists() != (store.file is not None):
            other = here if here.exists() else "a server, or a deleted metadata.db"
            raise SettingsError(
                f"{folder} holds artifacts of another store of ML Metadata ({other}), but this run would record in "
                f"{store}: use the other store, or choose another name with --set name={settings.name}-2"
            )
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def lock_for_run(settings: Settings) -> Iterator[None]:
    """Hold the lock of the run folder, after checking that no run of this pipeline is running on a cluster.

    Raises:
        AnotherRun: if a run of this pipeline is running, here or on a cluster.
        SettingsError: see `lock_run_folder`.
    """
    with lock_run_folder(settings):
        check_cluster(settings.store, settings.name)
        yield


@contextlib.contextmanager
def lock_for_changes(folder: Path, pipeline: str, address: Address) -> Iterator[None]:
    """Hold the lock of a run folder while its pushed models or artifacts are changed.

    Args:
        folder: the run folder.
        pipeline: the name of the pipeline.
        address: the address of the store that the runs are recorded in.

    Raises:
        AnotherRun: if a run of this pipeline is running, here or on a cluster, or another command holds the lock.
        OSError: if the lock cannot be written.
    """
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise AnotherRun(
            f"a run of {pipeline} is running, or another command such as `vitpipe export`: wait for it to end"
        ) from None
    try:
        check_cluster(address, pipeline)
        yield
    finally:
        lock.release()


def check_cluster(address: Address, pipeline: str) -> None:
    """Check that no run of a pipeline is running on a cluster, whose steps do not hold the folder's lock.

    Args:
        address: the address of the store that the runs are recorded in.
        pipeline: the name of the pipeline.

    Raises:
        AnotherRun: if there is such a run.
    """
    # The store does not exist before the first run.
    with contextlib.suppress(StoreError), reader(address) as store:
        for run_id in running_on_cluster(store, pipeline):
            raise AnotherRun(
                f"run {run_id} of {pipeline} is running on a cluster: wait for it. If it has ended and Kubeflow "
                f"Pipelines cannot confirm that, replace it with `vitpipe kfp submit --take-over {run_id}`"
            )
