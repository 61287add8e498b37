"""Artifacts whose files nothing needs any more."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from pathlib import Path

from components.data.gate.bounds import DATA_FOLDER
from components.model.serving_folder import ModelId
from pipeline.metadata import relocation
from pipeline.metadata.reader import Reader
from pipeline.metadata.records import Artifact

MARKED = "marked for deletion"


def is_own_folder(uri: str, root: Path) -> bool:
    """Return whether an artifact's uri is exactly the folder of an execution, `root/<node>/<key>/<execution>`.

    Others can write to a shared store. A uri with `..`, the uri of `root` itself, or one through a link would have
    files removed that no run made.

    Args:
        uri: the uri in the store.
        root: absolute path of the artifacts' folder, in a run folder whose links are resolved. It may itself be a
            link that its owner made, for example to a larger disk.
    """
    parts = relocation.split(uri)
    if parts is None or uri != f"{root}/{parts[1]}":
        return False
    # If the folder is gone already, this still resolves the part of the path that exists.
    return Path(uri).resolve() == root.resolve() / parts[1]


def remove_folder(root: Path, node: str, key: str, execution: str) -> None:
    """Remove the folder `root/node/key/execution`, as far as this user may.

    No link below `root` is followed, even one that appears meanwhile.

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


def garbage(store: Reader, pipeline: str, root: Path, keep: int, pushed: Collection[ModelId]) -> list[Artifact]:
    """Of the artifacts below `root`, those that are none of these, oldest first:

    - what went into a node of the newest `keep` runs of the pipeline or came out of it, found in the cache or not: a
      cache entry that they hit or made is among it;
    - the models of `pushed`: the one that serves is the next candidate's baseline, and a roll-back makes it of another;
    - of each span the newest verdict, which the next span is compared with.

    What an earlier call marked and did not remove, because it was interrupted, is garbage still: no run finds it.
    """
    needed = {
        artifact.id
        for run in store.runs(pipeline, limit=keep)
        for execution in run.executions
        for channels in (execution.inputs, execution.outputs)
        for artifacts in channels.values()
        for artifact in artifacts
    }
    models = set(pushed)
    # A server may know artifacts of another machine that has the same paths: what is not here is not ours to judge.
    ours = [one for one in store.artifacts(state="live") if Path(one.uri).is_relative_to(root)]
    live = [one for one in ours if Path(one.uri).exists()]
    needed |= {one.id for one in live if ModelId(uri=one.uri, created_ms=one.created_ms) in models}
    newest: dict[tuple[object, object], int] = {}
    for one in live:  # newest first
        if one.type == "DataVerdict" and one.properties.get("passed") == 1:
            newest.setdefault((one.properties.get(DATA_FOLDER), one.properties.get("span")), one.id)
    needed |= set(newest.values())
    folders = {one.uri for one in live if one.id in needed}
    marked = [one for one in store.artifacts(state=MARKED) if Path(one.uri).is_relative_to(root)]
    doomed = [one for one in live if one.id not in needed and one.uri not in folders]
    return sorted([*doomed, *marked], key=lambda one: one.id)
