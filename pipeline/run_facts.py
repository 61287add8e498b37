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

# Started by a person, by a new span, by an alert of `vitpipe monitor`, by a schedule.
TRIGGERS = ("manual", "span", "drift", "schedule")


def new_run_id() -> str:
    """Return a unique id that sorts by time. It has only letters, digits and hyphens, as a cluster requires."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def choose_span(settings: Settings) -> int:
    """Return the span to train on: `data.span`, or the newest one.

    Raises:
        SettingsError: if that span or the gate span is missing, or has fewer training images than a batch.
        DataRefused: if the schema or the manifest of one of the two spans is damaged.
    """
    data = settings.data.dir
    span = settings.chosen_span()
    schema.read(data)
    manifest.read(ingest.span_folder(data, settings.data.gate_span))
    newest = manifest.read(ingest.span_folder(data, span))
    if settings.data.window > 1:  # the Trainer knows how many images the window has
        return span
    images = newest.examples("train") + newest.examples("val") * settings.training.use_val
    if images < settings.training.batch_size:
        raise SettingsError(
            f"training.batch_size {settings.training.batch_size} is more than the {images} training images of span "
            f"{span}: --set training.batch_size={images // 2 * 2} or less"
        )
    return span


def facts(
    settings: Settings, span: int, accepted: Mapping[str, str], trigger: str, reason: str, process: str
) -> dict[str, str]:
    """Return the facts that a run records about itself: code, data, settings and the reason for the run.

    Args:
        settings: the settings of the run.
        span: the span to train on.
        accepted: checks of the data gate that do not stop the run, each with the reason.
        trigger: what started the run, one of `TRIGGERS`.
        reason: why it was started, in words.
        process: a record of the process that runs it, see `this_process`.
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
    """Return the accepted checks of the data gate, each with the reason.

    Args:
        checks: names of checks that do not stop the run.
        reason: why the data is right anyway.
        flag: prefix of the option names in messages: `--` if the user gave them on the command line.

    Raises:
        UsageError: if the reason is missing, a check does not exist, or a check cannot be accepted.
    """
    if checks and not reason.strip():
        raise UsageError(f'{flag}accept CHECK and {flag}reason "..." go together: say why the data is right anyway')
    for check in checks:
        if check in UNUSABLE:
            raise UsageError(
                f"{flag}accept {check}: not possible, because nothing can be trained on such examples; remove them"
            )
        if check not in CHECKS:
            raise UsageError(
                f"{flag}accept {check}: no such check; {did_you_mean(check, CHECKS)}the checks are {', '.join(CHECKS)}"
            )
    return dict.fromkeys(checks, reason.strip())


def record_places(settings: Settings) -> str:
    """Record the current paths of the run folder and the data. The caller must hold the lock of the run folder.

    Returns:
        A warning, or an empty string.

    Raises:
        StoreError: if the store cannot be read or written.
    """
    return "; ".join(relocation.record_places(settings.store, settings.folder, settings.data.dir.resolve()))


def write_facts(logs: Path, facts: Mapping[str, str]) -> None:
    """Write the facts of a run to `run.yaml` beside its logs, for readers without access to the store.

    Args:
        logs: folder of the run's logs.
        facts: the facts, from `facts`.
    """
    lasting = {name: value for name, value in facts.items() if name != PROCESS}
    (logs / "run.yaml").write_text(strict_yaml.dump({**lasting, "settings": json.loads(facts["settings"])}))


def logs_folder(settings: Settings, run_id: str) -> Path:
    """Return the folder of a run's log files.

    Args:
        settings: the settings of the run.
        run_id: id of the run.
    """
    return settings.folder / "logs" / run_id
