"""Workers in pods: the Job and the Service that the step Trainer creates, and how it follows them."""

import json
import re

import kubernetes_validate
import psutil
import pytest

from components.errors import ClusterError
from components.model import workers
from kubeflow import worker_pods
from kubeflow.steps.workers import ClusterWorkers
from pipeline.settings import load
from tests.helpers import kubernetes_api
from tests.helpers.kustomize import KUBEFLOW, KUBERNETES, resources
from trainer.worker import Job

RUN = "0f3c1d9e-5c1e-4b8e-9a51-2d1f6f0a7b11"
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "trainer-pod", "uid": "1"}


def settings(*flags):
    return load("cifar10", ["kubeflow.image=vitpipe:1", "training.workers=2", *flags], environment={})


@pytest.fixture
def cluster():
    return kubernetes_api.Cluster()


@pytest.fixture
def launcher(cluster, tmp_path, monkeypatch):
    """Launcher of a step in a cluster without DNS, whose pods are processes on this host."""
    with kubernetes_api.serve(cluster, tmp_path) as environment:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        yield ClusterWorkers(worker_pods.pod_template(settings(f"kubeflow.mount={tmp_path}"), "vitpipe:1"), RUN)


def train(launcher, folder):
    """Train with a job that is valid, but whose settings are not."""

    def make_job(addresses):
        return Job(
            workers=addresses,
            transform_output="",
            schema_path="",
            train_files=["-"],
            eval_files=["-"],
            serving_model_dir="",
            model_run_dir="",
            custom_config={"model": json.dumps({"depth": -1})},
        )

    workers.train(make_job, 2, folder / "logs", launcher)


@pytest.mark.parametrize("version", KUBERNETES)
def test_job_and_service_are_valid_by_the_schemas_of_kubernetes(version, tmp_path):
    template = worker_pods.pod_template(
        settings(
            "kubeflow.steps.Trainer.gpus=4",
            "kubeflow.steps.Trainer.memory=24Gi",
            "kubeflow.steps.Trainer.volumes={/scratch: fast-disk}",
            "kubeflow.steps.Trainer.secrets={TOKEN: hub/token}",
            "kubeflow.steps.Trainer.node_selector={pool: gpu}",
            "kubeflow.steps.Trainer.tolerations=[{key: gpu, effect: NoSchedule}]",
            "kubeflow.image_pull_secrets=[registry]",
            "kubeflow.pod_annotations={gke-gcsfuse/volumes: 'true'}",
        ),
        "vitpipe-gpu:1",
    )
    job = worker_pods.job(template, worker_pods.resource_name(RUN), 4, tmp_path, OWNER)
    kubernetes_validate.validate(job, version, strict=True)
    kubernetes_validate.validate(worker_pods.service(worker_pods.resource_name(RUN), OWNER), version, strict=True)

    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert container["image"] == "vitpipe-gpu:1"
    assert container["resources"]["limits"] == {"memory": "24Gi", "nvidia.com/gpu": "4"}
    assert container["env"] == [
        {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}
    ]  # and not the password of ML Metadata, which a worker does not need
    claims = {
        one["name"]: one["persistentVolumeClaim"]["claimName"]
        for one in pod["volumes"]
        if "persistentVolumeClaim" in one
    }
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert {mounts[name]: claim for name, claim in claims.items()} == {"/vitpipe": "vitpipe", "/scratch": "fast-disk"}
    assert (mounts["shared-memory"], mounts["tmp"]) == ("/dev/shm", "/tmp")
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert job["spec"]["template"]["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}


def test_the_job_fails_as_a_whole_with_its_first_pod(tmp_path):
    spec = worker_pods.job(worker_pods.pod_template(settings(), "vitpipe:1"), "name", 3, tmp_path, OWNER)["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (0, 0)
    assert spec["template"]["spec"]["restartPolicy"] == "Never"


def test_addresses_are_the_names_of_the_pods(tmp_path):
    name = worker_pods.resource_name(RUN)
    template = worker_pods.pod_template(settings(), "vitpipe:1")
    service, job = worker_pods.service(name, OWNER), worker_pods.job(template, name, 2, tmp_path, OWNER)
    # Kubernetes names pod N of an indexed Job JOB-N.SUBDOMAIN, if there is a headless Service called SUBDOMAIN.
    host = f"{job['metadata']['name']}-1.{job['spec']['template']['spec']['subdomain']}"
    [port] = service["spec"]["ports"]
    assert worker_pods.addresses(name, 2)[1] == f"{host}:{port['port']}"
    assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"]
    assert service["spec"]["selector"] == {"batch.kubernetes.io/job-name": job["metadata"]["name"]}
    [container] = job["spec"]["template"]["spec"]["containers"]
    assert container["ports"] == [{"name": port["targetPort"], "containerPort": port["port"]}]
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", f"{name}-1023")


@pytest.mark.slow
def test_workers_that_reject_their_input_end_the_training_at_once(cluster, launcher, tmp_path, caplog):
    with pytest.raises(ValueError, match=r"worker \d of 2 failed"):
        train(launcher, tmp_path)
    assert any(re.fullmatch(r"worker \d \| depth", record.getMessage()) for record in caplog.records)
    assert cluster.created == ["Service", "Job"]
    assert not cluster.jobs and not cluster.services


def test_a_server_that_is_away_for_a_moment_is_asked_again(cluster, launcher, tmp_path):
    launcher.start(tmp_path, 1)
    cluster.failures = 1
    launcher.ended()
    assert cluster.failures == 0
    launcher.stop()
    assert not cluster.jobs and not cluster.services and not psutil.Process().children()


def test_a_missing_right_is_named_with_the_component_that_grants_it(cluster, launcher, tmp_path):
    cluster.forbidden = True
    with pytest.raises(ClusterError, match="kubeflow/manifests/workers"):
        launcher.start(tmp_path, 1)


def test_the_component_grants_the_rights_that_the_step_uses():
    [role, binding, policy] = resources(KUBEFLOW / "manifests" / "workers")
    rules = {(*rule["apiGroups"], *rule["resources"]): set(rule["verbs"]) for rule in role["rules"]}
    assert rules == {("batch", "jobs"): {"create", "get", "delete"}, ("", "services"): {"create", "delete"}}
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert [subject["name"] for subject in binding["subjects"]] == [settings().kubeflow.service_account]
    labels = worker_pods.pod_template(settings(), "vitpipe:1")["metadata"]["labels"]
    [rule] = policy["spec"]["ingress"]
    [peer] = rule["from"]
    for selector in policy["spec"]["podSelector"], peer["podSelector"]:
        assert selector["matchLabels"].items() <= labels.items()
    assert "ports" not in rule
    for version in KUBERNETES:
        for resource in role, binding, policy:
            kubernetes_validate.validate(resource, version, strict=True)
