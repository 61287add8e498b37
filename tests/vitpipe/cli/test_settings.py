"""The command `vitpipe settings`: it lists every setting with the default and bounds that are in force."""

import json
import subprocess
import sys

import pytest

from components.errors import SettingsError
from pipeline.settings import Settings, flag_source, merge_sources
from pipeline.settings.reference import reference
from vitpipe.cli import main


@pytest.fixture
def vitpipe(monkeypatch, capsys):
    """vitpipe(*arguments) returns the exit code, standard output and standard error of `vitpipe settings`."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["vitpipe", "settings", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return command


def settings(*flags):
    return merge_sources(Settings, [flag_source(flag) for flag in flags])


def leaves(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def test_every_setting_is_listed_with_its_default():
    assert {row.name: row.default for row in reference(Settings())} == dict(leaves(Settings().model_dump(mode="json")))


def test_the_bounds_of_numbers_are_those_in_force():
    checked = 0
    for row in reference(Settings()):
        for bound in row.bounds.split(", ") if row.type.startswith(("integer", "number")) else ():
            sign, limit = bound.split()
            step = {">": 0, "<": 0, ">=": -1, "<=": 1}[sign]
            with pytest.raises(SettingsError, match=row.name.partition(".")[0]):
                settings(f"{row.name}={float(limit) + step:.13g}")
            checked += 1
    assert checked > 150


def test_a_group_is_listed_with_the_values_of_a_preset(vitpipe):
    code, out, _ = vitpipe("training", "-c", "sample", "--json")
    rows = {row["name"]: row for row in json.loads(out)}
    assert code == 0 and all(name.startswith("training.") for name in rows)
    assert rows["training.epochs"] == {
        "name": "training.epochs",
        "value": 30,
        "type": "integer",
        "default": 200,
        "bounds": "> 0, <= 100000",
        "description": "Number of passes over the training images.",
    }


def test_without_a_terminal_a_row_is_a_line_with_tabs(vitpipe):
    _, out, _ = vitpipe("data_gate.duplicates")
    assert [line.split("\t")[:4] for line in out.splitlines()] == [
        ["data_gate.duplicates.warn", "number or null", "0.01", ">= 0, <= 1e+12"],
        ["data_gate.duplicates.stop", "number or null", "0.2", ">= 0, <= 1e+12"],
    ]


def test_a_secret_is_not_shown(vitpipe, monkeypatch):
    monkeypatch.setenv("VITPIPE_KUBEFLOW__TOKEN", "s3cret")
    code, out, _ = vitpipe("kubeflow.token", "-c", "sample", "--json")
    assert code == 0 and "s3cret" not in out


def test_an_unknown_group_ends_with_exit_code_2_and_the_nearest_name(vitpipe):
    code, out, message = vitpipe("trainig")
    assert (code, out) == (2, "")
    assert "no setting or group trainig: did you mean training? the groups are data, " in message


def test_the_reference_needs_no_tensorflow():
    script = "import sys; from vitpipe.cli.settings import settings; settings('model', as_json=False); " + (
        "assert not {'tensorflow', 'tfx', 'keras', 'numpy'} & {*sys.modules}"
    )
    subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.DEVNULL)
