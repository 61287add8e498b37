import pytest
from tfx.types.standard_artifacts import Model

from components.model.baseline import Baseline
from components.model.serving_folder import ModelId, push
from tests.helpers.model_records import record


@pytest.fixture
def models(tmp_path):
    """Two Model artifacts of a store, with their folders."""
    made = []
    for number in (1, 2):
        artifact = Model()
        artifact.uri = str(tmp_path / f"model-{number}")
        artifact.mlmd_artifact.create_time_since_epoch = number
        (tmp_path / f"model-{number}").mkdir()
        made.append(artifact)
    return made


@pytest.fixture
def serve(tmp_path):
    def push_as(version, model):
        saved = tmp_path / "saved"
        saved.mkdir(exist_ok=True)
        named = ModelId(uri=model.uri, created_ms=model.mlmd_artifact.create_time_since_epoch)
        push(saved, tmp_path / "serving", record(version, model=named))

    return push_as


def resolve(tmp_path, models):
    return Baseline(str(tmp_path / "serving")).resolve_artifacts(None, {"model": models})["model"]


def test_no_baseline_before_the_first_push(tmp_path, models):
    assert resolve(tmp_path, models) == []


def test_the_baseline_is_the_model_of_the_highest_version(tmp_path, models, serve):
    serve(9, models[1])
    serve(10, models[0])
    assert resolve(tmp_path, models) == [models[0]]


def test_no_baseline_if_the_store_does_not_know_the_serving_model(tmp_path, models, serve, caplog):
    serve(1, models[0])
    assert resolve(tmp_path, models[1:]) == []
    assert "cannot be compared with the serving model" in caplog.text and "serving/1" in caplog.text


def test_no_baseline_if_the_files_of_the_serving_model_are_missing(tmp_path, models, serve, caplog):
    serve(1, models[0])
    (tmp_path / "model-1").rmdir()
    assert resolve(tmp_path, models) == []
    assert "model-1 is missing" in caplog.text


def test_a_model_of_a_new_store_in_the_same_folder_is_another_model(tmp_path, models, serve):
    serve(1, models[0])
    models[0].mlmd_artifact.create_time_since_epoch = 3
    assert resolve(tmp_path, models) == []


def test_the_serving_model_is_found_in_a_moved_run_folder(tmp_path, models, serve):
    models[0].uri = "/before/runs/sample/root/Trainer/model/11"
    serve(1, models[0])
    now = tmp_path / "after" / "root" / "Trainer" / "model" / "11"
    now.mkdir(parents=True)
    models[0].uri = str(now)
    assert resolve(tmp_path, models) == [models[0]]
