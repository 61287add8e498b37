"""TensorFlow Datasets: the folder of one version of a data set, as `tfds build` or `tfds.load` writes it.

It holds `dataset_info.json`, `features.json`, `<label>.labels.txt` with the names of the classes, and TFRecord files
such as `flowers-train.tfrecord-00000-of-00002`. The library itself is not needed.
"""

import functools
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from components.data.ingest import safe_files, tfrecord
from components.data.ingest.files import files_digest
from components.data.ingest.images import MAX_BYTES, TOO_LARGE
from components.data.ingest.shards import Shard, ShardParts, subfolders
from components.data.ingest.source import Listing, Progress, Record, RejectedRecord, Source, split_named
from components.data.ingest.sources.webdataset import read_names
from components.errors import DataRefused

_INFO, _FEATURES = "dataset_info.json", "features.json"
_MAX_FOLDERS = 100  # folders of each level that are searched for a data set
_MAX_JSON = 16 * 2**20  # bytes; the lengths of the shards of a large data set take 100 kB
_MAX_CLASSES = 100_000
_MAX_FEATURE_NAME = 200  # bytes; it is part of the name of a file
_SHARD = re.compile(r"\w+-(?P<split>[\w-]+)\.tfrecord-(?P<number>\d{5,})-of-(?P<count>\d{5,})")
_NO_LABEL = "a label that is not the index of a class"


class _Features(NamedTuple):
    """Names of the features of an example, and of the classes."""

    image: str
    label: str
    class_names: tuple[str, ...]


def open_source(path: Path, description: str, progress: Progress) -> Source | None:
    """Open the folder of a version of a data set, or a folder above it that has no other version.

    Args:
        path: the folder.
        description: name of the source in the manifest.
        progress: called with the progress of hashing.

    Returns:
        The source, or None if the path is not such a folder.

    Raises:
        DataRefused: if files are missing or damaged, or the data set is not one of images with one class each.
    """
    if not path.is_dir() or not (root := _version_folder(path)):
        return None
    info, features = _read_json(root / _INFO), _features(root)
    file_format = info.get("fileFormat", "tfrecord")
    if file_format != "tfrecord":
        raise DataRefused(
            f"{root / _INFO}: the file format is {file_format!r}: build the data set again with "
            "`--file_format=tfrecord`"
        )
    shards = _shards(root, info)
    files = [_FEATURES, *(shard.path for shard in shards)]
    if (root / f"{features.label}.labels.txt").exists():
        files.append(f"{features.label}.labels.txt")
    total = sum(_lengths(info).values()) or None
    read = functools.partial(_records, features)
    return Source(
        description,
        lambda: Listing(files_digest(root, files, progress), total),
        lambda: itertools.chain.from_iterable(read(root, shard) for shard in shards),
        features.class_names,
        parts=ShardParts(root.absolute(), tuple(files), tuple(shards), read),
    )


def _version_folder(path: Path) -> Path | None:
    """Return the folder of a version, which is the path itself or the only one at most two levels below it."""
    level = [path]
    for _ in range(3):
        found = [folder for folder in level if (folder / _FEATURES).exists() and (folder / _INFO).exists()]
        if len(found) > 1:
            names = ", ".join(str(folder.relative_to(path)) for folder in found)
            raise DataRefused(f"{path}: holds the data sets {names}: name the folder of one of them as --source")
        if found:
            return found[0]
        level = [folder / name for folder in level for name in subfolders(folder)][:_MAX_FOLDERS]
    return None


def _shards(root: Path, info: dict[str, Any]) -> list[Shard]:
    shards = []
    numbers: dict[str, set[int]] = {}  # of the files that are present, by split
    counts: dict[str, int] = {}
    for path in sorted(root.iterdir()):
        if not (match := _SHARD.fullmatch(path.name)):
            continue
        if (split := split_named(match["split"])) is None:
            raise DataRefused(
                f"{path}: unknown split {match['split']!r}: use train, validation and test, and move the files of "
                "other splits elsewhere"
            )
        shards.append(Shard(path.name, split))
        numbers.setdefault(match["split"], set()).add(int(match["number"]))
        counts[match["split"]] = int(match["count"])
    for name, length in _lengths(info).items():
        if length and split_named(name) and name not in counts:
            raise DataRefused(f"{root}: the files of split {name!r} are missing: copy them there")
    for name, count in counts.items():
        if len(numbers[name]) < count:
            missing = min(set(range(len(numbers[name]) + 1)) - numbers[name])
            raise DataRefused(
                f"{root}: file {missing} of the {count} files of split {name!r} is missing: copy it there"
            )
    if not shards:
        raise DataRefused(f"{root}: holds no files like `name-train.tfrecord-00000-of-00001`: copy them there")
    return shards


def _lengths(info: dict[str, Any]) -> dict[str, int]:
    """Return the number of examples in each split, or an empty dictionary if the description has another form."""
    try:
        return {split["name"]: sum(map(int, split["shardLengths"])) for split in info["splits"]}
    except (KeyError, TypeError, ValueError):
        return {}


def _features(root: Path) -> _Features:
    features = _named_features(root / _FEATURES)
    image = _choose_feature(root, features, "image", ".Image")
    label = _choose_feature(root, features, "label", ".ClassLabel")
    if "/" in label or "\\" in label or len(label.encode("utf-8", "surrogatepass")) > _MAX_FEATURE_NAME:
        raise DataRefused(
            f"{root / _FEATURES}: the name of feature {label!r:.80} has a slash or backslash, or more than "
            f"{_MAX_FEATURE_NAME} bytes: build the data set again with the name 'label'"
        )
    names_file = root / f"{label}.labels.txt"
    if names_file.exists():
        return _Features(image, label, read_names(names_file))
    content = features[label].get("classLabel", features[label].get("content"))
    try:
        count = int(content.get("numClasses", content.get("num_classes")))  # type: ignore[union-attr] # caught below
    except (AttributeError, TypeError, ValueError, OverflowError):
        raise DataRefused(f"{names_file}: missing, and {_FEATURES} has no number of classes: copy it there") from None
    if not 2 <= count <= _MAX_CLASSES:
        raise DataRefused(
            f"{root / _FEATURES}: feature {label!r} has {count:,} classes, but 2 to {_MAX_CLASSES:,} are allowed: "
            f"correct `numClasses`, or copy {names_file.name} there"
        )
    return _Features(image, label, tuple(map(str, range(count))))


def _named_features(path: Path) -> dict[str, dict[str, Any]]:
    """Return the description of each feature by its name. The key of the descriptions depends on the version."""
    description: Any = _read_json(path)
    for key in ("featuresDict", "content", "features"):
        if isinstance(description, dict) and key in description:
            description = description[key]
            if isinstance(description, str):
                description = _parse(path, description)
    if not isinstance(description, dict):
        raise DataRefused(f"{path}: describes no features: copy it again")
    return {name: feature for name, feature in description.items() if isinstance(feature, dict)}


def _choose_feature(root: Path, features: dict[str, dict[str, Any]], usual: str, kind: str) -> str:
    """Return the feature of a kind that has the usual name, or the only feature of the kind."""
    candidates = [
        name
        for name, feature in features.items()
        if str(feature.get("pythonClassName", feature.get("type"))).endswith(kind)
    ]
    if len(candidates) == 1 or usual in candidates:
        return usual if usual in candidates else candidates[0]
    names = ", ".join(map(repr, candidates)) or "none"
    raise DataRefused(
        f"{root / _FEATURES}: its features of type {kind.removeprefix('.')} are {names}, but one is needed: write a "
        "data set of images with one class each"
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return _parse(path, safe_files.read_bytes(path, _MAX_JSON))
    except FileNotFoundError:
        raise DataRefused(f"{path}: missing: copy it there") from None


def _parse(path: Path, text: str | bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataRefused(f"{path}: not JSON ({error}): copy it again") from error
    if not isinstance(value, dict):
        raise DataRefused(f"{path}: not a JSON object: copy it again")
    return value


def _records(features: _Features, root: Path, shard: Shard) -> Iterator[Record | RejectedRecord]:
    for number, data in enumerate(tfrecord.read(root / shard.path)):
        id = f"{shard.path}:{number}".encode()
        try:
            image, label = tfrecord.parse_labelled(data, features.image, features.label)
        except ValueError as error:
            raise DataRefused(f"{root / shard.path}: example {number}: {error}") from None
        if not 0 <= label < len(features.class_names):
            yield RejectedRecord(id, _NO_LABEL)
            continue
        name = features.class_names[label]
        if len(image) > MAX_BYTES:
            yield RejectedRecord(id, TOO_LARGE, name)
        else:
            yield Record(shard.split, name, id, image)
