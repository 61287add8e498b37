"""Artifacts whose files nothing needs any more."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from components.data.gate.bounds import DATA_FOLDER
from components.model import tuning_record
from components.model.serving_folder import ModelId, ModelRecord
from pipeline.metadata import relocation
from pipeline.metadata.reader import Reader
from pipeline.metadata.records import Artifact

MARKED = "marked for deletion"
MONITORED = "MonitorReport"  # type of the artifact of a monitoring, whose property `versions` names the versions
FIRST_ALERT = "first_alert"  # property of a MonitorReport: description of its first alert
VERSION_ALERTS = "version_alerts"  # property of a MonitorReport: JSON with the first alert of each version that has one
MONITOR_SCRATCH = ".monitor-"  # beginning of the names of a monitor's temporary folders in the run folder
EXPORTED = "ExportedModel"  # type of the artifact of an export, whose property `model_id` is a `ModelId` as JSON


def is_own_folder(uri: str, root: Path) -> bool:
    """Return whether an artifact's uri is exactly the folder of an execution, `root/<node>/<key>/<execution>`.

    Other users may write to a shared store. A uri with `..`, the uri of `root` itself, or a uri that passes through a
    link would otherwise lead to the removal of files that no run wrote.

    Args:
        uri: the uri in the store.
        root: absolute path of the artifacts' folder, in a run folder whose links are resolved. It may itself be a
            link that its owner made, for example to a larger disk.
    """
    parts = relocation.split(uri)
    if parts is None or uri != f"{root}/{parts[1]}":
        return False
    # If the folder no longer exists, this still resolves the part of the path that exists.
    return Path(uri).resolve() == root.resolve() / parts[1]


def remove_folder(root: Path, node: str, key: str, execution: str) -> None:
    """Remove the folder `root/node/key/execution`, as far as the permissions of this user allow.

    Links below `root` are not followed, even if they are created during the removal.

    Args:
        root: absolute path of the artifacts' folder.
        node: name of the node.
        key: name of the node's output.
        execution: name of the execution's folder.
    """
    with contextlib.ExitStack() as opened, contextlib.suppress(OSError):
        parent: int | None = None
        for part in root.resolve(), node, key:
            parent = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
            opened.callback(os.close, parent)
        shutil.rmtree(execution, ignore_errors=True, dir_fd=parent)


def garbage(store: Reader, pipeline: str, root: Path, keep: int, pushed: Collection[ModelRecord]) -> list[Artifact]:
    """Return the artifacts whose files can be removed, the oldest first.

    These artifacts are kept:

    - inputs and outputs of the newest `keep` runs of the pipeline, including the cache entries that they used or wrote;
    - pushed models: the serving one is the baseline of the next candidate, and a rollback can make any of them serve;
    - the newest passed verdict on each span, which a later span is compared with;
    - the newest export of each pushed model to each format;
    - the statistics and the evaluation of each pushed model, which `vitpipe monitor` compares traffic with, and the
      newest report of that command, and its newest report with an alert;
    - the newest result of a tuning of each search space, which a training may use.

    Artifacts that an interrupted call marked for deletion are garbage, too, because no run uses them.

    Args:
        store: the reader of the store.
        pipeline: name of the pipeline.
        root: absolute path of the artifacts' folder.
        keep: number of runs whose artifacts are kept.
        pushed: the records of the pushed versions.
    """
    needed = {
        artifact.id
        for run in store.runs(pipeline, limit=keep)
        for execution in run.executions
        for channels in (execution.inputs, execution.outputs)
        for artifacts in channels.values()
        for artifact in artifacts
    }
    models = {record.model for record in pushed}
    for run in store.runs_named([record.run_id for record in pushed]):
        references = run.output("ImageStatistics", "statistics"), run.output("Evaluator", "evaluation")
        needed |= {artifact.id for artifact in references if artifact}
    # A server may also hold artifacts of another machine under the same paths, so only existing folders count.
    ours = [artifact for artifact in store.artifacts(state="live") if Path(artifact.uri).is_relative_to(root)]
    live = [artifact for artifact in ours if Path(artifact.uri).exists()]
    needed |= {artifact.id for artifact in live if ModelId(uri=artifact.uri, created_ms=artifact.created_ms) in models}
    newest: dict[tuple[object, object], int] = {}
    for artifact in live:  # newest first
        if artifact.type == "DataVerdict" and artifact.properties.get("passed") == 1:
            newest.setdefault((artifact.properties.get(DATA_FOLDER), artifact.properties.get("span")), artifact.id)
        if artifact.type == EXPORTED and (made_from := _exported_model(artifact)) in models:
            newest.setdefault((made_from, artifact.properties.get("format")), artifact.id)
        if artifact.type == MONITORED:
            newest.setdefault((artifact.type, ""), artifact.id)
            if artifact.properties.get(FIRST_ALERT):
                newest.setdefault((artifact.type, FIRST_ALERT), artifact.id)
        if artifact.type == tuning_record.ARTIFACT:
            newest.setdefault((artifact.type, artifact.properties.get(tuning_record.SPACE)), artifact.id)
    needed |= set(newest.values())
    folders = {artifact.uri for artifact in live if artifact.id in needed}
    marked = [artifact for artifact in store.artifacts(state=MARKED) if Path(artifact.uri).is_relative_to(root)]
    unneeded = [artifact for artifact in live if artifact.id not in needed and artifact.uri not in folders]
    return sorted([*unneeded, *marked], key=lambda artifact: artifact.id)


def _exported_model(artifact: Artifact) -> ModelId | None:
    """Return the model that an export was made from; None if its record cannot be read."""
    try:
        return ModelId.model_validate_json(str(artifact.properties.get("model_id")))
    except ValueError:
        return None
