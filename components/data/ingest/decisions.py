"""Decisions of a person about images of a source: to keep the label, to change it, or to drop the image.

They come from a table with the columns `id`, `verdict` and `label`, and, if it is recorded, who decided and when, in
`by` and `at`. A column `given` has the label that the image had when the person decided. Other columns are ignored.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from components.data.ingest import rows
from components.data.ingest.manifest import DecisionsFile
from components.data.ingest.source import Record, RejectedRecord, Source
from components.errors import DataRefused, UsageError
from components.quantities import quantity
from components.suggestions import did_you_mean

_KEEP, _RELABEL, _DROP = VERDICTS = ("keep", "relabel", "drop")


class Decision(NamedTuple):
    """Decision about one image."""

    where: str  # place in the table, for messages
    verdict: str  # one of VERDICTS
    class_name: str | None  # the new class, if the verdict is relabel
    given: str | None = None  # class that the image had at the decision, if the table has it


class Decisions(NamedTuple):
    """Content of a table of decisions."""

    path: Path
    by_id: Mapping[str, Decision]
    file: DecisionsFile


def read(path: Path) -> Decisions:
    """Read a table of decisions: a CSV, TSV, JSON Lines or Parquet file.

    Raises:
        UsageError: if the file is missing or its name has another ending.
        DataRefused: if the table cannot be read, or a row is wrong or duplicated.
    """
    if rows.ending(path) not in rows.ENDINGS:
        raise UsageError(f"--decisions {path}: not the name of a table: use a file in {', '.join(rows.ENDINGS)}")
    if not path.is_file():
        raise UsageError(f"--decisions {path}: no such file")
    columns = rows.columns(path)
    for name in ("id", "verdict"):
        if name not in columns:
            raise DataRefused(
                f"{path}: no column {name!r}: it has {', '.join(map(repr, columns)) or 'no columns'}. Name the columns "
                "'id', 'verdict', 'label' and, if they are recorded, 'by' and 'at'"
            )
    by_id: dict[str, Decision] = {}
    names: set[str] = set()
    times: list[datetime] = []
    wanted = [name for name in ("id", "verdict", "label", "given", "by", "at") if name in columns]
    for where, cells in rows.rows(path, wanted):
        id, decision = _decision(f"{path}: {where}", cells)
        if earlier := by_id.get(id):
            raise DataRefused(f"{decision.where}: {id!r} is duplicated, see {earlier.where}: keep one of the rows")
        by_id[id] = decision
        if by := str(cells.get("by") or "").strip():
            names.add(by)
        if at := str(cells.get("at") or "").strip():
            times.append(_time(decision.where, at))
    if not by_id:
        raise DataRefused(f"{path}: has no rows: add a row for each decision, or leave out --decisions")
    counts = Counter(decision.verdict for decision in by_id.values())
    return Decisions(
        path,
        by_id,
        DecisionsFile(
            sha256=_digest(by_id),
            keep=counts[_KEEP],
            relabel=counts[_RELABEL],
            drop=counts[_DROP],
            by=tuple(sorted(names)),
            first_at=min(times).isoformat() if times else None,
            last_at=max(times).isoformat() if times else None,
        ),
    )


def _digest(by_id: Mapping[str, Decision]) -> str:
    """Return a digest of what the decisions change, so that another order of rows or another editor changes nothing."""
    content = sorted((id, decision.verdict, decision.class_name or "") for id, decision in by_id.items())
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _decision(where: str, cells: Mapping[str, Any]) -> tuple[str, Decision]:
    id, verdict = cells.get("id"), cells.get("verdict")
    if id is not None and not isinstance(id, str):
        raise DataRefused(f"{where}: id {id!r} is not text: write it as `vitpipe data suspects` prints it, in quotes")
    if not id:
        raise DataRefused(f"{where}: no id: write the id of an image as `vitpipe data suspects` prints it")
    if verdict not in VERDICTS:
        raise DataRefused(
            f"{where}: {id!r} has the verdict {verdict!r}: write keep, relabel or drop, or remove the row"
        )
    class_name = rows.class_name(cells.get("label")) if verdict == _RELABEL else None
    if verdict == _RELABEL and class_name is None:
        raise DataRefused(f"{where}: {id!r} has the verdict relabel but no label: write the new class in 'label'")
    return id, Decision(where, verdict, class_name, rows.class_name(cells.get("given")))


def _time(where: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise DataRefused(
            f"{where}: at {text!r} is not a time: write it like 2026-07-31T09:30:00+02:00, or leave it empty"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def apply(source: Source, decisions: Decisions) -> Source:
    """Return a source with changed labels and marked images, see `decide`. Its parts are not changed.

    Args:
        source: the source.
        decisions: decisions about some of its images.

    Returns:
        The source. Its records raise DataRefused, once they have all been read, if the source has no image or class
        that a decision names. If the source knows its class names in advance, this function raises that error.
    """
    if source.class_names is not None:
        _check_classes(source, decisions, source.class_names)

    def records() -> Iterator[Record | RejectedRecord]:
        decided, classes = set[str](), set[str]()
        yield from decide(source.records(), decisions, decided, classes)
        check(source, decisions, decided, classes)

    return replace(source, records=records)


def decide(
    records: Iterable[Record | RejectedRecord], decisions: Decisions, decided: set[str], classes: set[str]
) -> Iterator[Record | RejectedRecord]:
    """Yield records with changed labels, and mark those that are dropped.

    Args:
        records: the records of a source or of a part of it.
        decisions: decisions about images of the source.
        decided: set to which the ids of the images are added that a decision names.
        classes: set to which the names of the classes are added that the records have in the source.

    Raises:
        DataRefused: if a decision names two of the records, or an image that has another label than at the decision.
    """
    for record in records:
        if record.class_name is not None:
            classes.add(record.class_name)
        id = record.id.decode("utf-8", "backslashreplace")
        decision = decisions.by_id.get(id)
        if decision is not None:
            add_decided(decisions, decided, id)
            _check_label(decision, id, record.class_name)
        if decision is None or decision.verdict == _KEEP:
            yield record
        elif decision.class_name is not None:
            yield replace(record, class_name=decision.class_name)
        elif isinstance(record, Record):
            yield replace(record, dropped=True)


def add_decided(decisions: Decisions, decided: set[str], id: str) -> None:
    """Add the id of an image that a decision names to the ids of such images.

    Raises:
        DataRefused: if another image has it.
    """
    if id in decided:  # only possible if an id is repeated, or equals the escaped form of one that is not UTF-8
        raise DataRefused(
            f"{decisions.by_id[id].where}: two images of the source have the id {id!r}: rename one of them, or remove "
            "the row"
        )
    decided.add(id)


def _check_label(decision: Decision, id: str, class_name: str | None) -> None:
    if decision.given is not None and class_name is not None and rows.class_name(class_name) != decision.given:
        raise DataRefused(
            f"{decision.where}: {id!r} has the label {class_name!r} in the source, but {decision.given!r} in the "
            "column 'given', so it was decided about another image, or after another decision: decide again, or "
            "remove the row"
        )


def check(source: Source, decisions: Decisions, decided: Collection[str], classes: Collection[str]) -> None:
    """Check that a source has every image and class that a decision names.

    Args:
        source: the source.
        decisions: the decisions.
        decided: ids of the images that a decision names and the source has.
        classes: names of the classes that the source has.

    Raises:
        DataRefused: if it has not.
    """
    if unknown := [id for id in decisions.by_id if id not in decided]:
        raise DataRefused(
            f"{decisions.by_id[unknown[0]].where}: {source.description} has no image {unknown[0]!r} "
            f"({quantity(len(unknown), 'such row')}): write ids as `vitpipe data suspects` prints them, without the "
            "`span-N/` of a window, or remove the rows"
        )
    _check_classes(source, decisions, classes if source.class_names is None else source.class_names)


def _check_classes(source: Source, decisions: Decisions, classes: Collection[str]) -> None:
    for id, decision in decisions.by_id.items():
        if decision.class_name is not None and decision.class_name not in classes:
            raise DataRefused(
                f"{decision.where}: {id!r} is relabelled as {decision.class_name!r}, but {source.description} has no "
                f"such class: {did_you_mean(decision.class_name, classes)}it has {', '.join(sorted(classes))}"
            )
