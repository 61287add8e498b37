import os
from pathlib import Path

import pytest

from components.errors import SettingsError
from pipeline.metadata.address import PASSWORD
from pipeline.settings import TOKEN, Settings, load, presets
from pipeline.settings.monitor import WEBHOOK


@pytest.mark.parametrize("preset", presets())
def test_every_preset_loads_under_its_own_name(preset):
    assert load(preset, environment={}).name == preset


def test_the_presets_of_the_contract_are_there():
    assert {"sample", "cifar10-cpu", "cifar10"} <= set(presets())


def test_flag_over_environment_over_file_over_preset_over_default(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: sample\ntraining: {epochs: 7, batch_size: 8, seed: 5}\n")
    environment = {"VITPIPE_TRAINING__EPOCHS": "8", "VITPIPE_TRAINING__BATCH_SIZE": "16", "PATH": "/bin"}
    settings = load(str(file), ["training.epochs=9"], environment)
    assert settings.training.epochs == 9  # flag
    assert settings.training.batch_size == 16  # environment
    assert settings.training.seed == 5  # file
    assert settings.augment.flip is False  # preset
    assert settings.training.weight_decay == 0.05  # default


def test_settings_cannot_be_changed():
    with pytest.raises(ValueError):
        load("sample", environment={}).training.epochs = 1


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("training.epocs=3", "training.epocs: no such setting; did you mean training.epochs?"),
        ("trainig.epochs=3", "trainig: no such setting; did you mean training?"),
        ("model.head=mean", "^model.head was renamed to model.pool$"),
        ("training.memory_gib=4", "^training.memory_gib no longer exists, because .*: leave it out$"),
        ("training.epochs=0", r"training.epochs: .*greater than 0 \(got 0\)"),
        ("training.epochs=many", r"training.epochs: .*integer.* \(got 'many'\)"),
        ("model.width=30", "model: width 30 is not a multiple of heads 4"),
        (
            "augment={crop_padding: 0, resized_crop_scale: [0.1, 1], stored_size: 8}",
            "stored_size 8 is less than image_size 32",
        ),
        ("augment.colour_jitter=2", r"augment.colour_jitter: .*less than or equal to 1 \(got 2\)"),
        ("gate.accuracy=92", r"gate.accuracy: .*less than or equal to 1 \(got 92\)"),
        ("name=My_Run", "name: .*pattern"),
        ("training.epochs", "write it as key=value"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value_and_a_solution(flag, message):
    with pytest.raises(SettingsError, match=message):
        load("sample", [flag], environment={})


def test_a_wrong_variable_is_rejected():
    with pytest.raises(SettingsError, match=r"training.epocs: .*training.epochs"):
        load("sample", environment={"VITPIPE_TRAINING__EPOCS": "3"})


def test_a_misspelt_preset_gets_a_suggestion():
    with pytest.raises(SettingsError, match="did you mean cifar10-cpu"):
        load("cifar10-gpu")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("training:\n  epochs: 7\ntraining:\n  seed: 1\n", ":3:1: training appears again, after line 1"),
        ("preset: sample\n\ntraining:\n  epochs: .inf\n", ":4: training.epochs: .*finite number .got inf"),
        ("training:\n  epocs: 7\n", ":2: training.epocs: no such setting; did you mean training.epochs?"),
        ("preset: sample\ntraining:\n  epochs: 1\n", ":2: training: warmup_epochs 2.0 must be less than epochs 1"),
        ("model: {width: 1e9}\n", ":1: model.width: .*less than or equal to 65536 .got 1000000000.0"),
        ("model:\n  width: 60000\n", ":1: model: width 60000, depth 6 and mlp_ratio 4 make about 259,2.* parameters"),
        ("model: {image_size: 4096}\n", ":1: model: image_size 4096 makes 1,048,576 patches of patch_size 4"),
        ("training:\n", ":1: training: it has no settings"),
        ("preset: sample\ndata: null\n", ":2: data: it has no settings"),
        ("preset: sample\ndata: data/sample\n", ":2: data: it must be a group of settings: write some below it"),
        ("model:\n  head: cls\n", ":2: model.head was renamed to model.pool$"),
        ("preset: smple\n", ":1: no preset 'smple'"),
        ("kubeflow: {steps: {Trainer: {memory: 99999999Gi}}}\n", ":1: kubeflow.steps.Trainer.memory: .*pattern"),
        ('data:\n  dir: "a\\tb"\n', ":2: data.dir: a path cannot contain the character U.0009"),
        ("gate: {accuracy: .nan}\n", ":1: gate.accuracy: .*finite number"),
        ("data_gate: {duplicates: {stop: .nan}}\n", ":1: data_gate.duplicates.stop: .*finite number"),
        ("data_gate:\n  duplicates: {stop: -1}\n", ":1: data_gate: duplicates.stop -1 is not between 0 and 1e.12"),
        ("x: [1, 2\n", ":2:1: not YAML"),
        ("", ":1: the file holds no settings: write at least a line such as `preset: sample`"),
        ("# training:\n#   epochs: 3\n", ":1: the file holds no settings"),
        ("training:\n  epochs: true\n", ":2: training.epochs: .*not true or false .got True"),
        ("name: a\nkubeflow:\n  token: s3cret\n", ":3: kubeflow.token: only the environment"),
    ],
)
def test_an_error_in_a_file_names_the_line(tmp_path, content, message):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=rf"^{file}{message}") as refused:
        load(str(file), environment={})
    assert "\n" not in str(refused.value) and "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "content, group, flag",
    [
        ("model: null\n", "model", "model.depth=1"),
        ("data_gate: {near_leaks: null}\n", "data_gate.near_leaks", "data_gate.near_leaks.stop=1"),
    ],
)
def test_settings_of_a_group_do_not_hide_a_value_in_its_place(tmp_path, content, group, flag):
    (tmp_path / "mine.yaml").write_text("preset: sample\n" + content)
    with pytest.raises(SettingsError, match=rf"mine\.yaml:2: {group}: "):
        load(str(tmp_path / "mine.yaml"), [flag], environment={})


def test_an_error_names_the_variable_but_not_the_flag():
    with pytest.raises(SettingsError, match=r"^VITPIPE_TRAINING__EPOCHS: training.epochs: .*got 0"):
        load("sample", environment={"VITPIPE_TRAINING__EPOCHS": "0"})
    with pytest.raises(SettingsError, match=r"^training.epochs: .*got -1"):
        load("sample", ["training.epochs=-1"], {"VITPIPE_TRAINING__EPOCHS": "0"})


@pytest.mark.parametrize(
    "flag",
    [
        "training={epochs: 1, epochs: 2}",
        "data.dir=&a x",
        "training.epochs=" + "9" * 5000,
        "=1",
        ".".join("a" * 5000) + "=1",
        "name=" + "x" * 100_000,
        'data.dir="\\0"',
        "runs=\udcff",
        "x=\udcff",
        "training.epochs.x=1",
        "finetune.source=\udcff",
        "model=" + "[" * 5000,
        "data.dir=" + "[" * 15 + "]" * 15,
        "training=",
        "data.span=1e400",
    ],
)
def test_wrong_flags_have_short_messages_without_a_traceback(flag):
    with pytest.raises(SettingsError) as refused:
        load("sample", [flag], environment={})
    assert len(str(refused.value)) < 500


def test_many_mistakes_are_reported_in_few_lines(tmp_path):
    (tmp_path / "many.yaml").write_text("".join(f"training{number}: 1\n" for number in range(3000)))
    with pytest.raises(SettingsError, match="training0: no such setting; did you mean training") as refused:
        load(str(tmp_path / "many.yaml"), environment={})
    assert str(refused.value).splitlines()[20:] == ["and 2,980 more"]


def test_a_path_that_is_not_a_file_is_reported(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for source in str(tmp_path), str(tmp_path / "pipe"), "/dev/zero":
        with pytest.raises(SettingsError, match="is a folder or a device"):
            load(source, environment={})
    for source in "a" * 5000, "a\0b":
        with pytest.raises(SettingsError) as refused:
            load(source, environment={})
        assert len(str(refused.value)) < 500


@pytest.mark.parametrize("content", ["- a\n- b\n", "a: [1, 2", "just words"])
def test_a_file_that_holds_no_settings(tmp_path, content):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(SettingsError, match=r"bad\.yaml"):
        load(str(file), environment={})


@pytest.mark.parametrize("base", ["own.yaml", "5", "[sample]", "smaple"])
def test_a_file_builds_on_presets_only(tmp_path, base):
    file = tmp_path / "own.yaml"
    file.write_text(f"preset: {base}\n")
    with pytest.raises(SettingsError, match="no preset"):
        load(str(file), environment={})


def test_the_data_folder_may_have_any_name():
    assert load("sample", ["data.span=3"], {}, data={"dir": "2024"}).data.model_dump() == {
        "dir": Path("2024"),
        "span": 3,
        "gate_span": 1,
        "window": 1,
        "earlier_images": None,
    }


def test_the_run_folder_is_absolute():
    folder = load("sample", ["runs=somewhere"], environment={}).folder
    assert folder == Path.cwd() / "somewhere" / "sample"


SERVER = "mysql://vitpipe@db.example:3307/mlmd"


def test_the_store_is_a_file_of_the_run_folder_or_a_server(tmp_path):
    assert load("sample", [f"runs={tmp_path}"], environment={}).store.file == tmp_path / "sample" / "metadata.db"
    settings = load("sample", [f"metadata.address={SERVER}"], {PASSWORD: "12: #3'"})
    assert str(settings.store) == SERVER
    assert settings.store.password == "12: #3'"


def test_secrets_are_in_no_text_form_and_the_server_is_not_recorded():
    settings = load(
        "sample", [f"metadata.address={SERVER}"], {PASSWORD: "s3cret", TOKEN: "s3cret", WEBHOOK: "https://h/s3cret"}
    )
    assert settings.kubeflow.token.get_secret_value() == "s3cret"
    here = load("sample", environment={})
    assert "s3cret" not in repr(settings) + str(settings.store) + repr(settings.store) + settings.model_dump_json()
    assert settings.resolved(1) == here.resolved(1)


@pytest.mark.parametrize(
    "group, key, variable",
    [("metadata", "password", PASSWORD), ("kubeflow", "token", TOKEN), ("monitor", "webhook", WEBHOOK)],
)
@pytest.mark.parametrize("flag", ["{group}.{key}=s3cret", "{group}={{{key}: s3cret}}"])
def test_a_secret_comes_from_the_environment_alone(group, key, variable, flag, tmp_path):
    (tmp_path / "mine.yaml").write_text(f"preset: sample\n{group}: {{{key}: s3cret}}\n")
    for source, flags in ("sample", [flag.format(group=group, key=key)]), (str(tmp_path / "mine.yaml"), []):
        with pytest.raises(SettingsError, match=f"only the environment variable {variable}") as refused:
            load(source, flags, environment={})
        assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "address",
    [
        "s3cret",
        "ftp://h/s3cret",
        "https:///s3cret",
        "https://h:s3cret/",
        "http://h/s3cret\n2",
        "https://[s3cret",
        "http://exa mple/s3cret",
        "http://.example/s3cret",
        "http://a..b/s3cret",
        f"http://{'a' * 64}/s3cret",
    ],
)
def test_a_wrong_webhook_is_rejected_without_showing_it(address):
    with pytest.raises(SettingsError, match=r"monitor\.webhook: it is not a web address: write https://") as refused:
        load("sample", environment={WEBHOOK: address})
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    "address, message",
    [
        ("mysql://u:s3cret@h/d", "a password does not belong there"),
        ("mysql://u:s3cret@h:port/d", "port from 1 to 65535"),
        ("postgres://u:s3cret@h/d", r"postgres://...*: write a path .* or mysql://USER@HOST"),
        ("mysql://u:/s3cret@h/d", "mysql://USER@HOST"),
        ("mysql://[s3cret/d", "mysql://USER@HOST"),
        ("mysql://h/d", "mysql://USER@HOST"),
        ("other.db", "mysql://USER@HOST"),
        ("[s3cret]", "string"),
    ],
)
def test_a_wrong_address_is_rejected_without_showing_a_password(address, message):
    with pytest.raises(SettingsError, match=f"metadata.address: .*{message}") as refused:
        load("sample", [f"metadata.address={address}"], environment={})
    assert "s3cret" not in str(refused.value)


def test_only_load_reads_the_environment(monkeypatch):
    for name in "NAME", "RUNS", "VITPIPE_NAME", "VITPIPE_RUNS", PASSWORD:
        monkeypatch.setenv(name, "other")
    monkeypatch.setenv("VITPIPE_TRAINING__SEED", "7")
    assert Settings() == Settings.model_validate({}) == Settings.model_validate_json("{}") == Settings(name="vitpipe")
    assert load("sample", ["name=mine"]).training.seed == 7


def test_a_bound_on_wrong_labels_requires_the_label_check():
    bound = "data_gate.wrong_labels.stop=0.1"
    with pytest.raises(SettingsError, match=r"stop 0\.1.*label_check\.epochs is 0"):
        load("sample", [bound], environment={})
    assert load("sample", [bound, "label_check.epochs=5"], environment={}).label_check.epochs == 5
