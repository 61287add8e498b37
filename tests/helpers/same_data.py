"""Comparison of the artifacts of the data path of two runs: `python -m tests.helpers.same_data ROOT ROOT`."""

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.dataset
from tensorflow_metadata.proto.v0 import statistics_pb2

_TABLES = ("images", "twins.parquet", "conflicts.parquet")


def differences(one: Path, other: Path) -> Iterator[tuple[str, str, str]]:
    """Compare the artifacts that two runs made of the same data, regardless of the order of rows and features.

    Args:
        one: the folder `root` of a run folder with one run.
        other: the same of the other run.

    Yields:
        The name of an artifact's part, its size, and how the two differ; empty if they are equal.
    """
    for node in "ImportExampleGen", "TestExampleGen":
        ours, theirs = (_files(_artifact(root, node, "examples")) for root in (one, other))
        yield f"{node}: bytes of the shards", f"{len(ours)} shards", "" if ours == theirs else "other bytes"
    folders = [_artifact(root, "ImageStatistics", "statistics") for root in (one, other)]
    for name in _TABLES:
        ours, theirs = (_rows(folder / name) for folder in folders)
        different = sum(left != right for left, right in zip(ours, theirs, strict=False)) + abs(len(ours) - len(theirs))
        yield f"ImageStatistics: {name}", f"{len(ours)} rows", f"{different} rows differ" if different else ""
    yield "ImageStatistics: figures.json", *_compare_json(*(folder / "figures.json" for folder in folders))
    for split in "train", "val":
        files = [_artifact(root, "StatisticsGen", "statistics") / f"Split-{split}" for root in (one, other)]
        ours, theirs = (_features(folder / "FeatureStats.pb") for folder in files)
        unequal = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        yield f"StatisticsGen: features of {split}", f"{len(ours)} features", ", ".join(unequal)
    ours, theirs = (_files(_artifact(root, "ExampleValidator", "anomalies")) for root in (one, other))
    yield "ExampleValidator: bytes", f"{len(ours)} files", "" if ours == theirs else "other bytes"
    verdicts = [_artifact(root, "DataGate", "verdict") for root in (one, other)]
    for name in "verdict.json", "leave_out.json":
        yield f"DataGate: {name}", *_compare_json(*(folder / name for folder in verdicts))


def _artifact(root: Path, node: str, output: str) -> Path:
    (folder,) = (root / node / output).iterdir()  # a failed attempt leaves no folder
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _rows(path: Path) -> list[str]:
    return sorted(map(repr, pyarrow.dataset.dataset(path).to_table().to_pylist()))


def _features(file: Path) -> dict[str, str]:
    statistics = statistics_pb2.DatasetFeatureStatisticsList.FromString(file.read_bytes())
    features = {feature.path.step[0]: feature for feature in statistics.datasets[0].features}
    # All ids are different. TFDV lists a thousand of them as the most frequent ones, and not the same in each run.
    for field in "top_values", "rank_histogram":
        features["id"].string_stats.ClearField(field)
    return {name: str(feature) for name, feature in features.items()}


def _compare_json(one: Path, other: Path) -> tuple[str, str]:
    ours, theirs = (dict(_leaves(json.loads(path.read_text()))) for path in (one, other))
    if ours.keys() != theirs.keys():
        return f"{len(ours)} values", "other keys"
    unequal = [
        key
        for key, value in ours.items()
        if not (
            math.isclose(value, theirs[key], rel_tol=1e-9, abs_tol=1e-12)
            if isinstance(value, float) and isinstance(theirs[key], float)
            else value == theirs[key]
        )
    ]
    return f"{len(ours)} values", ", ".join(unequal)


def _leaves(tree: object, place: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict | list):
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(value, f"{place}.{key}")
    else:
        yield place, tree


if __name__ == "__main__":
    for name, size, difference in differences(*map(Path, sys.argv[1:])):
        print(f"{name:<40} {size:>14}  {difference or 'equal'}")
