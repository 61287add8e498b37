import json
import shutil

import pytest

from components.data.ingest import prepare
from components.errors import DataRefused, SettingsError, UsageError
from pipeline.backbone import check_classes, content, fit_to_backbone, locate
from pipeline.graph import compile_graph
from pipeline.settings import load
from tests.helpers.graphs import nodes
from trainer.serving import KERAS_MODEL
from trainer.settings import ModelSettings
from trainer.train import build_vit
from vitpipe.cli.finetune import finetune


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A backbone as a file and as two versions that a pipeline has pushed, and data."""
    folder = tmp_path_factory.mktemp("backbones")
    model = ModelSettings(image_size=16, patch_size=8, depth=3, width=16, heads=2, pool="mean", mimetic=True)
    build_vit(model, 4, [100.0] * 3, [50.0] * 3).save(folder / "vit.keras")
    for version in ("9", "10"):
        pushed = folder / "runs" / "pretrain" / "serving" / version / KERAS_MODEL
        pushed.parent.mkdir(parents=True)
        shutil.copy(folder / "vit.keras", pushed)
    prepare("sample", folder / "data")
    return folder


def settings(folder, source, *flags):
    given = [f"runs={folder / 'runs'}", f"data.dir={folder / 'data'}", f"finetune.source={source}", *flags]
    return load("sample", given, environment={})


def test_a_pipeline_means_the_model_that_it_serves(folder):
    newest = str(folder / "runs" / "pretrain" / "serving" / "10")
    assert locate("pretrain", folder / "runs") == newest
    assert locate(str(folder / "runs" / "pretrain"), folder / "runs") == newest


def test_a_file_and_a_version_are_located(folder, monkeypatch):
    older = folder / "runs" / "pretrain" / "serving" / "9"
    monkeypatch.chdir(folder)
    assert locate("vit.keras", folder / "runs") == str(folder / "vit.keras")
    assert locate("runs/pretrain/serving/9", folder / "runs") == str(older)
    assert content(str(older)) == content(str(folder / "vit.keras")) != content(str(folder / "nothing.keras")) == ""
    assert locate("hub:vit_base", folder / "runs") == "hub:vit_base" and content("hub:vit_base") == ""


def test_a_missing_backbone_gets_a_suggestion(folder):
    with pytest.raises(SettingsError, match=r"no backbone pretain: did you mean pretrain\? name a pipeline below"):
        locate("pretain", folder / "runs")


def test_the_model_has_the_sizes_of_its_backbone_and_the_image_size_of_the_settings(folder):
    found = fit_to_backbone(settings(folder, "pretrain", "model.image_size=32", "model.stochastic_depth=0.1"))
    assert found.model == ModelSettings(
        image_size=32, patch_size=8, depth=3, width=16, heads=2, pool="mean", stochastic_depth=0.1
    )
    assert found.finetune.source == str(folder / "runs" / "pretrain" / "serving" / "10")


def test_settings_without_a_backbone_are_unchanged(folder):
    given = settings(folder, "''")
    assert fit_to_backbone(given) is given


def test_an_image_size_that_does_not_fit_the_backbone_is_rejected(folder):
    with pytest.raises(SettingsError, match="image_size 20 is not a multiple of patch_size 8"):
        fit_to_backbone(settings(folder, folder / "vit.keras", "model.image_size=20", "model.patch_size=4"))


def test_a_setting_without_effect_is_rejected(folder):
    def tuned(*flags, source="pretrain"):
        return fit_to_backbone(settings(folder, source, *flags), flags)

    with pytest.raises(SettingsError, match=r"--set training.epochs=3: it has no effect .* finetune.head_epochs"):
        tuned("training.epochs=3")
    with pytest.raises(SettingsError, match=r"--set model.depth=4: the backbone determines depth, which is 3: leave"):
        tuned("model.depth=4")
    with pytest.raises(
        SettingsError, match=r"finetune.pixel_mean .* are for a .weights.h5 file; .*/10 already defines"
    ):
        tuned("finetune.pixel_mean=[1, 2, 3]")
    flags = ["model.depth=3", "model.image_size=32", "training.seed=3", "finetune.epochs=2"]
    assert tuned(*flags).model.depth == 3


def test_a_size_is_compared_by_its_settings(tmp_path):
    model = ModelSettings(size="tiny", image_size=8, patch_size=8)
    build_vit(model, 2, [100.0] * 3, [50.0] * 3).save(tmp_path / "vit.keras")
    given = settings(tmp_path, tmp_path / "vit.keras", "model.image_size=8")
    sizes = ModelSettings(size="tiny", image_size=8)
    assert fit_to_backbone(given.model_copy(update={"model": sizes}), ["model.size=tiny"]).model.width == 256
    with pytest.raises(SettingsError, match=r"--set model.size=small: the backbone determines depth, which is 6"):
        small = ModelSettings(size="small", image_size=8)
        fit_to_backbone(given.model_copy(update={"model": small}), ["model.size=small"])


def test_the_command_takes_any_name(folder, capsys):
    pushed = folder / "runs" / "10" / "serving" / "1" / KERAS_MODEL
    pushed.parent.mkdir(parents=True)
    shutil.copy(folder / "vit.keras", pushed)
    finetune("10", "sample", folder / "data", [f"runs={folder / 'runs'}"], dry_run=True)
    assert f"source: {folder / 'runs/10/serving/1'}" in capsys.readouterr().out
    with pytest.raises(UsageError, match="--from is empty: name the backbone"):
        finetune("", "sample")


def test_a_model_that_is_accepted_without_training_decides_all_sizes_and_has_the_classes_of_the_data(folder):
    untrained = ["finetune.head_epochs=0", "finetune.epochs=0"]
    found = fit_to_backbone(settings(folder, folder / "vit.keras", "model.resize=crop", *untrained), untrained)
    assert (found.model.image_size, found.model.resize) == (16, "stretch")
    check_classes(found, list("abcd"))
    with pytest.raises(SettingsError, match="the model has 4 classes, but the data has 2"):
        check_classes(found, ["a", "b"])
    with pytest.raises(SettingsError, match=r"--set model.image_size=32: the backbone determines image_size, .* 16"):
        flags = ["model.image_size=32", *untrained]
        fit_to_backbone(settings(folder, "pretrain", *flags), flags)


def test_a_damaged_backbone_is_refused(folder, tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"no archive")
    with pytest.raises(DataRefused, match=r"bad.keras cannot be read"):
        fit_to_backbone(settings(folder, tmp_path / "bad.keras"))


def test_a_backbone_and_a_warm_start_exclude_each_other(folder):
    with pytest.raises(SettingsError, match=r"finetune.source pretrain and training.warm_start"):
        settings(folder, "pretrain", "training.warm_start=true")


def test_the_graph_of_a_fine_tuning_has_its_backbone(folder):
    graph = nodes(compile_graph(fit_to_backbone(settings(folder, "pretrain", "finetune.blocks=1")), 1))
    assert graph["Trainer"].inputs.inputs["backbone"].channels[0].producer_node_query.id == "Backbone"
    assert "DataGate" in graph["Backbone"].upstream_nodes
    properties = {
        name: value.field_value.string_value for name, value in graph["Backbone"].parameters.parameters.items()
    }
    assert properties["content"] == content(str(folder / "vit.keras")) and properties["digest"]
    config = json.loads(graph["Trainer"].parameters.parameters["custom_config"].field_value.string_value)
    finetune = json.loads(config["finetune"])
    assert finetune["blocks"] == 1 and "source" not in finetune
