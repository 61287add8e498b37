"""Run folders that were moved, renamed or copied, and artifacts whose files are gone.

ML Metadata names every artifact by an absolute path, `<run folder>/root/<node>/<key>/<execution>`. All artifacts in the
SQLite file of a run folder belong to that folder, even after a move: readers translate the paths (`current_uri`), and a
run updates them before TFX reads them (`record_places`). A server may know the run folders of other machines under the
same names, so its paths are neither translated nor updated.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.data import ingest
from components.data.gate.bounds import DATA_FOLDER
from components.data.ingest import manifest
from components.errors import DataRefused, StoreError
from components.model.serving_folder import read_record, versions
from pipeline.metadata.address import Address, Connection, NoStoreError, connect, write

# Property of the pipeline's context: JSON that maps the current path of each moved folder to its path at the first run.
FIRST_PLACES = "first_places"
_PLACE = re.compile(r"(?P<folder>.*)/root/(?P<place>[^/]+/[^/]+/[^/]+)")
_LIVE, _DELETED = 2, 4  # states of an artifact, as ml-metadata numbers them
_NAMED = 5  # artifacts that a message lists


def split(uri: str) -> tuple[str, str] | None:
    """Split an artifact's uri into its run folder and `<node>/<key>/<execution>`; None for a uri of another form."""
    match = _PLACE.fullmatch(uri)
    if match is None or {".", ".."} & set(uri.split("/")):
        return None
    return match["folder"], match["place"]


def current_uri(uri: str, folder: Path) -> str:
    """Return the current uri of an artifact.

    Args:
        uri: the recorded uri.
        folder: current absolute path of the artifact's run folder.
    """
    parts = split(uri)
    return f"{folder}/root/{parts[1]}" if parts else uri


def current_property(text: str, uri: str, folder: Path) -> str:
    """Return a property of an artifact, with a path in the recorded run folder translated to the current one.

    Args:
        text: the property.
        uri: the artifact's recorded uri.
        folder: current absolute path of the artifact's run folder.
    """
    parts = split(uri)
    return f"{folder}{text.removeprefix(parts[0])}" if parts and text.startswith(f"{parts[0]}/") else text


def record_places(address: Address, folder: Path, data: Path) -> list[str]:
    """Record the current paths of a run folder and its data, and which artifacts no longer exist.

    The caller must hold the lock of the run folder. Everything is written in one transaction. A store that is not the
    file in the run folder is left unchanged.

    Args:
        address: the store of the pipeline.
        folder: absolute path of the run folder.
        data: absolute path of the data folder.

    Returns:
        Warnings; empty if all artifacts exist.

    Raises:
        StoreError: if the store cannot be read or written, or if `root` is a link to a missing folder, for example on a
            disk that is not mounted. In that case the artifacts still exist.
    """
    root = folder / "root"
    if root.is_symlink() and not root.exists():
        raise StoreError(f"{root} is a link to {root.readlink()}, which does not exist: mount it, or remove the link")
    try:
        with connect(address) as connection:
            if address.file is None or address.file.resolve().parent != folder:
                return []
            uris = dict(connection.rows("SELECT id, uri FROM Artifact WHERE uri IS NOT NULL ORDER BY id"))
            states = dict(connection.rows("SELECT id, state FROM Artifact"))
            types = dict(connection.rows("SELECT a.id, t.name FROM Artifact a JOIN Type t ON t.id = a.type_id"))
            texts = connection.rows(
                "SELECT artifact_id, name, is_custom_property, string_value FROM ArtifactProperty "
                "WHERE string_value LIKE '/%' OR name = 'span_digest'"
            )
            first = _first_places(connection)
    except NoStoreError:  # the first run creates it
        return []
    old_folders = list(dict.fromkeys(parts[0] for uri in uris.values() if (parts := split(uri))))
    old_folders = [old for old in old_folders if old != str(folder)]
    old_data = _moved_data(texts, old_folders, folder, data)
    new_uris = {number: new for number, uri in uris.items() if (new := current_uri(uri, folder)) != uri}
    new_texts = []
    for number, name, custom, text in texts:
        new = current_property(text, uris.get(number, ""), folder)
        for old in old_data:
            if (name, text) == (DATA_FOLDER, old) or (name == "span_folder" and str(Path(text).parent) == old):
                new = f"{data}{text.removeprefix(old)}"
        if new != text:
            new_texts.append((new, number, name, custom))
    gone = [
        number
        for number, uri in uris.items()
        if states[number] == _LIVE and split(uri) and not Path(current_uri(uri, folder)).exists()
    ]
    places = {str(folder): first.get(old_folders[0], old_folders[0])} if old_folders else {}
    places |= {str(data): first.get(old, old) for old in old_data}
    if new_uris or new_texts or gone:
        with write(address) as raw:
            raw.executemany("UPDATE Artifact SET uri = ? WHERE id = ?", [(uri, id) for id, uri in new_uris.items()])
            raw.executemany(
                "UPDATE ArtifactProperty SET string_value = ? "
                "WHERE artifact_id = ? AND name = ? AND is_custom_property = ?",
                new_texts,
            )
            now = time.time_ns() // 1_000_000
            raw.executemany(
                "UPDATE Artifact SET state = ?, last_update_time_since_epoch = ? WHERE id = ?",
                [(_DELETED, now, number) for number in gone],
            )
            if places:
                _record_first_places(raw, {**first, **places})
    if not gone:
        return []
    named = ", ".join(f"{types[number]} {number}" for number in gone[:_NAMED])
    more = f" and {len(gone) - _NAMED} more" if len(gone) > _NAMED else ""
    return [
        f"the files of {len(gone)} artifact(s) below {folder / 'root'} are gone ({named}{more}): a run recreates "
        "those that it needs; if a baseline is among them, there is nothing to compare with"
    ]


def problems(address: Address, folder: Path) -> list[str]:
    """Return a message for each inconsistency that moving or removing files left in a run folder.

    Args:
        address: the store of the pipeline, which may be a server.
        folder: absolute path of the run folder.

    Raises:
        StoreError: if the store cannot be read.
    """
    try:
        with connect(address) as connection:
            rows = connection.rows(
                "SELECT a.uri, t.name, a.create_time_since_epoch, a.state FROM Artifact a "
                "JOIN Type t ON t.id = a.type_id WHERE a.uri IS NOT NULL"
            )
    except NoStoreError:
        rows = []
    own = address.file is not None
    live = [(uri, kind, created) for uri, kind, created, state in rows if state == _LIVE and split(uri)]
    lines = []
    elsewhere = {parts[0] for uri, _, _ in live if (parts := split(uri)) and parts[0] != str(folder)}
    if own and elsewhere:
        lines.append(
            f"{folder} was moved or copied from {', '.join(sorted(elsewhere))}: the next `vitpipe run` records the "
            "current paths of its artifacts"
        )
    here = [uri for uri, _, _ in live if own or uri.startswith(f"{folder}/root/")]
    gone = [uri for uri in here if not Path(current_uri(uri, folder)).exists()]
    if gone:
        lines.append(
            f"{len(gone)} artifact(s) that ML Metadata names below {folder / 'root'} are gone: put them back, or let "
            "the next `vitpipe run` recreate those that it needs"
        )
    models = {
        (current_uri(uri, folder) if own else uri, created)
        for uri, kind, created in live
        if kind == "Model" and Path(current_uri(uri, folder) if own else uri).is_dir()
    }
    for version in versions(folder / "serving"):
        with contextlib.suppress(ValueError):  # other commands report a record that cannot be read
            made = read_record(folder / "serving" / str(version)).model
            if (current_uri(made.uri, folder) if own else made.uri, made.created_ms) not in models:
                # Paths on a server are not updated, so TFX needs the recorded path.
                advice = "" if own else ". If the run folder was moved, make its old path a link to the new one"
                lines.append(
                    f"{folder / 'serving' / str(version)} can be served, but its Model artifact "
                    f"{current_uri(made.uri, folder) if own else made.uri} is gone or unknown to {address}: while this "
                    f"version serves, no candidate can be compared with it{advice}"
                )
    return lines


def _first_places(connection: Connection) -> dict[str, str]:
    """Return for the current path of each moved folder its path at the first run."""
    rows = connection.rows(
        "SELECT p.string_value FROM ContextProperty p JOIN Context c ON c.id = p.context_id "
        "JOIN Type t ON t.id = c.type_id WHERE t.name = 'pipeline' AND p.name = ?",
        FIRST_PLACES,
    )
    return json.loads(rows[0][0]) if rows else {}


def _moved_data(texts: list[Any], old_folders: list[str], folder: Path, data: Path) -> list[str]:
    """Return the recorded data folders that were moved to `data`.

    A folder counts as moved if it no longer exists, or if its path relative to the old run folder equals that of `data`
    relative to the current one. In both cases, a span in `data` must have the recorded digest.
    """
    properties: dict[int, dict[str, str]] = {}
    for number, name, _, text in texts:
        properties.setdefault(number, {})[name] = text
    spans = {
        (str(Path(span["span_folder"]).parent), Path(span["span_folder"]).name, span.get("span_digest"))
        for span in properties.values()
        if span.get("span_folder")
    }
    moved_folders = []
    for old in sorted({old for old, _, _ in spans} - {str(data)}):
        with_folder = any(os.path.relpath(old, before) == os.path.relpath(data, folder) for before in old_folders)
        if (with_folder or not Path(old).is_dir()) and any(
            digest == _digest(data / name) for parent, name, digest in spans if parent == old
        ):
            moved_folders.append(old)
    return moved_folders


def _digest(span: Path) -> str | None:
    try:
        return manifest.read(span).digest()
    except (DataRefused, ingest.UsageError, OSError):
        return None


def _record_first_places(raw: sqlite3.Connection, places: Mapping[str, str]) -> None:
    for (context,) in raw.execute(
        "SELECT c.id FROM Context c JOIN Type t ON t.id = c.type_id WHERE t.name = 'pipeline'"
    ).fetchall():
        raw.execute("DELETE FROM ContextProperty WHERE context_id = ? AND name = ?", (context, FIRST_PLACES))
        raw.execute(
            "INSERT INTO ContextProperty (context_id, name, is_custom_property, string_value) VALUES (?, ?, 1, ?)",
            (context, FIRST_PLACES, json.dumps(places)),
        )
