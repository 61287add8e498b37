"""Kubernetes resources for the workers of a training: an indexed Job, and a Service that gives its pods names.

The package contains the template of the pods, which follows from the settings. The step of the Trainer completes it
with what is known in a run. Secrets appear only as references.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from components.model.workers import JOB
from pipeline.settings import Settings
from trainer.worker import WRONG_INPUT

# Environment variables of the step: the name, the uid and the namespace of its pod.
POD, UID, NAMESPACE = "VITPIPE_POD", "VITPIPE_POD_UID", "VITPIPE_NAMESPACE"
PORT = 2222
CONTAINER = "worker"
_LABELS = {"app.kubernetes.io/name": "vitpipe-workers", "app.kubernetes.io/part-of": "vitpipe"}
# The shell only appends the output to the log: Python replaces it, so the exit code is that of the worker.
_SCRIPT = f'exec python -m trainer.worker "$0/{JOB}" >> "$0/worker-$JOB_COMPLETION_INDEX.log" 2>&1'


def pod_template(settings: Settings, image: str) -> dict[str, Any]:
    """Return the template of a worker's pod, which has the resources, volumes and secrets of the step Trainer.

    Args:
        settings: the settings of the run.
        image: the image of the workers.
    """
    cluster, own = settings.kubeflow, settings.kubeflow.step_of("Trainer")
    gpus = {own.gpu_type: str(own.gpus)} if own.gpus else {}
    volumes: list[dict[str, Any]] = [{"name": "tmp", "emptyDir": {}}]
    mounts = [{"name": "tmp", "mountPath": "/tmp"}]
    if own.shared_memory:
        volumes.append({"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": own.shared_memory}})
        mounts.append({"name": "shared-memory", "mountPath": "/dev/shm"})
    for number, (folder, claim) in enumerate({cluster.mount: cluster.claim, **own.volumes}.items()):
        volumes.append({"name": f"claim-{number}", "persistentVolumeClaim": {"claimName": claim}})
        mounts.append({"name": f"claim-{number}", "mountPath": folder})
    secrets = {variable: key.partition("/") for variable, key in own.secrets.items()}
    return {
        "metadata": {
            # A sidecar would keep the pod alive after the worker has ended.
            "labels": {**_LABELS, "sidecar.istio.io/inject": "false"},
            "annotations": cluster.pod_annotations,
        },
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 5,  # nothing depends on an orderly end
            "serviceAccountName": cluster.service_account,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "imagePullSecrets": [{"name": name} for name in cluster.image_pull_secrets],
            "nodeSelector": own.node_selector,
            "tolerations": [
                {name: value for name, value in toleration.model_dump().items() if value}
                for toleration in own.tolerations
            ],
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": CONTAINER,
                    "image": image,
                    "imagePullPolicy": cluster.image_pull_policy,
                    "workingDir": cluster.mount,
                    "ports": [{"name": "worker", "containerPort": PORT}],
                    "env": [
                        {"name": variable, "valueFrom": {"secretKeyRef": {"name": secret, "key": key}}}
                        for variable, (secret, _, key) in secrets.items()
                    ],
                    "resources": {
                        "requests": {"cpu": own.cpu, "memory": own.memory, **gpus},
                        "limits": {"memory": own.memory, **gpus},
                    },
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": mounts,
                }
            ],
            "volumes": volumes,
        },
    }


def resource_name(run_id: str) -> str:
    """Return the name of the Job and the Service of a run. With an index appended, it is a valid host name."""
    return "vitpipe-workers-" + re.sub(r"[^a-z0-9]+", "-", run_id.lower()).strip("-")[:36]


def addresses(name: str, count: int) -> list[str]:
    """Return the addresses of the pods of an indexed Job, HOST:PORT.

    Args:
        name: the name of the Job and of the Service.
        count: the number of pods.
    """
    return [f"{name}-{index}.{name}:{PORT}" for index in range(count)]


def job(template: Mapping[str, Any], name: str, count: int, folder: Path, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the Job. If one of its pods fails, Kubernetes ends the others, and the Job has failed.

    Args:
        template: the template of the pods.
        name: the name of the Job and of the Service.
        count: the number of pods.
        folder: the folder of the training's job, below which the workers write their logs.
        owner: reference to the pod of the step. If that pod is deleted, Kubernetes deletes the Job.
    """
    [container] = template["spec"]["containers"]
    command = ["sh", "-c", _SCRIPT, str(folder)]
    spec = {**template["spec"], "subdomain": name, "containers": [{**container, "command": command}]}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": _LABELS, "ownerReferences": [dict(owner)]},
        "spec": {
            "completionMode": "Indexed",
            "completions": count,
            "parallelism": count,
            "backoffLimitPerIndex": 0,
            "maxFailedIndexes": 0,
            "podFailurePolicy": {  # its reason in the status tells the step that a restart would not help
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {"containerName": CONTAINER, "operator": "In", "values": [WRONG_INPUT]},
                    }
                ]
            },
            "ttlSecondsAfterFinished": 3600,
            "template": {"metadata": template["metadata"], "spec": spec},
        },
    }


def service(name: str, owner: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headless Service, by which the pods of the Job have names.

    Args:
        name: the name of the Job and of the Service.
        owner: reference to the pod of the step.
    """
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": _LABELS, "ownerReferences": [dict(owner)]},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,  # the workers look for each other while they start
            "selector": {"batch.kubernetes.io/job-name": name},
            "ports": [{"name": "worker", "port": PORT, "targetPort": "worker"}],
        },
    }
