"""Print the Argo workflow of a compiled package.

    python tests/cluster/workflow.py PACKAGE [NAME=VALUE...]
    python tests/cluster/workflow.py PACKAGE --cron "*/10 * * * *" [NAME=VALUE...]

With `--cron` it is a CronWorkflow, by which Argo starts the workflow on a schedule.

This replaces the API server, the driver and the launcher of Kubeflow Pipelines, which no package registry has. The
workflow has what they would give to Argo: the same containers, volumes, secrets and labels, one task for each step, the
same retries, and the report as a hook that runs after the other tasks. Artifacts of Kubeflow Pipelines are left out:
the report and its figures are written to /tmp of the last pod.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

# Placeholders of Kubeflow Pipelines that stand for a whole input, and Argo's variables with the same values.
RUN_ID, DUE = "{{$.pipeline_job_uuid}}", "{{$.pipeline_job_schedule_time_utc}}"
VARIABLES = {RUN_ID: "{{workflow.uid}}", DUE: "{{workflow.creationTimestamp.RFC3339}}"}
OUTPUTS = {
    "outputs": {
        "artifacts": {"metrics": {"artifacts": [{"name": "metrics", "uri": "/tmp/metrics"}]}},
        "outputFile": "/tmp/executor-output.json",
    }
}


def workflow(package: str, parameters: Mapping[str, str], cron: str = "") -> dict[str, Any]:
    """Return the workflow of a package.

    Args:
        package: the two YAML documents of the package.
        parameters: values for the run, which replace the defaults of the package.
        cron: the times, in UTC, at which Argo starts the workflow. Empty: it is started once, when it is created.

    Raises:
        ValueError: if the package has no such parameter, or needs something that the workflow would not have.
    """
    spec, platform = yaml.safe_load_all(package)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    steps = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    exit_task = spec["root"]["dag"]["tasks"]["run-report"]
    definitions = spec["root"]["inputDefinitions"]["parameters"]
    unknown = parameters.keys() - definitions.keys()
    if unknown:
        raise ValueError(
            f"{', '.join(sorted(unknown))}: the package has no such parameter. It has {', '.join(definitions)}"
        )
    values = {name: parameters.get(name, _text(one)) for name, one in definitions.items()}
    # Argo sets the time at which the schedule was due only in workflows of a schedule.
    variables = {**VARIABLES, DUE: "{{workflow.scheduledTime}}"} if cron else VARIABLES
    templates = [
        _template(spec, executors, name, task, variables) for name, task in {**steps, "run-report": exit_task}.items()
    ]
    tasks = [
        {
            "name": name,
            "template": name,
            "depends": " && ".join(f"{before}.Succeeded" for before in task.get("dependentTasks", [])),
        }
        for name, task in steps.items()
    ]
    root = {"name": "exit-handler-1", "template": "steps", "hooks": {"exit": {"template": "exit-hook"}}}
    workflow_spec = {
        "entrypoint": "entrypoint",
        "serviceAccountName": "vitpipe-steps",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "arguments": {"parameters": [{"name": name, "value": value} for name, value in values.items()]},
        "templates": [
            {"name": "entrypoint", "dag": {"tasks": [root]}},
            {"name": "steps", "dag": {"tasks": tasks}},
            {"name": "exit-hook", "dag": {"tasks": [{"name": "run-report", "template": "run-report"}]}},
            *templates,
        ],
    }
    name = spec["pipelineInfo"]["name"]
    if not cron:
        return {
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Workflow",
            "metadata": {"generateName": f"{name}-"},
            "spec": workflow_spec,
        }
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "CronWorkflow",
        "metadata": {"name": name},
        # One run at a time, as in a schedule of Kubeflow Pipelines that `vitpipe kfp schedule` sets.
        "spec": {"schedules": [cron], "concurrencyPolicy": "Forbid", "workflowSpec": workflow_spec},
    }


def _text(definition: dict[str, Any]) -> str:
    """Return the default value of a parameter as Kubeflow Pipelines writes it into a command: -1, not -1.0."""
    value = definition["defaultValue"]
    return str(int(value)) if definition["parameterType"] == "NUMBER_INTEGER" else str(value)


def _template(
    spec: dict[str, Any], executors: dict[str, Any], name: str, task: dict[str, Any], variables: Mapping[str, str]
) -> dict[str, Any]:
    """Return the template of one step, which runs in one pod.

    Args:
        spec: the first document of the package.
        executors: the executors of the second document.
        name: the name of the step's task.
        task: the task.
        variables: Argo's variables by Kubeflow's placeholders.
    """
    label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
    container, placement = spec["deploymentSpec"]["executors"][label]["container"], executors[label]
    supported = {"emptyDirMounts", "fieldPathAsEnv", "imagePullPolicy", "podMetadata", "pvcMount", "secretAsEnv"}
    if unsupported := placement.keys() - supported:
        raise ValueError(
            f"{name}: {', '.join(sorted(unsupported))} is not translated. Supported are "
            f"{', '.join(sorted(supported))}. Leave out the setting that adds it, or extend tests/cluster/workflow.py"
        )
    retry = task["retryPolicy"]
    claims, folders = placement["pvcMount"], placement["emptyDirMounts"]
    resources = container["resources"]
    return {
        "name": name,
        "metadata": placement["podMetadata"],
        "securityContext": {"seccompProfile": {"type": "RuntimeDefault"}},
        # No policy is set, as in Kubeflow Pipelines: it comes from the defaults of the workflow controller.
        "retryStrategy": {
            "limit": str(retry["maxRetryCount"]),
            "backoff": {
                "duration": retry["backoffDuration"].removesuffix("s"),
                "factor": str(int(retry["backoffFactor"])),
                "maxDuration": retry["backoffMaxDuration"].removesuffix("s"),
            },
        },
        "volumes": [
            *({"name": one["constant"], "persistentVolumeClaim": {"claimName": one["constant"]}} for one in claims),
            *({"name": one["volumeName"], "emptyDir": _empty_dir(one)} for one in folders),
        ],
        "container": {
            "image": container["image"],
            "imagePullPolicy": placement["imagePullPolicy"],
            "command": container["command"],
            "args": [_resolve(argument, task, variables) for argument in container["args"]],
            "env": [
                *(
                    {
                        "name": key["envVar"],
                        "valueFrom": {"secretKeyRef": {"name": one["secretName"], "key": key["secretKey"]}},
                    }
                    for one in placement["secretAsEnv"]
                    for key in one["keyToEnv"]
                ),
                *(
                    {"name": one["name"], "valueFrom": {"fieldRef": {"fieldPath": one["fieldPath"]}}}
                    for one in placement.get("fieldPathAsEnv", [])
                ),
            ],
            "resources": {
                "requests": {"cpu": resources["resourceCpuRequest"], "memory": resources["resourceMemoryRequest"]},
                "limits": {"memory": resources["resourceMemoryLimit"]},
            },
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [
                *({"name": one["constant"], "mountPath": one["mountPath"]} for one in claims),
                *({"name": one["volumeName"], "mountPath": one["mountPath"]} for one in folders),
            ],
        },
    }


def _empty_dir(mount: dict[str, Any]) -> dict[str, str]:
    return {name: mount[name] for name in ("medium", "sizeLimit") if mount.get(name)}


def _resolve(argument: str, task: dict[str, Any], variables: Mapping[str, str]) -> str:
    """Return an argument with Argo's variables in place of Kubeflow's placeholders."""
    for name, value in task["inputs"]["parameters"].items():
        if "runtimeValue" in value:
            text = variables[value["runtimeValue"]["constant"]]
        else:
            parameter = value["componentInputParameter"].removeprefix("pipelinechannel--")
            text = f"{{{{workflow.parameters.{parameter}}}}}"
        argument = argument.replace(f"{{{{$.inputs.parameters['{name}']}}}}", text)
    argument = argument.replace("{{$.outputs.artifacts['report'].path}}", "/tmp/report.html")
    argument = argument.replace("{{$}}", json.dumps(OUTPUTS))
    if "{{$" in argument:
        raise ValueError(f"{argument}: the placeholder is not translated. Extend tests/cluster/workflow.py")
    return argument


def main() -> None:
    """Print the workflow."""
    parser = argparse.ArgumentParser(description="Print the Argo workflow of a compiled package.")
    parser.add_argument("package", type=Path, help="file that `vitpipe kfp compile` wrote")
    parser.add_argument("parameters", nargs="*", metavar="NAME=VALUE", help="parameter of the run")
    parser.add_argument("--cron", default="", help="times, in UTC, at which Argo starts the workflow")
    arguments = parser.parse_intermixed_args()
    if wrong := [one for one in arguments.parameters if "=" not in one]:
        parser.error(f"{wrong[0]}: a parameter is NAME=VALUE, for example span=1")
    try:
        text = arguments.package.read_text("utf-8")
        values = dict(one.split("=", 1) for one in arguments.parameters)
        print(yaml.safe_dump(workflow(text, values, arguments.cron), sort_keys=False))
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
