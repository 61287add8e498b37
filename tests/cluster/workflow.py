"""Print the Argo workflow of a compiled package: python tests/cluster/workflow.py PACKAGE [NAME=VALUE...].

This replaces the API server, the driver and the launcher of Kubeflow Pipelines, which no package registry has. The
workflow has what they would give to Argo: the same containers, volumes, secrets and labels, one task for each step, the
same retries, and the report as a hook that runs after the other tasks. Artifacts of Kubeflow Pipelines are left out:
the report and its figures are written to /tmp of the last pod.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml

# Placeholders of Kubeflow Pipelines that stand for a whole input, and Argo's variables with the same values.
VARIABLES = {
    "{{$.pipeline_job_uuid}}": "{{workflow.uid}}",
    "{{$.pipeline_job_schedule_time_utc}}": "{{workflow.creationTimestamp.RFC3339}}",
}
OUTPUTS = {
    "outputs": {
        "artifacts": {"metrics": {"artifacts": [{"name": "metrics", "uri": "/tmp/metrics"}]}},
        "outputFile": "/tmp/executor-output.json",
    }
}


def workflow(package: str, parameters: dict[str, str]) -> dict[str, Any]:
    """Return the workflow of a package.

    Args:
        package: the two YAML documents of the package.
        parameters: values for the run, which replace the defaults of the package.
    """
    spec, platform = yaml.safe_load_all(package)
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    steps = spec["components"]["comp-exit-handler-1"]["dag"]["tasks"]
    exit_task = spec["root"]["dag"]["tasks"]["run-report"]
    definitions = spec["root"]["inputDefinitions"]["parameters"]
    unknown = parameters.keys() - definitions.keys()
    if unknown:
        sys.exit(f"{', '.join(unknown)}: not a parameter of the package, which has {', '.join(definitions)}")
    values = {name: parameters.get(name, _text(one)) for name, one in definitions.items()}
    templates = [_template(spec, executors, name, task) for name, task in {**steps, "run-report": exit_task}.items()]
    tasks = [
        {
            "name": name,
            "template": name,
            "depends": " && ".join(f"{before}.Succeeded" for before in task.get("dependentTasks", [])),
        }
        for name, task in steps.items()
    ]
    root = {"name": "exit-handler-1", "template": "steps", "hooks": {"exit": {"template": "exit-hook"}}}
    return {
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Workflow",
        "metadata": {"generateName": spec["pipelineInfo"]["name"] + "-"},
        "spec": {
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
        },
    }


def _text(definition: dict[str, Any]) -> str:
    """Return the default value of a parameter as Kubeflow Pipelines writes it into a command: -1, not -1.0."""
    value = definition["defaultValue"]
    return str(int(value)) if definition["parameterType"] == "NUMBER_INTEGER" else str(value)


def _template(spec: dict[str, Any], executors: dict[str, Any], name: str, task: dict[str, Any]) -> dict[str, Any]:
    """Return the template of one step, which runs in one pod."""
    label = spec["components"][task["componentRef"]["name"]]["executorLabel"]
    container, placement = spec["deploymentSpec"]["executors"][label]["container"], executors[label]
    supported = {"emptyDirMounts", "fieldPathAsEnv", "imagePullPolicy", "podMetadata", "pvcMount", "secretAsEnv"}
    unsupported = placement.keys() - supported
    assert not unsupported, f"{name}: {', '.join(unsupported)}"
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
            *({"name": one["volumeName"], "emptyDir": {}} for one in folders),
        ],
        "container": {
            "image": container["image"],
            "imagePullPolicy": placement["imagePullPolicy"],
            "command": container["command"],
            "args": [_resolve(argument, task) for argument in container["args"]],
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


def _resolve(argument: str, task: dict[str, Any]) -> str:
    """Return an argument with Argo's variables in place of Kubeflow's placeholders."""
    for name, value in task["inputs"]["parameters"].items():
        if "runtimeValue" in value:
            text = VARIABLES[value["runtimeValue"]["constant"]]
        else:
            parameter = value["componentInputParameter"].removeprefix("pipelinechannel--")
            text = f"{{{{workflow.parameters.{parameter}}}}}"
        argument = argument.replace(f"{{{{$.inputs.parameters['{name}']}}}}", text)
    argument = argument.replace("{{$.outputs.artifacts['report'].path}}", "/tmp/report.html")
    argument = argument.replace("{{$}}", json.dumps(OUTPUTS))
    assert "{{$" not in argument, argument
    return argument


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: workflow.py PACKAGE [NAME=VALUE...]")
    values = dict(one.split("=", 1) for one in sys.argv[2:])
    print(yaml.safe_dump(workflow(Path(sys.argv[1]).read_text("utf-8"), values), sort_keys=False))
