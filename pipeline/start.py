"""What a run starts with, on one machine and on a cluster: the span it trains on, and what it says of itself."""

import contextlib
import json
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

import filelock

from components import ingest
from components.data_bounds import CHECKS, UNUSABLE
from components.ingest import manifest, schema
from components.nearest import did_you_mean
from pipeline import sources, strict_yaml
from pipeline.config import Settings, SettingsError
from pipeline.metadata import relocation, summary
from pipeline.metadata.address import Address, StoreError
from pipeline.metadata.reader import Reader, reader
from pipeline.problems import explained

TRIGGERS = ("manual", "span", "schedule")  # a person, data that landed, a clock


class AnotherRun(SettingsError):
    """One of this pipeline is going on; the message names it and the cure."""


def new_run_id() -> str:
    """Unique, sorts by time, and made of what a cluster accepts in a name."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def choose_span(settings: Settings) -> int:
    """The span to train on: the one set, or the newest.

    Raises SettingsError where it, or the gate's, is not there, and DataRefused where they are not whole.
    """
    data = settings.data.dir
    span = settings.chosen_span()
    schema.read(data)
    manifest.read(ingest.span_folder(data, settings.data.gate_span))
    images = manifest.read(ingest.span_folder(data, span)).examples("train")
    if images < settings.training.batch_size:
        raise SettingsError(
            f"training.batch_size {settings.training.batch_size} is more than the {images} training images of span "
            f"{span}: --set training.batch_size={images // 2 * 2} or less"
        )
    return span


def facts(
    settings: Settings, span: int, accepted: Mapping[str, str], trigger: str, reason: str, process: str
) -> dict[str, str]:
    """What a person must be able to say later of this run.

    trigger: what started it, of TRIGGERS. reason: why, in words. process: who runs it, see `summary.process`.
    """

    def digest(number: int) -> str:
        return manifest.read(ingest.span_folder(settings.data.dir, number)).digest()

    return {
        "code_version": sources.code_version(),
        "lock_digest": sources.lock_digest(),
        "data_digest": digest(span),
        "gate_data_digest": digest(settings.data.gate_span),
        "accepted": json.dumps(dict(accepted), sort_keys=True),
        "trigger": trigger,
        "reason": reason,
        "settings": settings.resolved(span),
        summary.PROCESS: process,
    }


def accepted(checks: Sequence[str], reason: str, flag: str = "") -> dict[str, str]:
    """The reason by check of the data gate that shall not stop a run. Raises SettingsError.

    flag: what stands before the names of the two where a person gave them.
    """
    if checks and not reason.strip():
        raise SettingsError(f'{flag}accept CHECK and {flag}reason "..." go together: say why the data are right anyway')
    for check in checks:
        if check in UNUSABLE:
            raise SettingsError(f"{flag}accept {check}: nothing can be trained on such examples; remove them")
        if check not in CHECKS:
            raise SettingsError(
                f"{flag}accept {check}: no such check; {did_you_mean(check, CHECKS)}the checks are {', '.join(CHECKS)}"
            )
    return dict.fromkeys(checks, reason.strip())


def settle(settings: Settings) -> str:
    """Record where the run folder and the data lie now. Returns a warning, or an empty string. Raises StoreError.

    The caller holds the lock of the run folder.
    """
    return "; ".join(relocation.settle(settings.store, settings.folder, settings.data.dir.resolve()))


def write_facts(logs: Path, facts: Mapping[str, str]) -> None:
    """The same beside the logs of a run, for who has no store at hand."""
    told = {name: value for name, value in facts.items() if name != summary.PROCESS}
    (logs / "run.yaml").write_text(strict_yaml.dump({**told, "settings": json.loads(facts["settings"])}))


def logs_folder(settings: Settings, run_id: str) -> Path:
    """Where the log files of a run are."""
    return settings.folder / "logs" / run_id


def going_on(store: Reader, pipeline: str) -> list[str]:
    """The runs of a pipeline that a cluster has begun and that have not said how they ended."""
    return [
        run.name
        for run in store.runs_without(summary.EXIT)
        if summary.settings_of(run).get("name") == pipeline and summary.on_cluster(run)
    ]


@contextlib.contextmanager
def alone(settings: Settings) -> Iterator[None]:
    """While no other process has the run folder of this pipeline to itself. Raises AnotherRun when one has.

    And SettingsError where what lies there is of another store of ML Metadata: the folders of artifacts are named by
    ids of one.
    """
    folder, store = settings.folder, settings.store
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout:
        raise AnotherRun(
            f"another run of {settings.name} is going on in {settings.folder}: wait for it, or run under another name "
            f"with --set name={settings.name}-2"
        ) from None
    except OSError as error:
        raise SettingsError(f"runs {settings.runs} cannot be used: {explained(error, folder)}") from None
    try:
        here = folder / "metadata.db"
        if (folder / "root").exists() and here.exists() != (store.file is not None):
            other = here if here.exists() else "a server, or a metadata.db that is gone"
            raise SettingsError(
                f"{folder} holds artifacts that another store of ML Metadata knows ({other}), and this run would "
                f"record in {store}: take the other store, or another name with --set name={settings.name}-2"
            )
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def only_run(settings: Settings) -> Iterator[None]:
    """`alone`, and no run of this pipeline goes on on a cluster either. Raises AnotherRun and SettingsError."""
    with alone(settings):
        check_cluster(settings.store, settings.name)
        yield


def check_cluster(address: Address, pipeline: str) -> None:
    """Raises AnotherRun while a run of a pipeline goes on on a cluster, whose steps hold no lock of a folder."""
    with contextlib.suppress(StoreError), reader(address) as store:  # which the first run makes
        for run_id in going_on(store, pipeline):
            raise AnotherRun(
                f"run {run_id} of {pipeline} is going on, on a cluster: wait for it. If it is not, and Kubeflow "
                f"Pipelines cannot say so, `vitpipe kfp submit --take-over {run_id}` takes its place"
            )
