"""The compiled package, and settings that the compiler rejects."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2 as kubernetes_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

from components.errors import SettingsError
from kubeflow.compile import START, VERDICT, package, task_name
from kubeflow.steps.start import NEWEST, resolve_settings
from kubeflow.worker_pods import NAMESPACE, POD, UID
from pipeline.graph import compile_graph
from pipeline.outcome import REPORT
from pipeline.settings import load
from tests.helpers.walk import ROOT

GOLDEN = Path(__file__).parent / "cifar10.yaml"
IMAGES = ["kubeflow.image=registry.example/vitpipe:1", "kubeflow.gpu_image=registry.example/vitpipe-gpu:1"]
STORE_PASSWORD = "s3cret-of-the-store"
ARGO_NAME = r"[a-zA-Z0-9][-a-zA-Z0-9]*"


def settings(*flags, preset="cifar10"):
    return load(preset, [*IMAGES, *flags], environment={})


@pytest.fixture(scope="module")
def compiled():
    """Package of settings with a password of the store."""
    return package(load("cifar10", IMAGES, environment={"VITPIPE_METADATA__PASSWORD": STORE_PASSWORD}))


@pytest.fixture(scope="module")
def documents(compiled):
    return list(yaml.safe_load_all(compiled))


@pytest.fixture(scope="module")
def spec(documents):
    return json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())


@pytest.fixture(scope="module")
def tasks(spec):
    return spec.components["comp-exit-handler-1"].dag.tasks


def container(spec, task):
    return json_format.MessageToDict(spec.deployment_spec)["executors"][f"exec-{task}"]["container"]


def of_kubernetes(documents, task):
    executors = documents[1]["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return json_format.ParseDict(executors[f"exec-{task}"], kubernetes_pb2.KubernetesExecutorConfig())


def test_the_package_equals_the_golden_file(compiled):
    """After an intended change, run `VITPIPE_GOLDEN=1 pytest tests/kubeflow/test_compile.py` and review the diff."""
    if os.environ.get("VITPIPE_GOLDEN"):
        GOLDEN.write_text(compiled)
    assert compiled == GOLDEN.read_text()


@pytest.mark.slow
def test_the_command_writes_the_package(tmp_path):
    words = [word for flag in IMAGES for word in ("--set", flag)]
    line = [sys.executable, "-m", "vitpipe", "kfp", "compile", "-c", "cifar10", *words]
    options = {"cwd": tmp_path, "capture_output": True, "text": True, "env": {**os.environ, "PYTHONPATH": str(ROOT)}}
    written = subprocess.run([*line, "-o", "package.yaml"], **options)
    assert (written.returncode, written.stdout) == (0, ""), written.stderr
    assert (tmp_path / "package.yaml").read_text() == GOLDEN.read_text()
    refused = subprocess.run([*line, "--set", "runs=gs://bucket/runs"], **options)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "runs gs:/bucket/runs" in refused.stderr and "Traceback" not in refused.stderr


def test_tasks_and_edges_are_those_of_the_graph(spec, tasks):
    graph = {entry.pipeline_node.node_info.id: entry.pipeline_node for entry in compile_graph(settings(), 1).nodes}
    names = {task_name(node): node for node in graph if node != REPORT}
    assert tasks.keys() == {*names, task_name(START), task_name(VERDICT)}
    for task, node in names.items():
        before = {task_name(name) for name in graph[node].upstream_nodes} or {task_name(START)}
        assert set(tasks[task].dependent_tasks) == before
        assert tasks[task].task_info.name == node
        assert container(spec, task)["command"] == ["python", "-m", "kubeflow.steps.node"]
        assert container(spec, task)["args"][-1] == node


def test_the_verdict_comes_after_every_node(tasks):
    reached, open_ends = set(), [task_name(VERDICT)]
    while open_ends:
        before = set(tasks[open_ends.pop()].dependent_tasks) - reached
        reached |= before
        open_ends += before
    assert reached == tasks.keys() - {task_name(VERDICT)}


def test_a_failed_step_is_retried_after_any_duration(tasks):
    trainer, verdict = tasks["trainer"].retry_policy, tasks[task_name(VERDICT)].retry_policy
    assert (trainer.max_retry_count, trainer.backoff_duration.seconds) == (2, 60)
    assert (verdict.max_retry_count, verdict.backoff_duration.seconds) == (1, 5)
    for policy in trainer, verdict:  # after this time, Argo does not retry a task that has failed once
        assert policy.backoff_max_duration.ToTimedelta().days == 30


def test_the_report_is_the_exit_task(spec):
    """The exit task also runs after a crash. A task that ignores failures would become an exit hook of every step."""
    root = spec.root.dag.tasks
    assert root.keys() == {"exit-handler-1", "run-report"}
    strategy = pipeline_spec_pb2.PipelineTaskSpec.TriggerPolicy.ALL_UPSTREAM_TASKS_COMPLETED
    assert root["run-report"].trigger_policy.strategy == strategy
    assert list(root["run-report"].dependent_tasks) == ["exit-handler-1"]
    outputs = spec.components["comp-run-report"].output_definitions.artifacts
    assert {name: one.artifact_type.schema_title for name, one in outputs.items()} == {
        "metrics": "system.Metrics",
        "report": "system.HTML",
    }


def test_the_cache_of_kubeflow_is_off(tasks):
    assert not any(task.caching_options.enable_cache for task in tasks.values())


def test_names_are_valid_in_argo(spec, tasks):
    for name in [*tasks, *spec.root.dag.tasks, *spec.components, spec.pipeline_info.name]:
        assert re.fullmatch(ARGO_NAME, name)


def test_parameters_default_to_the_settings(spec):
    inputs = spec.root.input_definitions.parameters
    defaults = {name: json_format.MessageToDict(one.default_value) for name, one in inputs.items()}
    assert defaults == {
        "span": -1,
        "trigger": "manual",
        "reason": "",
        "accept": "",
        "take_over": "",
        "gate_accuracy": 0.92,
        "gate_class_accuracy": 0.8,
        "gate_calibration": 1,
        "gate_tolerance": 0.01,
        "gate_confidence": 0.95,
    }


def test_every_step_mounts_the_volume_and_refers_to_the_password(documents):
    for task in "start", "trainer", "verdict", "run-report":
        config = of_kubernetes(documents, task)
        [mount] = config.pvc_mount
        assert (mount.constant, mount.mount_path) == ("vitpipe", "/vitpipe")
        [secret] = config.secret_as_env
        [key] = secret.key_to_env
        assert (secret.secret_name, key.secret_key, key.env_var) == (
            "vitpipe-metadata",
            "password",
            "VITPIPE_METADATA__PASSWORD",
        )
        assert config.pod_metadata.labels == {"app.kubernetes.io/part-of": "vitpipe"}


def test_only_the_trainer_has_a_gpu_and_the_gpu_image(spec, documents):
    trainer, evaluator = container(spec, "trainer"), container(spec, "evaluator")
    assert trainer["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"
    assert trainer["image"] == "registry.example/vitpipe-gpu:1"
    assert "accelerator" not in evaluator["resources"]
    assert evaluator["image"] == "registry.example/vitpipe:1"
    _, shared = of_kubernetes(documents, "trainer").empty_dir_mounts
    assert (shared.mount_path, shared.medium, shared.size_limit) == ("/dev/shm", "Memory", "2Gi")


def test_placement_comes_from_the_settings_of_a_step():
    text = package(
        settings(
            "kubeflow.step.memory=6Gi",
            "kubeflow.steps.Trainer.memory=24Gi",
            'kubeflow.steps.Trainer.node_selector={"cloud.google.com/gke-accelerator": nvidia-l4}',
            "kubeflow.steps.Trainer.tolerations=[{key: gpu, effect: NoSchedule}]",
            "kubeflow.steps.Transform.volumes={/scratch: fast-disk}",
            "kubeflow.steps.Transform.secrets={TOKEN: hub/token}",
            "kubeflow.image_pull_secrets=[registry]",
            'kubeflow.pod_annotations={"gke-gcsfuse/volumes": "true"}',
        )
    )
    documents = list(yaml.safe_load_all(text))
    spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    limits = {task: container(spec, task)["resources"]["memoryLimit"] for task in ("trainer", "evaluator")}
    assert limits == {"trainer": pytest.approx(24 * 1.073741824), "evaluator": pytest.approx(6 * 1.073741824)}
    trainer, transform = of_kubernetes(documents, "trainer"), of_kubernetes(documents, "transform")
    assert trainer.node_selector.labels == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    [toleration] = trainer.tolerations
    assert (toleration.key, toleration.operator, toleration.effect) == ("gpu", "Exists", "NoSchedule")
    assert [(one.constant, one.mount_path) for one in transform.pvc_mount][1:] == [("fast-disk", "/scratch")]
    assert {one.secret_name for one in transform.secret_as_env} == {"vitpipe-metadata", "hub"}
    assert not transform.tolerations
    for config in trainer, transform:
        assert [one.secret_name for one in config.image_pull_secret] == ["registry"]
        assert config.pod_metadata.annotations == {"gke-gcsfuse/volumes": "true"}


def test_a_trainer_with_workers_leaves_them_its_image_and_resources():
    documents = list(yaml.safe_load_all(package(settings("training.workers=2"))))
    spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    trainer = container(spec, "trainer")
    assert trainer["image"] == "registry.example/vitpipe:1" and "accelerator" not in trainer["resources"]
    [argument] = [one for one in trainer["args"] if one.startswith("--workers=")]
    [worker] = json.loads(argument.removeprefix("--workers="))["spec"]["containers"]
    assert worker["image"] == "registry.example/vitpipe-gpu:1"
    assert worker["resources"]["limits"]["nvidia.com/gpu"] == "1"
    fields = {one.name: one.field_path for one in of_kubernetes(documents, "trainer").field_path_as_env}
    assert fields == {POD: "metadata.name", UID: "metadata.uid", NAMESPACE: "metadata.namespace"}
    assert "field_path_as_env" not in str(of_kubernetes(documents, "evaluator"))


def test_a_tuning_has_the_resources_of_the_trainer_in_place_of_a_training():
    documents = list(yaml.safe_load_all(package(settings(), tune=True)))
    spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
    tasks = spec.components["comp-exit-handler-1"].dag.tasks
    assert "tuner" in tasks and not tasks.keys() & {"trainer", "evaluator", "serving-check", "pusher"}
    assert list(tasks[task_name(VERDICT)].dependent_tasks) == ["tuner"]
    assert container(spec, "start")["args"][-1] == "--tune"
    tuner = container(spec, "tuner")
    assert tuner["image"] == "registry.example/vitpipe-gpu:1"
    assert tuner["resources"]["accelerator"]["resourceType"] == "nvidia.com/gpu"


def test_the_package_carries_the_engine():
    engine = ["beam.runner=flink", "beam.job_service=flink:8099", "beam.worker_pool=127.0.0.1:50000"]
    documents = yaml.safe_load_all(package(settings(*engine)))
    start = container(json_format.ParseDict(next(documents), pipeline_spec_pb2.PipelineSpec()), "start")
    (text,) = [word.partition("=")[2] for word in start["args"] if word.startswith("--settings=")]
    assert resolve_settings(text, NEWEST, {}).beam == settings(*engine).beam


def test_a_tuned_training_looks_for_the_tuning_on_the_cluster():
    [document, _] = yaml.safe_load_all(package(settings("training.tuned=true")))
    spec = json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
    tasks = spec.components["comp-exit-handler-1"].dag.tasks
    assert "newest-tuning" in tasks["trainer"].dependent_tasks


def test_the_package_contains_no_secret(compiled):
    assert STORE_PASSWORD not in compiled


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("data.dir=s3://bucket/data", "data.dir s3:/bucket/data: TensorFlow 2.21 reads local paths and gs://"),
        ("runs=gs://bucket/runs", "Mount the bucket as the claim"),
        ("runs=/home/me/runs", "runs /home/me/runs is outside kubeflow.mount, /vitpipe"),
        ("kubeflow.image=''", "kubeflow.image is not set, but Start runs in this image"),
        ("kubeflow.gpu_image=''", "kubeflow.gpu_image is not set, but Trainer runs in this image"),
        ("runs=../runs", "runs ../runs is outside kubeflow.mount, /vitpipe"),
        ("finetune.source=/home/me/vit.keras", "finetune.source /home/me/vit.keras is outside kubeflow.mount"),
        ("kubeflow.steps.Transform.volumes={/scratch: vitpipe}", "a step can mount a claim only once"),
        ("kubeflow.steps.Trainer.gpus=0", "training.require_gpu is true"),
        ("kubeflow.steps.Trianer.gpus=1", "did you mean Trainer?"),
        ("kubeflow.metadata=/vitpipe/metadata.db", "write mysql://USER@HOST"),
    ],
)
def test_settings_that_cannot_work_on_a_cluster_are_rejected(flag, message):
    with pytest.raises(SettingsError, match=re.escape(message)):
        package(settings(flag))


def test_a_password_in_the_address_is_rejected_and_not_printed():
    with pytest.raises(SettingsError, match="a password does not belong there") as refused:
        package(settings("kubeflow.metadata=mysql://vitpipe:s3cret@host/db"))
    assert "s3cret" not in str(refused.value)
