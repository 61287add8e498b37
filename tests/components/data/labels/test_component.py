"""Tests of the label check on small spans of dark, grey and bright images."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tfx.types import artifact_utils, standard_artifacts

from components.artifacts import ImageStatisticsArtifact, LabelSuspectsArtifact
from components.data.ingest import tfrecord
from components.data.labels.component import Executor
from components.data.labels.settings import LabelCheckSettings
from components.data.labels.suspects import PAGE, PREDICTION, TWIN, read_figures, read_suspects
from components.data.statistics.component import measure_shard
from tests.helpers.spans import encoded
from trainer.framing import Framing
from trainer.settings import AugmentSettings, ModelSettings, TrainingSettings

WRONG = b"train/<b>7</b>.png"


def image(seed):
    """Return an image whose class is `seed % 3`."""
    return encoded((np.random.default_rng(seed).integers(0, 60, (32, 32, 3)) + 90 * (seed % 3)).astype("uint8"))


def records():
    """Return the examples of each split. One has a wrong label, and one of test repeats one of train, with another."""
    splits = {
        split: [(image(seed), seed % 3, f"{split}/{seed}.png".encode()) for seed in range(first, first + count)]
        for split, first, count in (("train", 0, 60), ("val", 60, 12), ("test", 72, 12))
    }
    splits["train"][7] = (image(7), 2, WRONG)
    splits["test"].append((image(3), 1, b"test/copy.png"))
    return splits


@pytest.fixture
def check(tmp_path, summarized):
    def check(splits, epochs=8):
        artifacts = {}
        tables = []
        for name, members in (("examples", ("train", "val")), ("test_examples", ("test",))):
            artifact = standard_artifacts.Examples()
            artifact.uri, artifact.split_names = str(tmp_path / name), artifact_utils.encode_split_names([*members])
            artifacts[name] = [artifact]
            for split in members:
                shard = tmp_path / name / f"Split-{split}" / "part-0"
                shard.parent.mkdir(parents=True)
                shard.write_bytes(
                    b"".join(tfrecord.frame(tfrecord.example(data, label, id)) for data, label, id in splits[split])
                )
                tables += [table.to_pandas() for table in measure_shard((split, str(shard)), Framing(32))]
        statistics, suspects = ImageStatisticsArtifact(), LabelSuspectsArtifact()
        statistics.uri = str(summarized(pd.concat(tables, ignore_index=True)))
        suspects.uri = str(tmp_path / "suspects")
        Path(suspects.uri).mkdir()
        Executor().Do(
            {**artifacts, "statistics": [statistics]},
            {"suspects": [suspects]},
            {
                "settings": LabelCheckSettings(epochs=epochs, folds=2).model_dump_json(),
                "model": ModelSettings(patch_size=16).model_dump_json(),
                "augment": AugmentSettings().model_dump_json(),
                "training": TrainingSettings().model_dump_json(),
                "checkpoints": str(tmp_path / "checkpoints"),
            },
        )
        return Path(suspects.uri)

    return check


@pytest.mark.slow
def test_a_wrong_label_and_contradicting_twins_are_suspects(check):
    folder = check(records())
    figures, suspects = read_figures(folder), read_suspects(folder)
    assert (figures.images, figures.folds, figures.epochs, figures.problem) == (85, 2, 8, "")
    assert figures.suspects == suspects.reason.value_counts().reindex([*figures.suspects], fill_value=0).to_dict()
    twins = suspects[suspects.reason == TWIN]
    assert {(row.split, row.id, row.label, row.suggested, row.twin_id) for row in twins.itertuples()} == {
        ("train", b"train/3.png", "cat", "dog", b"test/copy.png"),
        ("test", b"test/copy.png", "dog", "cat", b"train/3.png"),
    }
    [found] = suspects[suspects.id == WRONG].itertuples()
    assert (found.reason, found.label, found.suggested) == (PREDICTION, "fox", "dog")
    assert found.score < 0.5 and figures.accuracy > 0.9 and 0 < figures.wrong < 0.1
    page = (folder / PAGE).read_text()
    assert "train/&lt;b&gt;7&lt;/b&gt;.png" in page and "<b>7" not in page
    assert page.count("data:image/") == len(suspects) + len(twins) and "http" not in page


@pytest.mark.parametrize(("data", "label"), [(b"not an image", 0), (image(0), 3)])
def test_labels_of_data_that_the_gate_refuses_are_not_checked(check, data, label):
    splits = records()
    splits["val"].append((data, label, b"val/bad.png"))
    folder = check(splits)
    assert read_figures(folder).problem.startswith("1 images") and not len(read_suspects(folder))
    assert "were not checked: 1 images" in (folder / PAGE).read_text()


def test_labels_of_too_few_images_are_not_checked(check):
    folder = check({split: rows[:1] for split, rows in records().items()})
    assert "0 of 3 classes have at least 10 different images" in read_figures(folder).problem


def test_labels_of_images_that_are_all_copies_are_not_checked(check):
    copies = [(image(0), 0, b"0"), (image(1), 1, b"1"), (image(2), 2, b"2")]
    splits = {
        split: [
            (data, label, b"%s-%d-%s" % (split.encode(), number, id))
            for number in range(4)
            for data, label, id in copies
        ]
        for split in ("train", "val", "test")
    }
    folder = check(splits)
    assert "0 of 3 classes have at least 10 different images" in read_figures(folder).problem
