"""Wrong labels that the label check finds: planted ones, and those that people found in CIFAR-10's test set.

    python benchmarks/labels.py planted data/cifar10/span-1 FOLDER --images 10000 --epochs 5
    python benchmarks/labels.py planted data/sample/span-1 FOLDER --epochs 12 --folds 2
    python benchmarks/labels.py test data/cifar10/span-1 FOLDER --epochs 5 --confirmed cifar10_mturk.json labels.npy

`planted` gives 5 % of the training images of a span a wrong label at random, and another 5 % a wrong label of a similar
class. Those of CIFAR-10 are usual in the literature (Patrini et al., 2017). The label check and a simpler search then
have to find them. The simpler search is cleanlab on the out-of-fold predictions of scikit-learn's logistic regression,
on histograms of oriented gradients (8 x 8 cells, 9 directions) and mean colours (8 x 8 cells).

`test` checks the 10,000 test images of CIFAR-10 with their own labels. It counts the wrong labels that people confirmed
(Northcutt et al., 2021) among the first suspects. `cifar10_mturk.json` is `mturk/cifar10_mturk.json` of the repository
cleanlab/label-errors, and `labels.npy` is its `original_test_labels/cifar10_test_set_original_labels.npy`. A label is
wrong if fewer than three of five people chose it, and no other class.

FOLDER keeps statistics and checkpoints, so that an interrupted measurement continues. Use another folder for other
images. `docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import argparse
import json
import logging
import shutil
from collections import defaultdict
from itertools import islice
from pathlib import Path

import apache_beam as beam
import numpy as np
import pandas as pd
import record
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from cleanlab.filter import find_label_issues
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tfx.types import artifact_utils, standard_artifacts

from components.artifacts import ImageStatisticsArtifact, LabelSuspectsArtifact
from components.data.ingest import manifest, tfrecord
from components.data.ingest.images import as_seen, open_image
from components.data.labels.component import Executor
from components.data.labels.settings import LabelCheckSettings
from components.data.labels.suspects import LabelFigures, read_figures, read_suspects
from components.data.statistics.component import TABLE, measure_shard, summarize
from components.data.statistics.figures import FIGURES
from trainer.framing import Framing
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings

SHARE = 0.05  # of images with a planted label, for each kind
SIMILAR = {
    **{"truck": "automobile", "bird": "airplane", "deer": "horse", "cat": "dog", "dog": "cat"},
    **{"three": "eight", "seven": "one", "four": "nine", "nine": "four", "five": "six"},
}
FIRST = 200  # suspects of the test set that are looked through
MOST_GIVEN = 2  # people of five who may choose a label that counts as wrong


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=["planted", "test"])
    parser.add_argument("span", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--folds", type=int, default=3)
    parser.add_argument("--confirmed", type=Path, nargs=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    settings = LabelCheckSettings(epochs=arguments.epochs, folds=arguments.folds)
    if arguments.kind == "planted":
        measure_planted(arguments.span, arguments.folder, arguments.images, settings)
    else:
        measure_test(arguments.span, arguments.folder, settings, *arguments.confirmed)


def measure_planted(span: Path, folder: Path, images: int | None, settings: LabelCheckSettings) -> None:
    """Plant wrong labels in the first images of train, and count those that both searches find."""
    names = manifest.read(span).class_names
    examples = list(islice(tfrecord.read_split(span / "train"), images))
    true = np.array([example.label for example in examples])
    labels, planted = plant(true, names)
    changed = [example._replace(label=int(label)) for example, label in zip(examples, labels, strict=True)]
    figures, suspects = check(changed, folder, names, settings)
    ids = {example.id: row for row, example in enumerate(examples)}
    orders = {"label check": [ids[id] for id in suspects.id]}
    probabilities = probe(changed, labels, settings.folds)
    found = find_label_issues(
        labels, probabilities, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    orders["linear probe"] = found.tolist()
    accuracies = {
        "label check": figures.accuracy,
        "linear probe": float((probabilities.argmax(axis=1) == labels).mean()),
    }
    total = int((planted != "").sum())
    rows = []
    for name, order in orders.items():
        first, kinds = planted[order[:total]], planted[order]
        rows.append(
            [
                name,
                f"{accuracies[name]:.3f}",
                f"{len(order):,}",
                f"{(first != '').sum() / max(len(first), 1):.3f}",
                f"{(first != '').sum() / total:.3f}",
                *(f"{(kinds == kind).sum() / (planted == kind).sum():.3f}" for kind in ("random", "similar")),
            ]
        )
    columns = [
        "search",
        "accuracy on the given labels",
        "suspects",
        f"precision of the first {total:,}",
        f"recall of the first {total:,}",
        "recall of random labels, all suspects",
        "recall of similar classes, all suspects",
    ]
    write(
        "labels",
        columns,
        rows,
        f"{len(labels):,} training images, {total:,} of them with a planted label. The label check estimates that "
        f"{figures.wrong:.3f} of the labels are wrong.",
    )


def plant(true: np.ndarray, names: tuple[str, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which some are wrong, int64 [N], and the kind of each wrong label, str [N], or ""."""
    rng = np.random.default_rng(0)
    labels, kinds = true.astype(np.int64), np.full(len(true), "", "U7")
    similar = {names.index(one): names.index(other) for one, other in SIMILAR.items() if one in names}
    rows = rng.permutation(np.flatnonzero(np.isin(true, list(similar))))[: round(SHARE * len(true))]
    labels[rows], kinds[rows] = [similar[label] for label in true[rows]], "similar"
    rows = rng.permutation(np.flatnonzero(kinds == ""))[: round(SHARE * len(true))]
    labels[rows], kinds[rows] = (true[rows] + rng.integers(1, len(names), len(rows))) % len(names), "random"
    return labels, kinds


def measure_test(span: Path, folder: Path, settings: LabelCheckSettings, confirmed: Path, official: Path) -> None:
    """Check the test set, and count the confirmed errors among the first suspects."""
    names = manifest.read(span).class_names
    examples = list(tfrecord.read_split(span / "test"))
    figures, suspects = check(examples, folder, names, settings)
    votes = {entry["id"]: entry["mturk"] for entry in json.loads(confirmed.read_text())}
    wrong = {number for number, vote in votes.items() if vote["given"] <= MOST_GIVEN}
    numbers: defaultdict[str, list[int]] = defaultdict(list)  # official numbers of the images of each class, in order
    for number, label in enumerate(np.load(official, allow_pickle=False)):
        numbers[names[label]].append(number)
    found = []
    for id in suspects.id[:FIRST]:
        *_, name, file = id.decode().split("/")
        found.append(numbers[name][int(Path(file).stem)] in wrong)
    columns = ["accuracy", "suspects", f"confirmed among the first {FIRST}", "confirmed in all"]
    rows = [[f"{figures.accuracy:.3f}", f"{len(suspects):,}", sum(found), len(wrong)]]
    chance = FIRST * len(wrong) / len(examples)
    write(
        "label errors",
        columns,
        rows,
        f"The 10,000 test images of CIFAR-10, re-encoded as JPEG, with their own labels. {FIRST} images chosen at "
        f"random contain {chance:.1f} confirmed errors on average. The label check estimates that {figures.wrong:.3f} "
        "of the labels are wrong.",
    )


def write(topic: str, columns: list[str], rows: list[list[object]], note: str) -> None:
    """Print a measurement, and add it to the record."""
    for row in rows:
        for name, cell in zip(columns, row, strict=True):
            print(f"{name}: {cell}")
    print(note)
    record.write(topic, columns, rows, note)


def check(
    examples: list[tfrecord.RawExample], folder: Path, names: tuple[str, ...], settings: LabelCheckSettings
) -> tuple[LabelFigures, pd.DataFrame]:
    """Run the executor of LabelCheck on examples, as the split train without a test set."""
    shard = folder / "examples" / "Split-train" / "part-0"
    if not (folder / "statistics" / FIGURES).exists():
        shutil.rmtree(folder, ignore_errors=True)
        for each in (shard.parent, folder / "statistics" / TABLE, folder / "suspects"):
            each.mkdir(parents=True)
        records = (tfrecord.example(each.image, each.label, each.id) for each in examples)
        shard.write_bytes(b"".join(map(tfrecord.frame, records)))
        tables = measure_shard(("train", str(shard)), Framing(32))
        pd.concat([table.to_pandas() for table in tables]).to_parquet(folder / "statistics" / TABLE / "part-0.parquet")
        with beam.Pipeline(FnApiRunner()) as pipeline:
            context = {"span": 1, "gate_span": 1, "image_size": 32, "resize": "stretch", "background": (255, 255, 255)}
            summarize(pipeline, folder / "statistics", [*names], context)
    train, statistics, suspects = standard_artifacts.Examples(), ImageStatisticsArtifact(), LabelSuspectsArtifact()
    for artifact, name in ((train, "examples"), (statistics, "statistics"), (suspects, "suspects")):
        artifact.uri = str(folder / name)
    train.split_names = artifact_utils.encode_split_names(["train"])
    Executor().Do(
        {"examples": [train], "test_examples": [], "statistics": [statistics]},
        {"suspects": [suspects]},
        {
            "settings": settings.model_dump_json(),
            "model": ModelSettings().model_dump_json(),
            "augment": AugmentSettings().model_dump_json(),
            "training": TrainingSettings().model_dump_json(),
            "checkpoints": str(folder / "checkpoints"),
        },
    )
    return read_figures(folder / "suspects"), read_suspects(folder / "suspects")


def probe(examples: list[tfrecord.RawExample], labels: np.ndarray, folds: int) -> np.ndarray:
    """Return out-of-fold predictions of a logistic regression on simple features, float [N, classes]."""
    pixels = np.stack([np.asarray(as_seen(open_image(each.image)).convert("RGB")) for each in examples])
    colours = pixels.reshape(len(pixels), 8, 4, 8, 4, 3).mean(axis=(2, 4)).reshape(len(pixels), -1)
    down, right = np.gradient(pixels.mean(axis=3), axis=(1, 2))
    direction = np.arctan2(down, right) % np.pi // (np.pi / 9)
    by_direction = np.hypot(down, right)[..., None] * (direction[..., None] == np.arange(9))
    cells = by_direction.reshape(len(pixels), 8, 4, 8, 4, 9).sum(axis=(2, 4))
    cells /= np.linalg.norm(cells, axis=3, keepdims=True) + 1e-3
    features = np.hstack([colours, cells.reshape(len(pixels), -1)]).astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=300))
    parts = StratifiedKFold(folds, shuffle=True, random_state=0)
    predictions: np.ndarray = cross_val_predict(model, features, labels, cv=parts, method="predict_proba")
    return predictions


if __name__ == "__main__":
    main()
