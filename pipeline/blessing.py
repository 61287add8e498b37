"""A person's blessing: the model of a run that missed a bound serves all the same."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from components.errors import DataRefused, Exit, NotServable, UsageError
from components.model.evaluator.judgement import OVERRIDE
from components.model.serving_folder import ModelId, push_candidate, serving_now
from pipeline.metadata.garbage import is_own_folder
from pipeline.metadata.properties import Unreadable
from pipeline.metadata.records import Artifact
from pipeline.metadata.stores import find_run
from pipeline.result.run_result import EXIT, PUSHED, RunResult
from pipeline.run_lock import no_run

_SERVED = "Format-Serving"  # where TFX's Trainer puts the SavedModel


@dataclass(frozen=True)
class Blessing:
    """A model that serves by a person's decision."""

    run: str
    reason: str
    version: int
    folder: Path  # of the version


def bless(run: str, *, reason: str, runs: Path = Path("runs")) -> Blessing | None:
    """Bless the model of a run that missed a bound, and push it.

    A blessing that was interrupted can be repeated.

    Args:
        run: id of the run, or `last` for the newest.
        reason: why the model may serve all the same; kept in ML Metadata and with the version.
        runs: folder of the run folders.

    Returns:
        The pushed version, or None if the model is blessed already, so that there is nothing to do.

    Raises:
        NotServable: if the model failed the serving check.
        UsageError: if the reason is empty, the run is unknown, has no verdict yet, or its model's files are gone, or
            the serving folder cannot be written.
        AnotherRun: if a run of the pipeline is running.
        DataRefused: if the record of the serving model cannot be read.
        StoreError: if ML Metadata cannot be read, or lacks what a push records of the model.
    """
    reason = reason.strip()
    if not reason:
        raise UsageError('--reason "": say why the model may serve all the same')
    address, record_of_run = find_run(run, runs)
    result = RunResult(record_of_run)
    # A run whose steps did not all end has no verdict to overrule.
    _output(result, "ImportExampleGen", "examples")
    model, blessing = _output(result, "Trainer", "model"), _output(result, "Evaluator", "blessing")
    _output(result, "ServingCheck", "blessing")
    folder = address.run_folder(runs, result.pipeline)
    if not is_own_folder(model.uri, folder / "root"):
        raise UsageError(
            f"the model of run {result.name} lies at {model.uri!r}, outside {folder / 'root'}: only a model that a run "
            "of this pipeline made there can be pushed"
        )
    if model.state != "live" or not Path(model.uri).is_dir():
        raise UsageError(f"the model of run {result.name} is not there any more: {model.uri} ({model.state})")
    if result.blessed:
        return None
    if not result.servable:
        raise NotServable(f"not blessed: the model of run {run} cannot be served (`vitpipe why {run}`)")
    judgement, signatures, data = result.judgement, result.signatures, result.trained_on
    if judgement is None:
        raise Unreadable("the property judgement is missing")
    assert signatures is not None and data is not None  # their artifacts exist
    keep, code_version, settings_digest = result.keep_versions, result.code_version, result.settings_digest

    from pipeline.metadata.writer import MetadataStore, annotate, record

    store = MetadataStore(address.connection_config())
    serving = folder / "serving"
    made = ModelId(uri=model.uri, created_ms=model.created_ms)
    override = json.dumps({"reason": reason, "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"})
    try:
        with no_run(folder, result.pipeline, address):
            pushed = serving_now(serving)
            if pushed is None or pushed.model != made:  # else a blessing that was interrupted has pushed it
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
                    override=reason,
                )
            record(store, result.name, **{EXIT: str(int(Exit.OK)), PUSHED: str(pushed.version)})
            annotate(store, model.id, **{OVERRIDE: override})  # for runs that find it serving
            # This comes last, because a blessed model is not blessed again: a blessing that was killed can be repeated.
            annotate(store, blessing.id, blessed=1, **{OVERRIDE: override})
    except UsageError:
        raise
    except ValueError as error:
        raise DataRefused(str(error)) from None
    except OSError as error:
        raise UsageError(
            f"{error.filename or serving} cannot be written ({error.strerror or error}): make room there or "
            f"give yourself the right, then bless run {run} again"
        ) from None
    return Blessing(result.name, reason, pushed.version, serving / str(pushed.version))


def _output(result: RunResult, node: str, name: str) -> Artifact:
    if artifact := result.record.output(node, name):
        return artifact
    ended = "has not finished" if result.record.node(node) else "is missing: the run ended before it"
    raise UsageError(f"run {result.name} has no verdict to overrule: its {node} {ended}")
