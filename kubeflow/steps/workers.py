"""Workers of a training in pods of their own, which the step of the Trainer starts and follows through Kubernetes."""

import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tenacity
import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from components.errors import ClusterError
from components.model.workers import Launcher
from kubeflow import worker_pods
from trainer.worker import WRONG_INPUT

log = logging.getLogger(__name__)

_POLL_SECONDS = 2.0
_PATIENCE_SECONDS = 300  # for an API server that does not answer
# Options of every request: seconds to connect, and to wait for an answer, without which a silent connection would never
# end. Answers stay JSON, because the classes of the client lack new fields, and reject Jobs with a pod failure policy.
_OPTIONS: dict[str, Any] = {"_request_timeout": (10, 60), "_preload_content": False}
_TRANSIENT = (429, 500, 502, 503, 504)
_FAILED_POD = re.compile(r"pod \S+-(\d+)-[a-z0-9]+ failing")  # in the message of a pod failure policy


class ClusterWorkers(Launcher):
    """Workers in the pods of an indexed Job, in the namespace of the step.

    Args:
        template: The template of the pods, from `kubeflow.worker_pods.pod_template`.
        run_id: The id of the run, after which the Job is named.
    """

    def __init__(self, template: Mapping[str, Any], run_id: str) -> None:
        if "KUBECONFIG" in os.environ:  # outside a cluster, as in the tests
            config.load_kube_config(os.environ["KUBECONFIG"])
        else:
            config.load_incluster_config()
        self._jobs, self._services = client.BatchV1Api(), client.CoreV1Api()
        self._template, self._name, self._namespace = (
            template,
            worker_pods.resource_name(run_id),
            os.environ[worker_pods.NAMESPACE],
        )
        self._owner = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": os.environ[worker_pods.POD],
            "uid": os.environ[worker_pods.UID],
        }
        self._asked_at, self._ended, self._ready = 0.0, dict[int, int](), -1

    def addresses(self, count: int) -> list[str]:
        """Return the names that the pods will have."""
        return worker_pods.addresses(self._name, count)

    def start(self, folder: Path, count: int) -> None:
        """Create the Job and its Service, as in `Launcher`. What an earlier attempt of the step left is deleted first.

        Raises:
            ClusterError: If Kubernetes does not create them.
        """
        self.stop()
        self._count, self._asked_at, self._ended, self._ready = count, 0.0, {}, -1
        job = worker_pods.job(self._template, self._name, count, folder.resolve(), self._owner)
        service = worker_pods.service(self._name, self._owner)
        _ask(lambda: self._services.create_namespaced_service(self._namespace, service, **_OPTIONS), "create Services")
        _ask(lambda: self._jobs.create_namespaced_job(self._namespace, job, **_OPTIONS), "create Jobs")
        log.info("created the Job %s with %d pods", self._name, count)

    def ended(self) -> dict[int, int]:
        """Return the exit codes, as in `Launcher`.

        Kubernetes tells only which pods failed, and whether their input was wrong.
        """
        if time.monotonic() - self._asked_at < _POLL_SECONDS:
            return self._ended
        job = self._read()
        self._asked_at = time.monotonic()
        if job is None:
            log.error(
                "the Job %s was deleted while the training was running; to end it, stop the run instead", self._name
            )
            return {0: 1}
        status = job["status"]
        if (ready := status.get("ready", 0)) != self._ready:
            self._ready = ready
            log.info("%d of %d pods are ready", ready, self._count)
        for condition in status.get("conditions", []):
            kind, message = condition["type"], condition.get("message", "")
            if condition["status"] == "True" and kind == "Complete":
                self._ended = dict.fromkeys(range(self._count), 0)
            elif condition["status"] == "True" and kind in ("FailureTarget", "Failed"):
                log.error("the Job %s failed: %s", self._name, message)
                code = WRONG_INPUT if condition.get("reason") == "PodFailurePolicy" else 1
                self._ended = {_failed_index(status.get("failedIndexes", ""), message): code}
        return self._ended

    def stop(self) -> None:
        """Delete the Job and its Service, and wait until its pods have ended."""
        name, namespace = self._name, self._namespace
        foreground = {"propagation_policy": "Foreground", **_OPTIONS}
        _ask(lambda: self._jobs.delete_namespaced_job(name, namespace, **foreground), "delete Jobs")
        _ask(lambda: self._services.delete_namespaced_service(name, namespace, **_OPTIONS), "delete Services")
        while self._read():
            time.sleep(_POLL_SECONDS)

    def _read(self) -> dict[str, Any] | None:
        """Return the Job."""
        answer = _ask(lambda: self._jobs.read_namespaced_job(self._name, self._namespace, **_OPTIONS), "get Jobs")
        return json.loads(answer) if answer else None


def _failed_index(failed: str, message: str) -> int:
    """Return the index of the first failed pod, from the status of a Job, such as "1,3-5", or from its message."""
    match = _FAILED_POD.search(message) or re.match(r"(\d+)", failed)
    return int(match[1]) if match else 0


def _is_transient(error: BaseException) -> bool:
    return isinstance(error, urllib3.exceptions.HTTPError) or (
        isinstance(error, ApiException) and error.status in _TRANSIENT
    )


def _ask(request: Callable[[], urllib3.BaseHTTPResponse], action: str) -> bytes | None:
    """Send a request to Kubernetes, and repeat it while the server does not answer.

    Args:
        request: sends the request.
        action: what the request does, for messages, such as "create Jobs".

    Returns:
        The answer; None if the resource does not exist.

    Raises:
        ClusterError: if the request is rejected, or the server does not answer for five minutes.
    """
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_transient),
        stop=tenacity.stop_after_delay(_PATIENCE_SECONDS),
        wait=tenacity.wait_exponential_jitter(max=30),
        reraise=True,
    )
    try:
        return retry(request).data
    except urllib3.exceptions.HTTPError as error:
        raise ClusterError(
            f"Kubernetes has not answered for {_PATIENCE_SECONDS // 60} minutes: {error}. Check its API server, then "
            "start the run again; the training continues from its last checkpoint"
        ) from error
    except ApiException as error:
        if error.status == 404:
            return None
        if error.status == 403:
            raise ClusterError(
                f"the service account of the step may not {action}: add the component kubeflow/manifests/workers to "
                "the kustomization, or set training.workers to 1"
            ) from error
        raise ClusterError(f"Kubernetes did not {action}: {error.status} {error.reason}: {error.body}") from error
