"""A study with tiny images and a toy architecture."""

import os
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

from components.errors import SettingsError
from tests.helpers.architectures import toy
from trainer.input import Split
from vitpipe.study import cells, page, results
from vitpipe.study.architectures import (
    ARCHITECTURES,
    Architecture,
    ShiftedDepthwise,
    efficientnet_b0,
    register,
    resnet20,
    resnet50,
    small_efficientnet,
)
from vitpipe.study.draw import draw, largest_size
from vitpipe.study.settings import BUDGETS, study_settings
from vitpipe.study.study import CELLS, Study, expected_seconds, make_arms
from vitpipe.study.training import moments, multiply_adds, train

GREY = (120.0, 120.0, 120.0), (60.0, 60.0, 60.0)


def coloured(count, classes=3, seed=0):
    """Return images of 8 x 8 pixels, most of which can be classified by their colour."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = rng.integers(0, 120, (count, 8, 8, 3), "uint8")
    images[np.arange(count), :, :, labels] += 100
    return Split(images, labels)


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(ARCHITECTURES, "toy", Architecture("Toy", toy, 0.05, 0.0))


def settings(*flags):
    small = ["architectures=[toy]", "sizes=[8, 16]", "steps=[4, 6]", "seeds=2", "batch_size=8", "image_size=8"]
    return study_settings("small", [*small, *flags])


def study(out, *flags, seed=0):
    chosen = settings(*flags)
    return Study(chosen, make_arms(chosen, None), coloured(90, seed=seed), coloured(30, seed=9), 3, out)


def test_a_draw_is_balanced_and_contains_smaller_draws():
    split = coloured(200)
    small, large = (draw(split, 3, size, seed=1) for size in (5, 20))
    assert np.bincount(small.labels).tolist() == [5, 5, 5] and np.bincount(large.labels).tolist() == [20, 20, 20]
    rows = {image.tobytes() for image in large.images}
    assert len(rows) == 60 and {image.tobytes() for image in small.images} < rows
    assert draw(split, 3, 5, seed=1).digest() == small.digest() != draw(split, 3, 5, seed=2).digest()
    assert largest_size(split, 3) == 66
    with pytest.raises(SettingsError, match=r"size 67: class 2 has only 66"):
        draw(split, 3, 67, seed=1)


def test_cells_are_recomputed_only_for_other_settings_or_data(registered, tmp_path):
    first = list(study(tmp_path, "sizes=[8]", "steps=[4]", "seeds=1").run())
    assert [cell.place.seed for cell in first] == [0] and len(list((tmp_path / CELLS).iterdir())) == 1
    assert list(study(tmp_path, "sizes=[8]", "steps=[4]", "seeds=1").run()) == []
    more = study(tmp_path, "sizes=[8, 16]")
    assert more.stored_cells() == first and len(more.places) == 4  # stored cells stay valid when sizes are added
    for other in study(tmp_path, "label_smoothing=0.1"), study(tmp_path, seed=5), study(tmp_path, "steps=[5, 6]"):
        assert other.stored_cells() == []
    broken = tmp_path / CELLS / first[0].place.file
    broken.write_text(broken.read_text()[:50])
    assert more.stored_cells() == []


@pytest.mark.slow
def test_a_killed_study_continues_after_its_last_cell(tmp_path):
    code = f"""
import sys
from pathlib import Path
from vitpipe.study.architectures import Architecture, register
from tests.helpers.architectures import toy
from tests.vitpipe.study.test_study import study
if __name__ == "__main__":
    register("toy", Architecture("Toy", toy, 0.05, 0.0))
    for cell in study(Path({str(tmp_path / "out")!r}), "sizes=[8]", "steps=[4]").run():
        print(cell.place.file, flush=True)
"""
    script = tmp_path / "script.py"
    script.write_text(code)
    start = {"args": [sys.executable, str(script)], "env": {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}}
    process = subprocess.Popen(**start, stdout=subprocess.PIPE, text=True, start_new_session=True)
    done = process.stdout.readline().strip()
    time.sleep(1)  # until the next cell is being trained
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = (tmp_path / "out" / CELLS / done).stat().st_mtime_ns
    rest = subprocess.run(**start, capture_output=True, text=True, check=True).stdout.split()
    assert done not in rest and len(rest) == 1
    assert (tmp_path / "out" / CELLS / done).stat().st_mtime_ns == before


def test_invalid_settings_are_rejected_before_training(registered, tmp_path):
    with pytest.raises(SettingsError, match="no architecture tou"):
        make_arms(settings("architectures=[tou]"), None)
    with pytest.raises(SettingsError, match="rarest class has 30"):
        study(tmp_path, "sizes=[8, 31]")
    with pytest.raises(SettingsError, match="batch_size 32 is more than the 24"):
        study(tmp_path, "batch_size=32")
    with pytest.raises(SettingsError, match="did you mean batch_size"):
        settings("batch_sise=4")
    with pytest.raises(SettingsError, match=r"stored_size 7 is less than image_size 8"):
        settings("augment.crop_padding=0", "augment.resized_crop_scale=[0.1, 1]", "augment.stored_size=7")
    with pytest.raises(SettingsError, match=r"^steps .* one number for each of the sizes"):
        settings("steps=[4]")
    assert study(tmp_path, "sizes=[8, null]").places[1].size == 30
    with pytest.raises(ValueError, match="already"):
        register("resnet-20", ARCHITECTURES["resnet-20"])


def test_every_budget_is_valid():
    for budget in BUDGETS:
        assert make_arms(study_settings(budget), None)


def test_evaluation_uses_the_batch_statistics_of_training():
    built = []

    def build(*given):
        built.append(toy(*given))
        return built[-1]

    train_split, test_split = coloured(96), coloured(31, seed=1)
    found = train(Architecture("Toy", build, 0.05, 0.0), settings(), 60, 0, train_split, test_split, 3)
    [model] = built
    moving = next(layer for layer in model.layers if "batch_norm" in layer.name)
    assert not np.allclose(moving.moving_mean, 0)
    logits = model.predict(test_split.images.astype("float32"), verbose=0)
    assert found.examples == 31 and found.right == (logits.argmax(1) == test_split.labels).sum() > 25
    loss = keras.losses.sparse_categorical_crossentropy(test_split.labels, logits, from_logits=True)
    assert found.log_loss == pytest.approx(float(np.mean(loss)), rel=1e-4)
    assert found.parameters == model.count_params() and found.multiply_adds == 9


@pytest.mark.slow
def test_keras_applications_are_adapted_to_small_images():
    for build, sizes, features in (
        (resnet50, [32, 16, 8, 4], 2048),
        (small_efficientnet, [32, 16, 8, 4, 2], 640),
        (efficientnet_b0, [32, 16, 8, 4, 2], 1280),
    ):
        model = build(32, 5, *GREY)
        backbone = next(layer for layer in model.layers if isinstance(layer, keras.Model))
        seen = {layer.output.shape[1] for layer in backbone.layers if isinstance(layer, keras.layers.Conv2D)}
        assert sorted(seen - {1}, reverse=True) == sizes  # outputs of size 1 are those of squeeze and excite
        assert backbone.output.shape[1:] == (sizes[-1], sizes[-1], features)
        assert {one.momentum for one in backbone.layers if hasattr(one, "momentum")} == {0.9}
    rescaling = next(layer for layer in backbone.layers if layer.name == "rescaling")
    assert rescaling.scale == 1  # its inputs are normalised


def test_resnet20_has_the_size_of_the_paper():
    model = resnet20(32, 10, *GREY)
    assert round(model.count_params(), -4) == 270_000  # the paper: 0.27 million
    kernels = [
        layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (3, 3)
    ]
    assert len(kernels) == 19  # the 20th layer is the classifier
    by_hand = sum(
        np.prod(layer.output.shape[1:]) * np.prod(layer.kernel.shape[:3])
        for layer in model.layers
        if isinstance(layer, keras.layers.Conv2D)
    )
    assert multiply_adds(model, 32) == by_hand + 640


def test_multiply_adds_include_attention():
    model = ARCHITECTURES["vit-small"].build(32, 5, *GREY)
    tokens, width = 65, 64
    block = tokens * 12 * width**2 + 2 * tokens**2 * width
    only_cls = 64 * 9 * width**2 + 2 * 64 * tokens * width  # the last block computes only the CLS token
    assert multiply_adds(model, 32) == 64 * 48 * width + 4 * block - only_cls + 5 * width


def test_shifted_depthwise_equals_depthwise_convolution():
    images = np.random.default_rng(0).normal(size=(2, 9, 9, 4)).astype("float32")
    for kernel, stride, padding in (3, 1, "same"), (5, 1, "same"), (5, 2, "valid"), (3, 2, "valid"):
        theirs, ours = (
            kind(kernel, strides=stride, padding=padding, use_bias=False)
            for kind in (keras.layers.DepthwiseConv2D, ShiftedDepthwise)
        )
        theirs.build(images.shape)
        ours.build(images.shape)
        ours.set_weights(theirs.get_weights())
        np.testing.assert_allclose(ours(images), theirs(images), atol=1e-5)


def test_moments_are_computed_for_each_channel():
    images = np.zeros((2, 4, 4, 3), "uint8")
    images[1, ..., 2] = 200
    assert moments(images) == ((0, 0, 100), (1, 1, 100))


def cell(name, size, seed, right, steps=10, seconds=12.0):
    place = cells.Place(architecture=name, size=size, seed=seed, steps=steps, key="0" * 64)
    result = cells.Result(
        right=right,
        examples=100,
        log_loss=1.0,
        parameters=1234,
        multiply_adds=5_600_000,
        seconds=seconds,
        seconds_per_step=0.2,
    )
    return cells.Cell(place=place, result=result)


def test_means_have_confidence_intervals_by_students_t():
    found = results.make_rows(
        {"b": "B", "a": "A"}, [cell("a", 50, seed, 40 + seed) for seed in range(3)] + [cell("b", 9, 0, 7)]
    )
    assert [(row.title, row.size, row.accuracy) for row in found] == [("B", 9, 0.07), ("A", 50, pytest.approx(0.41))]
    assert found[0].interval is None
    assert found[1].interval == pytest.approx((0.41 - 4.3027 * 0.01 / 3**0.5, 0.41 + 4.3027 * 0.01 / 3**0.5), abs=1e-6)
    assert results.confidence_interval([0.0, 0.9]) == (0, 1)


def test_the_remaining_time_is_estimated_from_finished_cells():
    done = [cell("a", 50, 0, 1), cell("b", 50, 0, 1, seconds=3.0)]
    assert expected_seconds(cell("a", 250, 0, 1, steps=100).place, done) == pytest.approx(10 + 20)
    assert expected_seconds(cell("c", 250, 0, 1, steps=100).place, done) == pytest.approx(5.5 + 20)


def test_the_page_has_all_rows_escaped(tmp_path):
    rows = results.make_rows(
        {"a": "Alpha <b>", "c": "Gamma"}, [cell(n, s, k, 40) for n in "ac" for s in (50, 250) for k in (0, 1)]
    )
    found = results.StudyFigures(
        data="here",
        classes=["cat", "dog"],
        test_images=100,
        pretrained=None,
        settings=settings().model_dump(mode="json"),
        machine=results.describe_machine(),
        rows=rows,
    )
    text = page.write(found, tmp_path).read_text()
    body = text[text.index("<body>") :]
    assert body.count("<td>Alpha &lt;b&gt;</td>") == 2 and "Alpha <b></td>" not in body
    assert "40.00%" in body and "5.6 M" in body and "with so few seeds they are wide" in body
    assert results.StudyFigures.model_validate_json((tmp_path / page.DATA).read_text()) == found
    assert found.machine["processor"] in body and "src=" not in body


@pytest.mark.slow
def test_a_pretrained_vit_is_fine_tuned_in_the_same_number_of_steps(tmp_path, monkeypatch):
    """The head is trained for a share of the steps, then the head and the last blocks. Lower layers do not change."""
    from trainer.settings import ModelSettings
    from trainer.train import build_vit
    from vitpipe.study import training

    backbone = build_vit(ModelSettings(image_size=8, depth=2, width=16, heads=2), 5, *GREY)
    backbone.save(tmp_path / "vit.keras")
    taken = []

    def watched(learner, *arguments):
        taken.append((learner, arguments[1]))
        return train_steps(learner, *arguments)

    train_steps = training._train_steps
    monkeypatch.setattr(training, "_train_steps", watched)
    chosen = settings("finetune.blocks=1", "finetune.learning_rate=0.01")
    result = train(str(tmp_path / "vit.keras"), chosen, 8, 0, coloured(24), coloured(30, seed=1), 3)
    assert [steps for _, steps in taken] == [2, 6]
    assert result.parameters == taken[1][0].model.count_params() and result.examples == 30
    tuned = {weight.path.partition("/")[2]: np.array(weight) for weight in taken[1][0].model.weights}
    same = {
        name.partition("/")[0]
        for name, weight in ((weight.path.partition("/")[2], weight) for weight in backbone.weights)
        if tuned[name].shape == weight.shape and np.array_equal(tuned[name], weight)
    }
    assert same == {"patches", "tokens", "block_00"}
    assert np.abs(tuned["head/kernel"]).max() > 0
