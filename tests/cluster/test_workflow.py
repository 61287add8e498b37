"""The workflow that the test cluster runs has every step of the package, with nothing of Kubeflow left to resolve."""

from pathlib import Path

import pytest
import yaml

from tests.cluster.workflow import main, workflow

PACKAGE = (Path(__file__).parents[1] / "kubeflow" / "cifar10.yaml").read_text()


def test_workflow_runs_every_step_of_the_package_and_the_report_at_the_end():
    spec = workflow(PACKAGE, {"gate_accuracy": "0.5"})["spec"]
    templates = {one["name"]: one for one in spec["templates"]}
    tasks = {one["name"]: one for one in templates["steps"]["dag"]["tasks"]}
    executors = next(yaml.safe_load_all(PACKAGE))["deploymentSpec"]["executors"]
    assert {*tasks, "run-report"} == {label.removeprefix("exec-") for label in executors}
    assert "data-gate.Succeeded" in tasks["trainer"]["depends"]
    assert templates[spec["entrypoint"]]["dag"]["tasks"][0]["hooks"]["exit"]["template"] == "exit-hook"
    assert {"name": "gate_accuracy", "value": "0.5"} in spec["arguments"]["parameters"]
    assert {"name": "span", "value": "-1"} in spec["arguments"]["parameters"]
    assert not any(
        "{{$" in argument for one in templates.values() for argument in one.get("container", {}).get("args", [])
    )
    assert "--span={{workflow.parameters.span}}" in templates["start"]["container"]["args"]
    assert templates["trainer"]["retryStrategy"]["limit"] == "2"
    assert "retryPolicy" not in templates["trainer"]["retryStrategy"]  # the defaults of the controller set it


def test_a_schedule_starts_one_run_at_a_time_and_tells_it_when_it_was_due():
    once, schedule = workflow(PACKAGE, {}), workflow(PACKAGE, {"trigger": "schedule"}, "*/10 * * * *")
    assert (once["kind"], schedule["kind"]) == ("Workflow", "CronWorkflow")
    assert schedule["spec"]["schedules"] == ["*/10 * * * *"] and schedule["spec"]["concurrencyPolicy"] == "Forbid"
    [start] = [one for one in schedule["spec"]["workflowSpec"]["templates"] if one["name"] == "start"]
    assert "--due={{workflow.scheduledTime}}" in start["container"]["args"]
    parameters = schedule["spec"]["workflowSpec"]["arguments"]["parameters"]
    assert {"name": "trigger", "value": "schedule"} in parameters


def test_an_unknown_parameter_and_an_unknown_placement_are_rejected():
    with pytest.raises(ValueError, match=r"colour: the package has no such parameter\. It has accept, gate_accuracy"):
        workflow(PACKAGE, {"colour": "red"})
    spec, platform = yaml.safe_load_all(PACKAGE)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    executors["exec-trainer"]["nodeAffinity"] = []
    with pytest.raises(ValueError, match=r"trainer: nodeAffinity is not translated\. Supported are emptyDirMounts, "):
        workflow(yaml.safe_dump_all([spec, platform]), {})


def test_the_command_accepts_parameters_after_its_option(tmp_path, capsys, monkeypatch):
    file = tmp_path / "package.yaml"
    file.write_text(PACKAGE)
    monkeypatch.setattr("sys.argv", ["workflow.py", str(file), "--cron", "0 3 * * *", "trigger=schedule"])
    main()
    assert yaml.safe_load(capsys.readouterr().out) == workflow(PACKAGE, {"trigger": "schedule"}, "0 3 * * *")
    monkeypatch.setattr("sys.argv", ["workflow.py", str(file), "span"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "span: a parameter is NAME=VALUE, for example span=1" in capsys.readouterr().err
