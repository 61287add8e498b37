"""Verification that the spans of a data folder match their manifests."""

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tensorflow_metadata.proto.v0 import schema_pb2

from components.data.ingest import manifest as manifests
from components.data.ingest import safe_files, schema, tfrecord
from components.data.ingest.folder import span_folder, spans
from components.data.ingest.manifest import Manifest, Shard
from components.data.ingest.source import SPLITS, Progress, no_progress
from components.errors import DataRefused, UsageError
from trainer.examples import LABEL, class_names


def problems(path: Path, progress: Progress = no_progress) -> list[str]:
    """Compare spans with their manifests.

    Args:
        path: a data folder, whose spans are all verified, or a single span.
        progress: called after every shard, and regularly within a shard.

    Returns:
        A line for each problem, which names the file, what was expected and what was found. The list is empty if
        everything matches.

    Raises:
        UsageError: if there is no span.
    """
    folders = span_folders(path)
    total = sum(1 for folder in folders for _ in folder.glob("*/*"))
    found: list[str] = []
    done = 0

    def report(more: int) -> None:
        nonlocal done
        done += more
        progress("shards verified", done, total)

    report(0)
    for folder in folders:
        found += span_problems(folder, verified=report)
    return found


def span_problems(folder: Path, verified: Callable[[int], None] = lambda _more: None) -> list[str]:
    """Compare one span with its manifest.

    Args:
        folder: the folder of the span.
        verified: called with 1 after each shard, and regularly with 0 within a shard.

    Returns:
        A line for each problem, as in `problems`.
    """
    try:
        manifest = manifests.read(folder)
    except DataRefused as error:
        return [str(error)]
    found = layout_problems(folder, manifest, verified)
    checks = {}
    for name, shard in manifest.shards.items():
        checks[name] = check_shard(folder / name, shard, len(manifest.class_names), verified)
        verified(1)
    return found + shard_problems(folder, manifest, SPLITS, checks)


def layout_problems(
    folder: Path, manifest: Manifest, verified: Callable[[int], None] = lambda _more: None
) -> list[str]:
    """Compare the schema of a span, the names of its files and its history with the manifest.

    Args:
        folder: the folder of the span.
        manifest: its manifest.
        verified: called regularly with 0 while the history is read.
    """
    found = _schema_problems(folder.parent, folder, manifest) + _file_problems(folder, manifest)
    if manifest.history:
        found += _digest_problems(folder / manifests.HISTORY, manifest.history.sha256, verified)
    return found


class CheckedShard(NamedTuple):
    """Result of the comparison of a shard with the manifest."""

    problem: str  # empty if there is none
    counts: Sequence[Sequence[int]]  # pairs of a label and its number of examples; empty if there is a problem


def check_shard(
    path: Path, shard: Shard, classes: int, verified: Callable[[int], None] = lambda _more: None
) -> CheckedShard:
    """Compare a shard with its entry in the manifest.

    Args:
        path: the shard.
        shard: its entry.
        classes: number of classes.
        verified: called regularly with 0 while the shard is read.
    """
    if problems := _digest_problems(path, shard.sha256, verified):
        return CheckedShard(problems[0], [])
    labels: list[int] = []
    after = "at its beginning"
    try:
        for example in tfrecord.read_examples(path):
            verified(0)
            id = example.id.decode("utf-8", "backslashreplace")
            if not 0 <= example.label < classes:
                raise ValueError(f"{id!r}: feature {LABEL!r}: expected 0 to {classes - 1}, found {example.label}")
            labels.append(example.label)
            after = f"after {id!r}"
    except (DataRefused, ValueError) as error:
        found = str(error).removeprefix(f"{path}: ")
        problem = f"{path}: expected whole examples, found {after} (record {len(labels) + 1:,}): {found}"
        return CheckedShard(problem, [])
    if len(labels) != shard.examples:
        return CheckedShard(f"{path}: expected {shard.examples:,} examples, found {len(labels):,}", [])
    return CheckedShard("", sorted(Counter(labels).items()))


def shard_problems(
    folder: Path, manifest: Manifest, splits: Collection[str], checks: Mapping[str, CheckedShard]
) -> list[str]:
    """Return the problems of a span's shards, or if there are none, those of the numbers of examples by class.

    Args:
        folder: the folder of the span.
        manifest: its manifest.
        splits: the splits whose shards were checked.
        checks: the checked shards by their names.
    """
    if found := [check.problem for check in checks.values() if check.problem]:
        return found
    counts: Counter[tuple[str, int]] = Counter()
    for name, check in checks.items():
        counts.update({(PurePosixPath(name).parts[0], label): count for label, count in check.counts})
    return _count_problems(folder, manifest, splits, counts)


def span_folders(path: Path) -> list[Path]:
    """Return the folder of a span itself, or the span folders of a data folder.

    Raises:
        UsageError: if there is no span.
    """
    if os.path.lexists(path / manifests.NAME):  # the reader of the manifest reports if this is not a file
        return [path]
    folders = [span_folder(path, number) for number in spans(path)]
    if not folders:
        raise UsageError(f"{path}: holds no span: name a folder that `vitpipe data prepare` wrote, or one of its spans")
    return folders


def _schema_problems(data: Path, folder: Path, manifest: Manifest) -> list[str]:
    try:
        found = schema.read(data)
    except DataRefused as error:
        return [str(error)]
    names = class_names(found)
    if names != list(manifest.class_names):
        return [f"{data / schema.NAME}: expected classes {list(manifest.class_names)} ({folder.name}), found {names}"]
    lines = []
    features = {feature.name: feature for feature in found.feature}
    for expected in schema.build(manifest.class_names).feature:
        feature = features.get(expected.name)
        if feature is None:
            lines.append(f"{data / schema.NAME}: feature {expected.name!r} is missing")
        elif (feature.type, feature.int_domain) != (expected.type, expected.int_domain):
            lines.append(
                f"{data / schema.NAME}: feature {expected.name!r}: "
                f"expected {_describe(expected)}, found {_describe(feature)}"
            )
    return lines


def _describe(feature: schema_pb2.Feature) -> str:
    return f"{schema_pb2.FeatureType.Name(feature.type)} from {feature.int_domain.min} to {feature.int_domain.max}"


def _file_problems(folder: Path, manifest: Manifest) -> list[str]:
    expected = {manifests.NAME, *SPLITS, *manifest.shards} | ({manifests.HISTORY} if manifest.history else set())
    unexpected = (path for path in sorted(folder.rglob("*")) if path.relative_to(folder).as_posix() not in expected)
    lines = [f"{path}: not listed in the manifest: remove it" for path in unexpected]
    for split in SPLITS:
        if os.path.lexists(folder / split) and not stat.S_ISDIR(mode := (folder / split).lstat().st_mode):
            lines.append(f"{folder / split}: expected a folder, found {safe_files.describe(mode)}")
    return lines


def _digest_problems(path: Path, expected: str, verified: Callable[[int], None]) -> list[str]:
    try:
        with safe_files.open_file(path) as file:
            digest = safe_files.digest(file, lambda _done: verified(0))
    except DataRefused as error:
        return [str(error)]
    except OSError as error:
        return [f"{path}: expected sha256 {expected}, found no readable file ({error.strerror})"]
    return [] if digest == expected else [f"{path}: expected sha256 {expected}, found {digest}"]


def _count_problems(
    folder: Path, manifest: Manifest, splits: Collection[str], counts: Counter[tuple[str, int]]
) -> list[str]:
    lines = []
    for split in splits:
        for label, name in enumerate(manifest.class_names):
            expected, found = manifest.counts.get(split, {}).get(name, 0), counts[split, label]
            if expected != found:
                lines.append(f"{folder / split}: class {name!r}: expected {expected:,} examples, found {found:,}")
    return lines
