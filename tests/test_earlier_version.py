"""A run folder that version 0.1.0 wrote: a pushed model, a run that was not blessed, their store and a report.

Files that no command reads again, such as statistics, examples and pages, were left out of it.
"""

import json
import tarfile
from pathlib import Path

import pytest

from components.model.serving_folder import versions
from pipeline.report.model import Report
from pipeline.settings import load
from tests.helpers.spans import encoded, picture
from vitpipe.cli import main

ARCHIVE = Path(__file__).parent / "fixtures" / "run-folder-0.1.0.tar.xz"
PUSHED, NOT_BLESSED = "20261127-132729-c12d", "20261127-133038-e628"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "runs"


@pytest.fixture
def vitpipe(runs, monkeypatch, capsys):
    def command(*line):
        monkeypatch.setattr("sys.argv", ["vitpipe", *line, "--runs", str(runs)])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().out

    return command


def test_runs_are_listed_with_their_results(vitpipe):
    code, out = vitpipe("runs", "list", "--json")
    assert code == 0
    found = [(run["run"], run["state"], run["blessed"], run["pushed"], run["unreadable"]) for run in json.loads(out)]
    assert found == [(NOT_BLESSED, "not blessed", False, None, []), (PUSHED, "done", True, "1", [])]


def test_a_run_shows_what_was_compared(vitpipe):
    code, out = vitpipe("why", NOT_BLESSED, "--json")
    told = json.loads(out)
    assert code == 0 and told["unreadable"] == []
    assert {check["name"]: check["bound"] for check in told["model"]["checks"]}["accuracy"] == 0.999
    assert all(finding["bound"]["stop"] is None or finding["value"] >= 0 for finding in told["data"])


def test_settings_and_figures_of_two_runs_are_compared(vitpipe):
    code, out = vitpipe("runs", "diff", PUSHED, NOT_BLESSED, "--json")
    differing = {row["what"]: row for row in json.loads(out)}
    assert code == 0 and differing["gate.accuracy"][NOT_BLESSED] == 0.999
    assert {"training.seed", "state", "blessed", "pushed"} <= differing.keys()


def test_recorded_settings_are_settings_of_this_version(vitpipe):
    _, out = vitpipe("runs", "show", PUSHED, "--json")
    settings = json.loads(out)["settings"]
    flags = [f"model.{key}={json.dumps(value)}" for key, value in settings["model"].items() if key != "size"]
    assert load("sample", flags, environment={}).model.depth == settings["model"]["depth"] == 1


@pytest.mark.parametrize("line", [["artifacts", "list"], ["lineage", "span-1", "--down"], ["models", "list"]])
def test_other_listings_answer(vitpipe, line):
    code, out = vitpipe(*line)
    assert code == 0 and out


def test_the_report_is_read(runs):
    report = Report.read(runs / "sample" / "reports" / PUSHED / "report.json")
    assert report.judgement is not None and report.judgement.blessed and report.settings["model"]["pool"] == "cls"


def test_the_pushed_model_is_unmodified_and_answers(vitpipe, tmp_path):
    assert vitpipe("models", "verify")[0] == 0
    (tmp_path / "image.png").write_bytes(encoded(picture(0), "PNG"))
    code, out = vitpipe("predict", str(tmp_path / "image.png"), "--json")
    [answer] = json.loads(out)
    answer_names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    assert code == 0 and answer["valid"] and answer["class"] in answer_names


def test_its_other_model_is_blessed_by_a_person(vitpipe, runs):
    assert vitpipe("bless", NOT_BLESSED, "--reason", "a test of the earlier version")[0] == 0
    assert versions(runs / "sample" / "serving") == [1, 2]
    _, out = vitpipe("runs", "list", "--json")
    assert [run["pushed"] for run in json.loads(out)] == ["2", "1"]
