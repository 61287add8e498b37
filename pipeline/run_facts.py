"""Facts that a run records about itself when it starts, on one machine and on a cluster."""

import json
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from components.data import ingest
from components.data.gate.bounds import CHECKS, UNUSABLE
from components.data.ingest import manifest, schema
from components.errors import SettingsError, UsageError
from components.suggestions import did_you_mean
from pipeline import provenance
from pipeline.metadata import relocation
from pipeline.result.run_result import PROCESS
from pipeline.settings import Settings, strict_yaml

TRIGGERS = ("manual", "span", "schedule")  # a person, data that landed, a clock


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

    trigger: what started it, of TRIGGERS. reason: why, in words. process: who runs it, see `this_process`.
    """

    def digest(number: int) -> str:
        return manifest.read(ingest.span_folder(settings.data.dir, number)).digest()

    return {
        "code_version": provenance.code_version(),
        "lock_digest": provenance.lock_digest(),
        "data_digest": digest(span),
        "gate_data_digest": digest(settings.data.gate_span),
        "accepted": json.dumps(dict(accepted), sort_keys=True),
        "trigger": trigger,
        "reason": reason,
        "settings": settings.resolved(span),
        PROCESS: process,
    }


def accepted_checks(checks: Sequence[str], reason: str, flag: str = "") -> dict[str, str]:
    """The reason by check of the data gate that shall not stop a run. Raises UsageError.

    flag: what stands before the names of the two where a person gave them.
    """
    if checks and not reason.strip():
        raise UsageError(f'{flag}accept CHECK and {flag}reason "..." go together: say why the data are right anyway')
    for check in checks:
        if check in UNUSABLE:
            raise UsageError(f"{flag}accept {check}: nothing can be trained on such examples; remove them")
        if check not in CHECKS:
            raise UsageError(
                f"{flag}accept {check}: no such check; {did_you_mean(check, CHECKS)}the checks are {', '.join(CHECKS)}"
            )
    return dict.fromkeys(checks, reason.strip())


def record_places(settings: Settings) -> str:
    """Record where the run folder and the data lie now. Returns a warning, or an empty string. Raises StoreError.

    The caller holds the lock of the run folder.
    """
    return "; ".join(relocation.record_places(settings.store, settings.folder, settings.data.dir.resolve()))


def write_facts(logs: Path, facts: Mapping[str, str]) -> None:
    """The same beside the logs of a run, for who has no store at hand."""
    told = {name: value for name, value in facts.items() if name != PROCESS}
    (logs / "run.yaml").write_text(strict_yaml.dump({**told, "settings": json.loads(facts["settings"])}))


def logs_folder(settings: Settings, run_id: str) -> Path:
    """Where the log files of a run are."""
    return settings.folder / "logs" / run_id
