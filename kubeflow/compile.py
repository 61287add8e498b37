"""The graph as a package for Kubeflow Pipelines 2.14 or newer: one task a node, with TFX's own launcher in each.

The cluster only schedules. Drivers, resolvers, the cache and the conditions are TFX's, as on one machine, so nothing of
the graph is translated but its edges. (TFX's own KubeflowV2DagRunner writes what only Vertex AI runs.)
"""

import inspect
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any

from kfp import compiler, dsl, kubernetes
from kfp.dsl.base_component import BaseComponent
from kfp.dsl.pipeline_task import PipelineTask

from components.errors import SettingsError, StoreError
from components.model.evaluator.judgement import GateSettings
from components.suggestions import did_you_mean
from kubeflow.steps.start import NEWEST
from pipeline.metadata.address import PASSWORD, Address
from pipeline.outcome import REPORT
from pipeline.settings import MetadataSettings, Settings
from pipeline.settings.cluster import StepSettings

START, VERDICT = "Start", "Verdict"  # the steps that are no nodes of the graph
_SOON = 5  # seconds
_LABEL = "app.kubernetes.io/part-of", "vitpipe"  # of every pod: what the network policies go by
# What Kubeflow's SDK calls the longest back-off, Argo takes for the time after which a task that once failed is over,
# however many attempts it has left. The SDK allows an hour at most, and a training may last for days.
_DEADLINE, _NO_DEADLINE = "backoffMaxDuration: 3600s", f"backoffMaxDuration: {30 * 24 * 3600}s"
_PARAMETERS = {
    "span": "Span of the data to train on; -1 for the newest.",
    **{f"gate_{name}": f"The setting gate.{name}." for name in GateSettings.model_fields},
    "trigger": "What started the run: manual, schedule or span.",
    "reason": "Why, in words: kept in ML Metadata.",
    "accept": "Checks of the data gate that shall not stop the run, with commas; takes a reason.",
    "take_over": "A run of this pipeline that seems to go on and does not.",
}


def package(settings: Settings) -> str:
    """The compiled pipeline as two YAML documents, equal for equal settings and code. No secret is in it.

    Raises SettingsError for what cannot work on a cluster.
    """
    check(settings)
    edges = _edges(settings)
    _check_steps(settings, [START, *edges, VERDICT])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "package.yaml")
        compiler.Compiler().compile(_pipeline(settings, edges), str(file))
        return file.read_text("utf-8").replace(_DEADLINE, _NO_DEADLINE)


def task_name(step: str) -> str:
    """Of a step as the cluster has it: `ImportExampleGen` is `import-example-gen`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", step).lower()


def check(settings: Settings) -> None:
    """Raises SettingsError for what would fail on the cluster, or work there and not do what was meant."""
    cluster, mount = settings.kubeflow, PurePosixPath(settings.kubeflow.mount)
    paths = {"data.dir": settings.data.dir, "runs": settings.runs, "finetune.source": Path(settings.finetune.source)}
    for key, path in paths.items():
        scheme, cut, _ = str(path).partition(":/")
        if cut:
            raise SettingsError(f"{key} {path}: {_why_not(scheme)}")
        if ".." in path.parts or (path.is_absolute() and not PurePosixPath(path).is_relative_to(mount)):
            raise SettingsError(
                f"{key} {path}: the steps share what lies below kubeflow.mount, {mount}, and no other folder: move it "
                "there, or give a path that is relative to it"
            )
    try:
        if Address.parse(cluster.metadata, password="").file:
            raise StoreError("several machines write at the same time, and no SQLite file on a volume bears that")
    except StoreError as error:
        raise SettingsError(f"kubeflow.metadata: {error}; write mysql://USER@HOST[:PORT]/DATABASE") from None
    if settings.training.require_gpu and not cluster.step_of("Trainer").gpus:
        raise SettingsError(
            "training.require_gpu is true and kubeflow.steps.Trainer.gpus is 0: --set kubeflow.steps.Trainer.gpus=1, "
            "or --set training.require_gpu=false"
        )


def _check_steps(settings: Settings, steps: Sequence[str]) -> None:
    cluster = settings.kubeflow
    for name in cluster.steps:
        if name not in steps:
            raise SettingsError(
                f"kubeflow.steps.{name}: no such step; {did_you_mean(name, steps)}the steps are {', '.join(steps)}"
            )
    for name in steps:
        step = cluster.step_of(name)
        claims = [cluster.claim, *step.volumes.values()]
        if len({*claims}) < len(claims):  # Kubeflow names a volume of the pod after its claim
            raise SettingsError(
                f"kubeflow.steps.{name}.volumes: a claim can be mounted once in a step, and {', '.join(claims)} names "
                f"one twice ({cluster.claim} is at {cluster.mount} in every step)"
            )
        key = "kubeflow.gpu_image" if step.gpus else "kubeflow.image"
        if not _image(settings, step):
            raise SettingsError(
                f"{key} is not set, and {name} runs in it: build it as kubeflow/images/README.md says, push it to a "
                f"registry that the cluster reaches, and --set {key}=REGISTRY/NAME:TAG"
            )


def _why_not(scheme: str) -> str:
    if scheme == "gs":
        return (
            "a span and a pushed model appear whole by the rename of a folder, which no bucket alone has: mount "
            "it as the claim (kubeflow/manifests/gcs), and give a path that is relative to kubeflow.mount"
        )
    return (
        f"TensorFlow 2.21 reads local paths and gs:// and not {scheme}://: use a ReadWriteMany volume, and a path that "
        "is relative to kubeflow.mount"
    )


def _edges(settings: Settings) -> dict[str, list[str]]:
    """The nodes before each node of the graph, in an order that it can run in."""
    from pipeline.graph import compile_graph

    # Which span it is decides nothing about the edges; a run asks for it when it starts.
    graph = compile_graph(settings, span=1)
    return {node.pipeline_node.node_info.id: list(node.pipeline_node.upstream_nodes) for node in graph.nodes}


def _pipeline(settings: Settings, edges: dict[str, list[str]]) -> BaseComponent:
    cluster = settings.kubeflow
    root, store = f"--root={cluster.mount}", str(Address.parse(cluster.metadata, password=""))
    in_run = [root, f"--folder={settings.runs / settings.name}", f"--store={store}"]
    resolved = settings.model_copy(update={"metadata": MetadataSettings(address=store)})
    text = resolved.model_dump_json(exclude={"metadata": {"password"}, "kubeflow": True})
    defaults = {
        "span": NEWEST,
        **{f"gate_{name}": value for name, value in settings.gate.model_dump().items()},
        "trigger": "manual",
        "reason": "",
        "accept": "",
        "take_over": "",
    }
    types = {name: type(value) for name, value in defaults.items()}
    before_another = {before for name in edges if name != REPORT for before in edges[name]}
    last = sorted(edges.keys() - before_another - {REPORT})

    def steps(*channels: Any) -> None:
        given = dict(zip(types, channels, strict=True))
        report = _report_task(settings, in_run)
        with dsl.ExitHandler(report, name="steps"):
            start = _task(
                settings,
                START,
                "kubeflow.steps.start",
                [root, f"--nodes={','.join(edges)}", f"--api={cluster.api}", f"--settings={text}"],
                {**types, "due": str},
                {**given, "due": dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER},
            )
            tasks: dict[str, PipelineTask] = {}
            for name in edges:
                if name != REPORT:
                    tasks[name] = _task(settings, name, "kubeflow.steps.node", [*in_run, name])
                    tasks[name].after(*[tasks[before] for before in edges[name]] or [start])
            _task(settings, VERDICT, "kubeflow.steps.verdict", in_run).after(*[tasks[name] for name in last])

    _declare(steps, types, defaults)
    steps.__doc__ = "\n".join(
        [
            "Trains a ViT, gates it and pushes it.",
            "",
            "Args:",
            *(f"    {name}: {text}" for name, text in _PARAMETERS.items()),
        ]
    )
    return dsl.pipeline(name=settings.name)(steps)


def _report_task(settings: Settings, arguments: list[str]) -> PipelineTask:
    """It shows the figures and the page of the report on the page of the run."""

    def command(run_id: str, metrics: dsl.Metrics, report: dsl.HTML) -> dsl.ContainerSpec:
        outputs = [f"--page={report.path}", f"--executor-input={dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER}"]
        return _container(settings, REPORT, "kubeflow.steps.report", [f"--run-id={run_id}", *arguments, *outputs])

    outputs = {"metrics": dsl.Output[dsl.Metrics], "report": dsl.Output[dsl.HTML]}
    return _configured(settings, REPORT, command, outputs, {})


def _task(
    settings: Settings,
    step: str,
    module: str,
    arguments: list[str],
    types: Mapping[str, Any] = MappingProxyType({}),
    given: Mapping[str, Any] = MappingProxyType({}),
) -> PipelineTask:
    """A step that is `python -m MODULE` with its inputs as flags."""

    def command(*inputs: Any) -> dsl.ContainerSpec:
        named = zip(["run_id", *types], inputs, strict=True)
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in named]
        return _container(settings, step, module, [*flags, *arguments])

    return _configured(settings, step, command, types, given)


def _container(settings: Settings, step: str, module: str, arguments: list[str]) -> dsl.ContainerSpec:
    image = _image(settings, settings.kubeflow.step_of(step))
    return dsl.ContainerSpec(image=image, command=["python", "-m", module], args=arguments)


def _configured(
    settings: Settings,
    step: str,
    command: Callable[..., dsl.ContainerSpec],
    types: Mapping[str, Any],
    given: Mapping[str, Any],
) -> PipelineTask:
    """The task of a step, with all that the cluster is to know of its container."""
    cluster, own = settings.kubeflow, settings.kubeflow.step_of(step)
    command.__name__ = task_name(step).replace("-", "_")  # names the component, and so the task
    _declare(command, {"run_id": str, **types})
    task = dsl.container_component(command)(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, **given)
    task.set_display_name(step)
    task.set_caching_options(False)  # TFX's cache knows the code and the data
    # The verdict fails where the run was stopped, and would again: it is tried once more for a pod that was lost.
    retries, seconds = (1, _SOON) if step == VERDICT else (cluster.retries, cluster.backoff_seconds)
    task.set_retry(retries, backoff_duration=f"{seconds}s", backoff_factor=2, backoff_max_duration="3600s")
    task.set_cpu_request(own.cpu).set_memory_request(own.memory).set_memory_limit(own.memory)
    if own.gpus:
        task.set_accelerator_type(own.gpu_type).set_accelerator_limit(own.gpus)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp")  # for who forbids containers to write to their root
    if own.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=own.shared_memory)
    for claim, folder in {cluster.claim: cluster.mount, **{name: at for at, name in own.volumes.items()}}.items():
        kubernetes.mount_pvc(task, claim, folder)
    for variable, secret_key in {PASSWORD: cluster.metadata_secret, **own.secrets}.items():
        secret, _, key = secret_key.partition("/")
        kubernetes.use_secret_as_env(task, secret, {key: variable})
    for label, value in own.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for one in own.tolerations:
        kubernetes.add_toleration(
            task, key=one.key or None, operator=one.operator, value=one.value or None, effect=one.effect or None
        )
    kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, cluster.image_pull_secrets)
    kubernetes.add_pod_label(task, *_LABEL)
    for name, value in cluster.pod_annotations.items():
        kubernetes.add_pod_annotation(task, name, value)
    return task


def _image(settings: Settings, step: StepSettings) -> str:
    return step.image or (settings.kubeflow.gpu_image if step.gpus else settings.kubeflow.image)


def _declare(
    function: Callable[..., Any], types: Mapping[str, Any], defaults: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Give a function the parameters that kfp is to read from it."""
    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=types[name]) for name in types
    ]
    if defaults:
        parameters = [one.replace(default=defaults[one.name]) for one in parameters]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # kfp reads it by `inspect`
