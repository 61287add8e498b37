"""The Python interface: imports of `import vitpipe`, and results of its functions."""

import ast
import contextlib
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import vitpipe
from components.errors import AnotherRun, Exit, NotServable, UsageError
from components.model.evaluator.judgement import GateSettings, ModelFigures, judge
from components.model.serving_folder import ModelId, ModelRecord, push, read_record
from pipeline.metadata.address import Address
from pipeline.result.run_result import RunState
from pipeline.run_lock import lock_for_changes
from tests.helpers.spans import encoded, picture
from tests.helpers.stores import make_store, put_unblessed_run

HEAVY = {"tensorflow", "tfx", "keras", "numpy", "pandas", "pydantic", "typer", "rich"}
FIGURES = ModelFigures(
    classes=["cat", "dog"],
    examples=10,
    accuracy=0.6,
    accuracy_interval=(0.3, 0.9),
    top_3=1.0,
    log_loss=0.5,
    calibration_error=0.1,
    class_accuracy={"cat": 0.6, "dog": 0.6},
    class_accuracy_interval={"cat": (0.1, 0.9), "dog": (0.1, 0.9)},
    class_precision={"cat": 0.6, "dog": 0.6},
    looks_accuracy={},
    confusion=[[3, 2], [2, 3]],
)


def test_importing_vitpipe_imports_no_other_package():
    script = "import sys; before = {*sys.modules}; import vitpipe; print(*{*sys.modules} - before)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parents[2])
    loaded = {*done.stdout.split()}
    assert "vitpipe" in loaded and not {name.partition(".")[0] for name in loaded} & HEAVY
    assert not {name for name in loaded if name.partition(".")[0] in ("pipeline", "components", "trainer", "kubeflow")}


def test_every_name_resolves_and_type_checkers_see_the_same_names():
    for name in vitpipe.__all__:
        assert callable(getattr(vitpipe, name)) and getattr(vitpipe, name).__doc__, name
        assert name in dir(vitpipe)
    tree = ast.parse(Path(vitpipe.__file__).read_text())
    [checked] = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname: statement.module for statement in checked.body for alias in statement.names}
    assert seen == vitpipe._MODULES
    with pytest.raises(AttributeError, match="rn"):
        vitpipe.rn  # noqa: B018


@pytest.fixture
def runs(tmp_path):
    """Folder of run folders, with runs whose models have accuracy 0.6 while the gate requires 0.9."""
    folder = tmp_path / "runs" / "pets"
    folder.mkdir(parents=True)
    judgement = judge(GateSettings(accuracy=0.9), FIGURES)
    for name, servable in (("run-1", True), ("run-2", False)):
        model = put_unblessed_run(folder / "metadata.db", "pets", name, judgement, servable)
        (model / "Format-Serving").mkdir(parents=True)
        (model / "Format-Serving" / "saved_model.pb").write_text(name)
    return tmp_path / "runs"


def test_a_model_is_blessed_once_and_the_run_records_it(runs):
    before = vitpipe.read_run("run-1", runs)
    assert (before.state, before.blessed, before.servable) == (RunState.NOT_BLESSED, False, True)
    assert vitpipe.verdict(before).exit is Exit.NOT_BLESSED
    blessing = vitpipe.bless("run-1", reason=" shown tonight ", runs=runs)
    assert (blessing.run, blessing.reason, blessing.version) == ("run-1", "shown tonight", 1)
    assert blessing.folder == runs / "pets" / "serving" / "1"
    record = read_record(blessing.folder)
    assert (record.span, record.data_digest, record.override) == (1, "d1", "shown tonight")
    assert record.settings_digest == before.settings_digest and record.metrics["accuracy"] == 0.6
    assert "README.md" in record.files and "shown tonight" in (blessing.folder / "README.md").read_text()
    after = vitpipe.read_run("run-1", runs)
    assert (after.state, after.pushed, after.override.reason) == (RunState.DONE, "1", "shown tonight")
    assert vitpipe.bless("run-1", reason="again", runs=runs) is None


def test_an_empty_store_of_another_pipeline_does_not_prevent_blessing(runs):
    (runs / "birds").mkdir()
    (runs / "birds" / "metadata.db").touch()
    assert vitpipe.bless("run-1", reason="shown tonight", runs=runs).version == 1
    assert (runs / "birds" / "metadata.db").stat().st_size == 0


@pytest.mark.parametrize("place", ["elsewhere", "pets/root/Trainer/model/../../elsewhere", "pets/root"])
def test_a_model_outside_the_root_of_its_pipeline_is_not_blessed(runs, place):
    """Other users can write to a shared store, and a push copies everything in the recorded folder."""
    uri = runs / place
    (uri / "Format-Serving").mkdir(parents=True, exist_ok=True)
    (uri / "Format-Serving" / "saved_model.pb").write_text("secret")
    with contextlib.closing(sqlite3.connect(runs / "pets" / "metadata.db")) as store, store:
        store.execute("UPDATE Artifact SET uri = ? WHERE uri LIKE '%/run-1/model'", [str(uri)])
        assert store.total_changes == 1
    with pytest.raises(UsageError, match="outside"):
        vitpipe.bless("run-1", reason="shown tonight", runs=runs)
    assert not (runs / "pets" / "serving").exists()


def test_bless_rejects_unservable_models_empty_reasons_and_running_pipelines(runs):
    with pytest.raises(NotServable) as refused:
        vitpipe.bless("run-2", reason="why not", runs=runs)
    assert refused.value.exit is Exit.NOT_SERVABLE
    with pytest.raises(UsageError):
        vitpipe.bless("run-1", reason="  ", runs=runs)
    with (
        lock_for_changes(runs / "pets", "pets", Address(file=runs / "pets" / "metadata.db")),
        pytest.raises(AnotherRun),
    ):
        vitpipe.bless("run-1", reason="now", runs=runs)
    assert not (runs / "pets" / "serving").exists()


def test_rolling_back_returns_the_version_that_serves(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "saved_model.pb").write_bytes(b"no graph")
    for version in (1, 2):
        record = ModelRecord(
            version=version,
            pushed_at=datetime(2026, 1, 1, tzinfo=UTC),
            run_id="r",
            span=1,
            data_digest="d",
            model=ModelId(uri=f"/{version}", created_ms=1),
            code_version="c",
            settings_digest="s",
            metrics={},
            signatures=["serving_bytes"],
            classes=["a", "b"],
        )
        push(tmp_path / "model", tmp_path / "runs" / "pets" / "serving", record)
    restored = vitpipe.roll_back(runs=tmp_path / "runs")
    assert (restored.record.version, restored.record.restored_from, restored.earlier) == (3, 1, False)
    models = vitpipe.list_models(tmp_path / "runs").models
    assert [(one.pipeline, one.record.version) for one in models] == [("pets", 1), ("pets", 2), ("pets", 3)]
    assert [one.serving for one in models] == [False, False, True]
    assert vitpipe.verify_models(tmp_path / "runs").changed == []
    with pytest.raises(UsageError):
        vitpipe.roll_back(1, runs=tmp_path / "runs")
    with pytest.raises(UsageError):
        vitpipe.roll_back(pipeline="cars", runs=tmp_path / "runs")


def test_collect_garbage_returns_a_result_for_each_pipeline(tmp_path):
    for pipeline in ("cats", "dogs"):
        make_store(tmp_path / pipeline / "metadata.db", pipeline, runs=4)
        for run in vitpipe.list_runs(tmp_path, pipeline=pipeline).runs:
            for execution in vitpipe.read_run(run.run, tmp_path).record.executions:
                for [artifact] in execution.outputs.values():
                    Path(artifact.uri).mkdir(parents=True, exist_ok=True)
    planned = vitpipe.collect_garbage(1, dry_run=True, runs=tmp_path)
    assert [one.pipeline for one in planned] == ["cats", "dogs"] and all(one.removed for one in planned)
    assert all(Path(one.uri).is_dir() for one in planned[0].removed)
    calls = []
    [done] = vitpipe.collect_garbage(1, pipeline="cats", runs=tmp_path, progress=lambda *call: calls.append(call))
    assert done == planned[0] and not any(Path(one.uri).exists() for one in done.removed)
    assert calls[-1] == ("removing", len(done.removed), len(done.removed))
    with pytest.raises(UsageError):
        vitpipe.collect_garbage(0, runs=tmp_path)


def test_predict_returns_a_prediction_for_each_image(tmp_path):
    from trainer import serving
    from trainer.vit import ViT

    vit = ViT(image_size=8, patch_size=4, classes=2, depth=1, width=8, heads=2)
    serving.export(vit, ["cat", "dog"], str(tmp_path / "model"))
    (tmp_path / "a.png").write_bytes(encoded(picture(1, 8)))
    (tmp_path / "b.png").write_bytes(b"no image")
    good, bad = vitpipe.predict(
        [tmp_path / "a.png", str(tmp_path / "b.png")], model=tmp_path / "model", trust_model=True
    )
    assert good.valid and good.label in ("cat", "dog") and good.probability == max(good.probabilities)
    np.testing.assert_allclose(sum(good.probabilities), 1, atol=1e-5)
    assert not bad.valid and bad.reason and bad.label == ""
    with pytest.raises(UsageError):
        vitpipe.predict([tmp_path / "a.png"], model=tmp_path / "model")  # not trusted
