"""The workflow that the test cluster runs has every step of the package, with nothing of Kubeflow left to resolve."""

from pathlib import Path

import yaml

from tests.cluster.workflow import workflow

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
