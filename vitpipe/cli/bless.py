"""`vitpipe bless`: a person overrules the gate."""

import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import filelock
import typer
from pydantic import BaseModel, PositiveInt

from components.errors import DataRefused, Exit, SettingsError
from components.model.evaluator.judgement import OVERRIDE, Judgement
from components.model.serving_folder import ModelId, push_candidate, serving_now
from pipeline.console.logs import shown
from pipeline.console.terminal import print_line
from pipeline.metadata.garbage import is_own_folder
from pipeline.metadata.properties import read, read_flag, read_text
from pipeline.metadata.records import Artifact, Run
from pipeline.metadata.stores import find_run
from pipeline.result.run_result import EXIT, PUSHED
from pipeline.run_lock import check_cluster
from vitpipe.cli.options import RunName, Runs

_SERVED = "Format-Serving"  # where TFX's Trainer puts the SavedModel


class _Settings(BaseModel):
    """Recorded settings of a run that a blessing needs."""

    keep_versions: PositiveInt


def bless(
    run: RunName,
    reason: Annotated[str, typer.Option(help="Why it may serve all the same: kept in ML Metadata.")],
    runs: Runs = Path("runs"),
) -> None:
    """Bless the model of a run that missed a bound, and push it, if it can be served."""
    if not reason.strip():
        raise SettingsError('--reason "": say why the model may serve all the same')
    address, found = find_run(run, runs)
    examples, model = _output(found, "ImportExampleGen", "examples"), _output(found, "Trainer", "model")
    blessing, infra = _output(found, "Evaluator", "blessing"), _output(found, "ServingCheck", "blessing")
    folder = address.run_folder(runs, found.pipeline)
    if not is_own_folder(model.uri, folder / "root"):
        raise SettingsError(
            f"the model of run {found.name} lies at {model.uri!r}, outside {folder / 'root'}: only a model that a run "
            "of this pipeline made there can be pushed"
        )
    if model.state != "live" or not Path(model.uri).is_dir():
        raise SettingsError(f"the model of run {found.name} is not there any more: {model.uri} ({model.state})")
    if read_flag(blessing.properties, "blessed"):
        print_line(f"nothing to do: the model of run {run} is blessed")
        return
    if not read_flag(infra.properties, "blessed"):
        print_line(f"not blessed: the model of run {run} cannot be served (`vitpipe why {run}`)")
        raise typer.Exit(Exit.NOT_SERVABLE)
    facts: dict[str, Any] = {
        "figures": read(blessing.properties, "judgement", Judgement).candidate,
        "signatures": read(infra.properties, "signatures", list[str]),
        "span": read(examples.properties, "span", int),
        "data_digest": read_text(examples.properties, "span_digest"),
        "code_version": read_text(found.facts, "code_version"),
        "settings_digest": hashlib.sha256(read_text(found.facts, "settings").encode()).hexdigest(),
    }
    keep = read(found.facts, "settings", _Settings).keep_versions

    from pipeline.metadata.writer import MetadataStore, annotate, record

    store = MetadataStore(address.connection_config())
    made = ModelId(uri=model.uri, created_ms=model.created_ms)
    said = {"reason": reason.strip(), "at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}
    try:
        with filelock.FileLock(folder / ".lock", timeout=0):
            check_cluster(address, found.pipeline)
            pushed = serving_now(folder / "serving")
            if pushed is None or pushed.model != made:  # else a blessing that was interrupted has pushed it
                pushed = push_candidate(
                    Path(model.uri, _SERVED),
                    folder / "serving",
                    keep,
                    model=made,
                    run_id=found.name,
                    override=reason.strip(),
                    **facts,
                )
            record(store, found.name, **{EXIT: str(int(Exit.OK)), PUSHED: str(pushed.version)})
            annotate(store, model.id, **{OVERRIDE: json.dumps(said)})  # for runs that find it serving
            # This comes last, because a blessed model is not blessed again: a blessing that was killed can be repeated.
            annotate(store, blessing.id, blessed=1, **{OVERRIDE: json.dumps(said)})
    except filelock.Timeout:
        raise SettingsError(f"a run of {found.pipeline} is going on: wait for it to end") from None
    except ValueError as error:
        raise DataRefused(str(error)) from None
    except OSError as error:
        raise SettingsError(
            f"{error.filename or folder / 'serving'} cannot be written ({error.strerror or error}): make room there or "
            f"give yourself the right, then bless run {run} again"
        ) from None
    print_line(f"blessed by a person: {reason.strip()}")
    print_line(f"version {pushed.version} serves: {shown(folder / 'serving' / str(pushed.version))}")


def _output(run: Run, node: str, name: str) -> Artifact:
    if artifact := run.output(node, name):
        return artifact
    ended = "has not finished" if run.node(node) else "is missing: the run ended before it"
    raise SettingsError(f"run {run.name} has no verdict to overrule: its {node} {ended}")
