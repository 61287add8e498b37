import keras
import numpy as np
import pytest

from components.data.ingest import tfrecord
from components.model.evaluator.judgement import GateSettings, judge
from components.model.evaluator.measures import Sums
from components.model.evaluator.predictions import predict as predict_into
from tests.helpers.spans import encoded, picture
from trainer import serving
from trainer.vit import ViT

NAMES = ["cat", "dog", "fox", "owl"]
LABELS = [0, 1, 2, 3] * 2


@pytest.fixture
def shards(tmp_path):
    records = [tfrecord.example(encoded(picture(n)), label, b"%d" % n) for n, label in enumerate(LABELS)]
    (tmp_path / "shard").write_bytes(b"".join(map(tfrecord.frame, records)))
    return [tmp_path / "shard"]


@pytest.fixture
def exported(tmp_path):
    def export(scale=1.0, names=NAMES):
        model = ViT(image_size=8, patch_size=4, classes=len(names), depth=1, width=8, heads=2)
        model.head.kernel.assign(scale * keras.random.normal(model.head.kernel.shape, seed=1))
        serving.export(model, names, str(tmp_path / "model"))
        return str(tmp_path / "model")

    return export


@pytest.fixture
def predict(tmp_path):
    def predict(model, shards):
        (tmp_path / "predictions").mkdir(exist_ok=True)
        return predict_into(model, shards, tmp_path / "predictions")

    return predict


def only_batch(predictions):
    [batch] = predictions.batches()
    return batch


def test_a_model_whose_answers_are_not_finite_is_judged_and_fails(exported, shards, predict):
    found = predict(exported(scale=np.nan), shards)
    batch = only_batch(found)
    assert batch.probabilities.shape == (8, 4) and not batch.probabilities.any()
    figures = Sums.of(batch.labels, batch.probabilities).figures(NAMES, 0.95, {})
    judgement = judge(GateSettings(accuracy=0.1), figures)
    assert not judgement.blessed and str(judgement.checks[0]).startswith("accuracy 0.0000 is below 0.1000")
    assert 30 < judgement.candidate.log_loss < 40
    assert type(judgement).model_validate_json(judgement.model_dump_json()) == judgement  # JSON has no infinity


def test_a_difference_of_classes_is_described(exported, shards, predict):
    found = predict(exported(), shards)
    assert found.classes.items() <= dict(enumerate(NAMES)).items() and found.classes
    assert found.class_difference(NAMES) == ""
    assert found.class_difference(NAMES[:3]) == "it has 4 classes and the data 3"
    [label, *_] = sorted(found.classes)
    others = ["ship" if name == NAMES[label] else name for name in NAMES]
    assert found.class_difference(others) == f"it calls class {label} {NAMES[label]!r}, which is 'ship' in the data"


def test_predictions_know_all_classes_and_can_be_reordered(exported, shards, predict):
    found = predict(exported(), shards)
    assert list(found.names) == NAMES
    other = [NAMES[index] for index in (2, 0, 3, 1)]
    turned = found.reorder(other)
    assert turned.class_difference(other) == "" and list(turned.names) == other
    batch = only_batch(found)
    assert batch.labels.tolist() == LABELS and batch.ids.to_pylist() == [b"%d" % n for n in range(8)]
    np.testing.assert_array_equal(only_batch(turned).probabilities, batch.probabilities[:, [2, 0, 3, 1]])
