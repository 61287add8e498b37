"""A person's blessing, which pushes the model of a run although it missed a bound."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import DataRefused, Exit, NotServable, UsageError
from components.model.evaluator.judgement import OVERRIDE
from components.model.serving_folder import ModelId, push_candidate, serving_now
from pipeline.console.logs import runs_option
from pipeline.metadata.garbage import is_own_folder
from pipeline.metadata.properties import UnreadableError
from pipeline.metadata.records import Artifact
from pipeline.metadata.stores import find_run
from pipeline.result.run_result import EXIT, PUSHED, RunResult
from pipeline.run_lock import lock_for_changes

if TYPE_CHECKING:
    from components.model.model_card import CardFacts

_SERVED = "Format-Serving"  # where TFX's Trainer puts the SavedModel


@dataclass(frozen=True)
class Blessing:
    """A model that serves because a person decided so."""

    run: str
    reason: str
    version: int
    folder: Path  # folder of the version


def bless(run: str, *, reason: str, runs: Path = Path("runs")) -> Blessing | None:
    """Bless the model of a run that missed a bound, and push it.

    A blessing that was interrupted can be repeated.

    Args:
        run: id of the run, or `last` for the newest.
        reason: why the model may serve anyway; recorded in ML Metadata and with the version.
        runs: folder of the run folders.

    Returns:
        The pushed version, or None if the model is already blessed and there is nothing to do.

    Raises:
        NotServable: if the model failed the serving check.
        UsageError: if the reason is empty, the run is unknown or has no verdict yet, its model's files are gone, or
            the serving folder cannot be written.
        AnotherRun: if a run of the pipeline is running.
        DataRefused: if the record of the serving model cannot be read.
        StoreError: if ML Metadata cannot be read, or lacks a fact that the record of a pushed model needs.
    """
    reason = reason.strip()
    if not reason:
        raise UsageError('--reason "": it is empty; say why the model may serve anyway')
    address, record_of_run = find_run(run, runs)
    result = RunResult(record_of_run)
    # Without the outputs of these steps, the run has no verdict to overrule.
    _output(result, "ImportExampleGen", "examples")
    model, blessing = _output(result, "Trainer", "model"), _output(result, "Evaluator", "blessing")
    _output(result, "ServingCheck", "blessing")
    folder = address.run_folder(runs, result.pipeline)
    if not is_own_folder(model.uri, folder / "root"):
        raise UsageError(
            f"the model of run {result.name} is at {model.uri!r}, outside {folder / 'root'}: only a model that a run "
            "of this pipeline wrote there can be pushed"
        )
    if model.state != "live" or not Path(model.uri).is_dir():
        raise UsageError(f"the model of run {result.name} no longer exists: {model.uri} ({model.state})")
    if result.blessed:
        return None
    if not result.servable:
        raise NotServable(
            f"not blessed: the model of run {run} cannot be served; `vitpipe why {run}{runs_option(runs)}` says why"
        )
    judgement, signatures, data = result.judgement, result.signatures, result.trained_on
    serving_checks = result.serving
    if judgement is None:
        raise UnreadableError("the property judgement is missing")
    assert signatures is not None and data is not None and serving_checks is not None  # their artifacts exist
    keep, code_version, settings_digest = result.keep_versions, result.code_version, result.settings_digest

    from components.data.gate.component import find_verdict
    from components.model.model_card import CardFacts
    from pipeline.metadata.writer import MetadataStore, annotate, record

    store = MetadataStore(address.connection_config())
    serving = folder / "serving"
    made = ModelId(uri=model.uri, created_ms=model.created_ms)
    card = _render(
        CardFacts(
            run_id=result.name,
            code_version=code_version,
            settings=result.settings,
            settings_digest=settings_digest,
            model=made,
            span=data.span,
            data_digest=data.digest,
            gate_data_digest=result.gate_data_digest,
            judgement=judgement,
            serving=serving_checks.checks,
            data=find_verdict(result.data.folder) if result.data else None,
            earlier_spans=data.earlier,
            warm_start=result.warm_start is not None,
            override=reason,
        )
    )
    override = json.dumps({"reason": reason, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"})
    try:
        with lock_for_changes(folder, result.pipeline, address):
            pushed = serving_now(serving)
            if pushed is None or pushed.model != made:  # otherwise an interrupted blessing has pushed it
                pushed = push_candidate(
                    Path(model.uri, _SERVED),
                    serving,
                    keep,
                    model=made,
                    figures=judgement.candidate,
                    signatures=signatures,
                    run_id=result.name,
                    span=data.span,
                    data_digest=data.digest,
                    code_version=code_version,
                    settings_digest=settings_digest,
                    card=card,
                    override=reason,
                )
            record(store, result.name, **{EXIT: str(int(Exit.OK)), PUSHED: str(pushed.version)})
            annotate(store, model.id, **{OVERRIDE: override})  # later runs read it while this model serves
            # This comes last: `bless` skips a blessed model, and a blessing that was killed must be repeatable.
            annotate(store, blessing.id, blessed=1, **{OVERRIDE: override})
    except UsageError:
        raise
    except ValueError as error:
        raise DataRefused(str(error)) from None
    except OSError as error:
        raise UsageError(
            f"{error.filename or serving} cannot be written ({error.strerror or error}): free disk space "
            f"or change the permissions, then bless run {run} again"
        ) from None
    return Blessing(result.name, reason, pushed.version, serving / str(pushed.version))


def _output(result: RunResult, node: str, name: str) -> Artifact:
    if artifact := result.record.output(node, name):
        return artifact
    ended = "has not finished" if result.record.node(node) else "is missing: the run ended before it"
    raise UsageError(f"run {result.name} has no verdict to overrule: its {node} {ended}")


def _render(facts: "CardFacts") -> str:
    """Return the model card of a run.

    Raises:
        UnreadableError: if the settings of the run, perhaps of another version, lack a value that the card states.
    """
    import jinja2

    from components.model.model_card import model_card

    try:
        return model_card(facts)
    except (AttributeError, KeyError, TypeError, jinja2.UndefinedError) as error:
        raise UnreadableError(
            f"the settings of run {facts.run_id} lack a value that the model card states "
            f"({type(error).__name__}: {error})"
        ) from None
