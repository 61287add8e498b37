"""The commands that read ML Metadata, on a store with thirty runs: failed, cached, blessed and not blessed."""

import json
import subprocess
import sys

import pytest

from pipeline.result.run_result import this_process
from tests.helpers.stores import make_store
from vitpipe.cli import main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    make_store(folder / "sample" / "metadata.db", process=this_process())
    return folder


@pytest.fixture
def vitpipe(runs, monkeypatch, capsys):
    """vitpipe(*arguments) returns exit code and standard output; `vitpipe.stderr` is the latest standard error."""

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["vitpipe", *map(str, arguments), "--runs", str(runs)])
        with pytest.raises(SystemExit) as ended:
            main()
        streams = capsys.readouterr()
        command.stderr = streams.err
        return ended.value.code, streams.out

    return command


def test_runs_are_listed_newest_first_with_their_outcome(vitpipe):
    _, out = vitpipe("runs", "list")
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == [f"sample-run-{number:03}" for number in range(29, 9, -1)]
    assert rows[0][3] == "running"  # in the process of this test
    assert rows[9][0] == "sample-run-020" and rows[9][3] == "failed"
    by_name = {row[0]: row for row in rows}
    assert by_name["sample-run-021"][7:10] == ["0.8864", "yes", "version 21"]
    assert (by_name["sample-run-022"][3], by_name["sample-run-022"][8:10]) == ("not blessed", ["no", ""])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--state", "failed"], [27, 20, 13, 6]),
        (["--state", "failed", "--limit", "2"], [27, 20]),
        (["--state", "not blessed", "--limit", "1"], [28]),
        (["--sort", "accuracy", "--limit", "2"], [29, 28]),
        (["--pipeline", "sample", "--state", "not servable"], []),
    ],
)
def test_runs_are_filtered_and_sorted(vitpipe, options, expected):
    _, out = vitpipe("runs", "list", *options, "--json")
    assert [run["run"] for run in json.loads(out)] == [f"sample-run-{number:03}" for number in expected]


@pytest.mark.parametrize("command", ["list", "export"])
def test_an_unknown_pipeline_is_an_error(vitpipe, command):
    assert vitpipe("runs", command, "--pipeline", "smaple") == (2, "")
    assert "did you mean sample?" in vitpipe.stderr


def test_a_run_whose_process_is_gone_has_died(tmp_path, monkeypatch, capsys):
    ended = subprocess.run(
        [sys.executable, "-c", "from pipeline.result.run_result import this_process; print(this_process())"],
        capture_output=True,
        text=True,
        check=True,
    )
    make_store(tmp_path / "sample" / "metadata.db", runs=1, process=ended.stdout.strip())
    monkeypatch.setattr(sys, "argv", ["vitpipe", "runs", "list", "--json", "--runs", str(tmp_path)])
    with pytest.raises(SystemExit):
        main()
    assert json.loads(capsys.readouterr().out)[0]["state"] == "died"


def test_a_run_is_shown_with_its_nodes(vitpipe):
    _, out = vitpipe("runs", "show", "sample-run-002")
    assert out.startswith("run sample-run-002 of sample: done")
    nodes = {row[0]: row for row in (line.split("\t") for line in out.splitlines()) if len(row) == 5}
    assert nodes["Trainer"][1] == "complete" and nodes["Evaluator"][3].startswith("baseline_model:")
    _, out = vitpipe("runs", "show", "last", "--json")
    assert json.loads(out)["run"] == "sample-run-029"


def test_an_unknown_run_is_an_error_that_names_similar_runs(vitpipe):
    code, _ = vitpipe("runs", "show", "sample-run-2")
    assert code == 2 and "no run sample-run-2" in vitpipe.stderr and "did you mean sample-run-02" in vitpipe.stderr


def test_a_diff_lists_exactly_the_differences(vitpipe):
    _, out = vitpipe("runs", "diff", "sample-run-002", "sample-run-003")
    assert {line.split("\t")[0] for line in out.splitlines()} == {"data.span", "pushed", "accuracy"}
    _, out = vitpipe("runs", "diff", "sample-run-002", "sample-run-002")
    assert "are equal" in out


def test_every_run_is_exported_as_one_line(vitpipe):
    _, out = vitpipe("runs", "export")
    lines = [json.loads(line) for line in out.splitlines()]
    assert len(lines) == 30 and lines[0]["run"] == "sample-run-029"
    assert {node["node"] for node in lines[-1]["nodes"]} >= {"ImportExampleGen", "Trainer"}


def test_artifacts_by_type_state_and_property(vitpipe):
    _, out = vitpipe("artifacts", "list", "--type", "PushedModel", "--property", "pushed_version=3", "--json")
    [pushed] = json.loads(out)
    assert pushed["properties"] == {"pushed": 1, "pushed_version": "3"}
    assert vitpipe("artifacts", "list", "--state", "deleted")[1] == ""
    _, out = vitpipe("artifacts", "show", "v3")
    assert out.startswith(f"PushedModel {pushed['id']}: live") and "pushed_version\t3" in out
    code, _ = vitpipe("artifacts", "list", "--type", "Modle")
    assert code == 2 and "there are DataVerdict, Examples, Model" in vitpipe.stderr


def test_the_lineage_of_a_model_leads_to_its_data_and_stops_at_the_compared_model(vitpipe):
    _, out = vitpipe("lineage", "v3", "--json")
    lineage = json.loads(out)
    assert sorted(artifact["type"] for artifact in lineage["artifacts"]) == [
        "Examples",
        "Model",
        "Model",
        "ModelBlessing",
        "PushedModel",
    ]
    assert [edge["name"] for edge in lineage["edges"] if edge["compared"]] == ["baseline_model"]
    assert lineage["runs"].keys() == {"sample-run-003"}
    assert lineage["runs"]["sample-run-003"]["code_version"] == "0123456789ab"
    _, text = vitpipe("lineage", "v3")
    assert "baseline_model: Model" in text and "(to compare)" in text and "code 0123456789ab" in text


def test_the_lineage_of_a_span_leads_to_the_models_trained_on_it(vitpipe):
    _, out = vitpipe("lineage", "span-4", "--down", "--json")
    lineage = json.loads(out)
    assert [artifact["type"] for artifact in lineage["artifacts"]].count("PushedModel") == 1
    for kind, first in (("mermaid", "flowchart LR"), ("dot", "digraph lineage {")):
        assert vitpipe("lineage", "span-4", "--down", "--format", kind)[1].splitlines()[0] == first
    code, _ = vitpipe("lineage", "span-99")
    assert code == 2 and "no run has read span-99" in vitpipe.stderr


def test_importing_the_commands_imports_no_heavy_library():
    """Imports take most of the time of a listing, and a listing must answer at once."""
    heavy = {"numpy", "pandas", "plotly", "tensorflow", "tfx", "ml_metadata", "flask", "igraph", "PIL", "requests"}
    code = f"import sys, vitpipe.cli; print(sorted({heavy} & sys.modules.keys()))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert loaded.stdout == "[]\n"
