"""Bounds of an export, its record in ML Metadata, and what is left when it is refused."""

import filelock
import numpy as np
import pytest

from components.errors import AnotherRun, ExportRefused, NotFound, UsageError
from components.model.evaluator.judgement import GateSettings
from components.model.serving_folder import ModelId
from pipeline.drawing.lineage import tree
from pipeline.export import _compare, _refuse, export
from pipeline.garbage_collection import collect_garbage
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.metadata.standalone_record import EXPORT, StandaloneRecorder
from tests.helpers.model_records import record
from tests.helpers.stores import make_store

LABELS = np.tile([0, 1], 50)
MODEL = np.where(LABELS[:, None] == [0, 1], np.float32(0.9), np.float32(0.1))
GATE = GateSettings(accuracy=0.9, class_accuracy=0.8, calibration=0.15, tolerance=0.01)


def compared(exported, bound=None, gate=GATE, model=MODEL, **changes):
    measured = dict.fromkeys(("milliseconds", "model_milliseconds", "bytes", "model_bytes"), 1)
    comparison = _compare(LABELS, exported, model, record(**changes), gate, bound, **measured)
    return comparison, [one.name for one in comparison.checks if not one.passed]


def with_wrong_answers(count):
    exported = MODEL.copy()
    exported[:count] = exported[:count, ::-1]
    return exported


def test_equal_answers_miss_no_bound():
    comparison, missed = compared(MODEL, bound=0.0)
    assert not missed and comparison.same_class == comparison.examples == 100 and comparison.largest_difference == 0


def test_a_difference_of_one_probability_is_found():
    exported = MODEL.copy()
    exported[7] += [-0.01, 0.01]
    assert compared(exported, bound=0.001)[1] == ["largest difference of probabilities"]
    assert compared(exported, bound=None)[1] == []  # int8 has no such bound


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(number):
    exported = MODEL.copy()
    exported[7] = number
    comparison, missed = compared(exported, bound=0.5)
    assert missed == ["answers that are not finite", "largest difference of probabilities"]
    assert comparison.same_class == 99 and comparison.largest_difference == 1
    assert compared(exported, bound=None)[1] == ["answers that are not finite"]  # as with int8


def test_the_advice_fits_the_missed_bound():
    far = MODEL.copy()
    far[7] += [-0.01, 0.01]
    for exported, bound, int8, advice in (
        (far, 0.001, False, "Allow a larger difference with --max-difference."),
        (with_wrong_answers(30), None, False, "Train again."),
        (with_wrong_answers(30), None, True, "Export it without --int8, or train again."),
    ):
        with pytest.raises(ExportRefused) as refused:
            _refuse("cats", compared(exported, bound)[0], int8)
        assert refused.value.args[0].endswith(f"No file is left. {advice}")
    _refuse("cats", compared(MODEL, bound=0)[0], int8=False)


def test_an_export_is_gated_like_a_model_of_its_own():
    assert compared(with_wrong_answers(30))[1] == [
        "accuracy",
        "worst class accuracy",
        "calibration error",
        "accuracy against the pushed model",
    ]


def test_a_bound_that_a_person_overruled_for_the_model_does_not_count():
    strict = GATE.model_copy(update={"calibration": 0.0})
    assert compared(MODEL, gate=strict)[1] == ["calibration error"]
    assert compared(MODEL, gate=strict, override="known")[1] == []
    assert compared(with_wrong_answers(30), gate=strict, override="known")[1] == [
        "accuracy",
        "worst class accuracy",
        "accuracy against the pushed model",
    ]


@pytest.fixture
def store(tmp_path):
    """Address of a store in which runs have pushed models, and the id of the newest PushedModel."""
    file = tmp_path / "runs" / "sample" / "metadata.db"
    make_store(file, runs=4)
    address = Address(file=file)
    with reader(address) as opened:
        return address, opened.artifacts("PushedModel")[0].id


def write_export(address, pushed, error=None, **properties):
    recorder = StandaloneRecorder(address, "sample", address.file.parent / "root", EXPORT)
    recorder.remove_killed()
    with recorder.recorded([("pushed_model", pushed)]) as output:
        output.folder.mkdir(parents=True)
        (output.folder / "model.tflite").write_bytes(b"content")
        output.properties |= properties
        if error:
            raise error
    return output


def test_an_export_descends_from_the_pushed_model_and_belongs_to_no_run(store):
    address, pushed = store
    output = write_export(address, pushed, version=3, format="litert")
    with reader(address) as opened:
        before = opened.runs(limit=1)[0]
        up, down = opened.lineage(output.artifact), opened.lineage(pushed, "down")
    assert pushed in up.artifacts and "Model" in {one.type for one in up.artifacts.values()}
    _, [(by, [(made, _)])] = tree(down, up=False)
    assert by == "Export as pushed_model" and f"ExportedModel {output.artifact}, version 3 as litert" in made
    assert "Export" not in {execution.node for execution in before.executions}
    with reader(address) as opened:
        assert output.artifact in {one.id for one in opened.artifacts(pipeline=before.pipeline)}


@pytest.mark.parametrize("error", [ValueError("misses a bound"), KeyboardInterrupt()])
def test_a_refused_export_leaves_no_file_and_is_recorded_as_failed(store, error):
    address, pushed = store
    with pytest.raises(type(error)):
        write_export(address, pushed, error)
    assert not [*(address.file.parent / "root" / "Export").rglob("*.tflite")]
    with reader(address) as opened:
        [execution] = [one for one in opened.around(pushed).executions.values() if one.node == "Export"]
        assert not opened.artifacts("ExportedModel")
    assert execution.state == "failed" and execution.properties["error"] == str(error)


def test_an_error_of_the_store_does_not_hide_the_first_error(store):
    address, pushed = store
    recorder = StandaloneRecorder(address, "sample", address.file.parent / "root", EXPORT)
    with pytest.raises(ValueError, match="misses a bound"), recorder.recorded([("pushed_model", pushed)]) as output:
        output.folder.mkdir(parents=True)
        address.file.write_bytes(b"no database" * 1000)
        raise ValueError("misses a bound")
    assert not output.folder.exists()


def test_files_behind_a_link_are_not_removed(store, tmp_path):
    address, pushed = store
    (tmp_path / "elsewhere").mkdir()
    (address.file.parent / "root").mkdir()
    (address.file.parent / "root" / "Export").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="misses a bound"):
        write_export(address, pushed, ValueError("misses a bound"))
    assert [*(tmp_path / "elsewhere").rglob("model.tflite")]


def test_the_files_of_a_killed_export_are_removed_by_the_next_one(store):
    address, pushed = store
    recorder = StandaloneRecorder(address, "sample", address.file.parent / "root", EXPORT)
    killed = recorder.recorded([("pushed_model", pushed)])
    output = killed.__enter__()
    output.folder.mkdir(parents=True)
    kept = write_export(address, pushed)
    assert not output.folder.exists() and (kept.folder / "model.tflite").is_file()
    with reader(address) as opened:
        states = [one.state for one in opened.around(pushed).executions.values() if one.node == "Export"]
    assert sorted(states) == ["complete", "failed"]
    killed.gen = None  # it never ends


def test_garbage_collection_keeps_the_newest_export_of_a_pushed_model(store, monkeypatch):
    address, pushed = store
    folder = address.file.parent
    with reader(address) as opened:
        model = opened.artifacts("Model")[0]
    model_id = ModelId(uri=model.uri, created_ms=model.created_ms)
    version = folder / "serving" / "1"
    version.mkdir(parents=True)
    (version / "model.json").write_text(record(1, model=model_id).model_dump_json())
    of = {"format": "litert", "model_id": model_id.model_dump_json()}
    exports = [
        write_export(address, pushed, **of),
        write_export(address, pushed, **of),
        write_export(address, pushed, **of | {"format": "litert, int8"}),
        write_export(address, pushed, **of | {"model_id": ModelId(uri="/x", created_ms=1).model_dump_json()}),
    ]
    collect_garbage(1, runs=folder.parent)
    assert [output.folder.exists() for output in exports] == [False, True, True, False]


def test_names_of_models_that_do_not_exist(tmp_path):
    with pytest.raises(NotFound, match="sample/1"):
        export("sample/1", runs=tmp_path)
    with pytest.raises(UsageError, match="between 0 and 1"):
        export("sample", max_difference=2, runs=tmp_path)


def test_an_export_waits_for_no_other_command(tmp_path):
    version = tmp_path / "sample" / "serving" / "1"
    version.mkdir(parents=True)
    with (
        filelock.FileLock(tmp_path / "sample" / ".lock"),
        pytest.raises(AnotherRun, match="a run of sample is running, or another command such as `vitpipe export`"),
    ):
        export("sample", runs=tmp_path)
    with pytest.raises(UsageError, match="holds no SavedModel"):  # the lock is taken before this check
        export("sample", runs=tmp_path)
