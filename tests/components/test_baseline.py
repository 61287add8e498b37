from datetime import UTC, datetime

from tfx.types.standard_artifacts import Model

from components.baseline import ServingModel
from components.pusher import push
from components.serving_folder import ModelRecord


def model(uri):
    artifact = Model()
    artifact.uri = uri
    return artifact


def serve(folder, version, uri):
    saved = folder / "saved"
    saved.mkdir(exist_ok=True)
    record = ModelRecord(
        version=version, pushed_at=datetime.now(UTC), run_id="r", model_id=1, model_uri=uri, accuracy=0.5, classes=["a"]
    )
    push(saved, folder / "serving" / str(version), record)


def test_it_is_the_model_of_the_highest_version(tmp_path):
    strategy = ServingModel(str(tmp_path / "serving"))
    models = {"model": [model("/one"), model("/two")]}
    assert strategy.resolve_artifacts(None, models) == {"model": []}
    serve(tmp_path, 9, "/two")
    serve(tmp_path, 10, "/one")
    assert [artifact.uri for artifact in strategy.resolve_artifacts(None, models)["model"]] == ["/one"]
