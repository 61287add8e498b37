"""Compilation of the graph to a package for Kubeflow Pipelines 2.14 or newer. Each node becomes one task.

Each task runs its node with TFX's launcher, so drivers, resolvers, cache and conditions are the same as on one machine.
The cluster only schedules the tasks: only the edges of the graph are translated. TFX's KubeflowV2DagRunner is not used,
because only Vertex AI can run its packages.
"""

import inspect
import json
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
from kubeflow.worker_pods import NAMESPACE, POD, UID, pod_template
from pipeline.drawing.graph_steps import STEPS
from pipeline.metadata.address import PASSWORD, Address
from pipeline.outcome import REPORT
from pipeline.settings import MetadataSettings, Settings
from pipeline.settings.beam import BeamSettings
from pipeline.settings.cluster import StepSettings
from pipeline.tuned import settings_to_tune

TRAINER = "Trainer"
START, VERDICT = "Start", "Verdict"  # steps that are not nodes of the graph
_VERDICT_BACKOFF = 5  # seconds
_LABEL = "app.kubernetes.io/part-of", "vitpipe"  # every pod has this label, by which network policies select pods
# Argo uses the value that Kubeflow's SDK calls the longest back-off as a deadline: a task that has failed once is not
# retried after it, even if it has attempts left. The SDK allows at most an hour, but a training may take days.
_DEADLINE, _NO_DEADLINE = "backoffMaxDuration: 3600s", f"backoffMaxDuration: {30 * 24 * 3600}s"
_PARAMETERS = {
    "span": "Span of the data to train on; -1 for the newest.",
    **{f"gate_{name}": f"The setting gate.{name}." for name in GateSettings.model_fields},
    "trigger": "What started the run: manual, schedule, span or drift.",
    "reason": "Why the run was started; recorded in ML Metadata.",
    "accept": "Checks of the data gate that do not stop the run, separated by commas; requires a reason.",
    "take_over": "Id of a run of this pipeline that is recorded as running, but has ended.",
}


def package(settings: Settings, tune: bool = False) -> str:
    """Compile the graph to a package: two YAML documents, equal for equal settings and code, without any secret.

    Args:
        settings: the settings of the run.
        tune: compile the graph of a tuning, in place of that of a training.

    Raises:
        SettingsError: if the settings cannot work on a cluster, or there is nothing to search.
    """
    if tune:
        settings = settings_to_tune(settings)
    check(settings, "Tuner" if tune else "Trainer")
    edges = _edges(settings, tune)
    _check_steps(settings, [START, *edges, VERDICT])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "package.yaml")
        compiler.Compiler().compile(_pipeline(settings, edges, tune), str(file))
        return file.read_text("utf-8").replace(_DEADLINE, _NO_DEADLINE)


def task_name(step: str) -> str:
    """Return the name of a step's task on the cluster: `import-example-gen` for `ImportExampleGen`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", step).lower()


def check(settings: Settings, training_step: str = "Trainer") -> None:
    """Check that the settings work on a cluster.

    Args:
        settings: the settings of the run.
        training_step: the step that trains.

    Raises:
        SettingsError: if a path is outside the shared volume, ML Metadata is not on a server, or the training requires
            a GPU that its step does not get.
    """
    cluster, mount = settings.kubeflow, PurePosixPath(settings.kubeflow.mount)
    paths = {"data.dir": settings.data.dir, "runs": settings.runs, "finetune.source": Path(settings.finetune.source)}
    for key, path in paths.items():
        scheme, cut, _ = str(path).partition(":/")
        if cut:
            raise SettingsError(f"{key} {path}: {_scheme_problem(scheme)}")
        if ".." in path.parts or (path.is_absolute() and not PurePosixPath(path).is_relative_to(mount)):
            raise SettingsError(
                f"{key} {path} is outside kubeflow.mount, {mount}, the only folder that the steps share. Move it "
                "there, and write a path relative to that folder"
            )
    try:
        if Address.parse(cluster.metadata, password="").file:
            raise StoreError("an SQLite file on a volume does not support several machines that write at the same time")
    except StoreError as error:
        raise SettingsError(f"kubeflow.metadata: {error}; write mysql://USER@HOST[:PORT]/DATABASE") from None
    if settings.training.require_gpu and not cluster.step_of(training_step).gpus:
        key = f"kubeflow.steps.{training_step}.gpus"
        raise SettingsError(
            f"training.require_gpu is true, but {key} is 0. Use --set {key}=1 or --set training.require_gpu=false"
        )


def _check_steps(settings: Settings, steps: Sequence[str]) -> None:
    cluster = settings.kubeflow
    for name in cluster.steps:
        if name not in (*steps, *STEPS):  # the settings may name steps of the other graph, of a training or a tuning
            raise SettingsError(
                f"kubeflow.steps.{name} is not a step: {did_you_mean(name, steps)}the steps are {', '.join(steps)}"
            )
    for name in steps:
        step = cluster.step_of(name)
        claims = [cluster.claim, *step.volumes.values()]
        if len({*claims}) < len(claims):  # Kubeflow names each volume of a pod after its claim
            raise SettingsError(
                f"kubeflow.steps.{name}.volumes: {', '.join(claims)} contains a claim twice, but a step can mount a "
                f"claim only once ({cluster.claim} is mounted at {cluster.mount} in every step)"
            )
        key = "kubeflow.gpu_image" if step.gpus else "kubeflow.image"
        if not _image(settings, step):
            raise SettingsError(
                f"{key} is not set, but {name} runs in this image. Build it as described in kubeflow/images/README.md, "
                f"push it to a registry that the cluster can reach, and use --set {key}=REGISTRY/NAME:TAG"
            )


def _scheme_problem(scheme: str) -> str:
    if scheme == "gs":
        return (
            "spans and pushed models are published by renaming a folder, which a bucket alone does not support. Mount "
            "the bucket as the claim (kubeflow/manifests/gcs), and write a path relative to kubeflow.mount"
        )
    return (
        f"TensorFlow 2.21 reads local paths and gs://, but not {scheme}://. Use a ReadWriteMany volume, and write a "
        "path relative to kubeflow.mount"
    )


def _edges(settings: Settings, tune: bool) -> dict[str, list[str]]:
    """Return the direct predecessors of each node. The nodes are in an order in which they can run."""
    from pipeline.graph import compile_graph

    # The edges do not depend on the span, which a run chooses when it starts.
    graph = compile_graph(settings, span=1, tune=tune)
    return {node.pipeline_node.node_info.id: list(node.pipeline_node.upstream_nodes) for node in graph.nodes}


def _pipeline(settings: Settings, edges: dict[str, list[str]], tune: bool) -> BaseComponent:
    cluster = settings.kubeflow
    root, store = f"--root={cluster.mount}", str(Address.parse(cluster.metadata, password=""))
    in_run = [root, f"--folder={settings.runs / settings.name}", f"--store={store}"]
    resolved = settings.model_copy(update={"metadata": MetadataSettings(address=store)})
    # Without an engine, the package stays the one of versions that had no such setting.
    without = {"beam": True} if settings.beam == BeamSettings() else {}
    text = resolved.model_dump_json(
        exclude={"metadata": {"password"}, "monitor": {"webhook"}, "kubeflow": True, **without}
    )
    defaults = {
        "span": NEWEST,
        **{f"gate_{name}": value for name, value in settings.gate.model_dump().items()},
        "trigger": "manual",
        "reason": "",
        "accept": "",
        "take_over": "",
    }
    types = {name: type(value) for name, value in defaults.items()}
    with_successor = {before for name in edges if name != REPORT for before in edges[name]}
    last = sorted(edges.keys() - with_successor - {REPORT})

    def steps(*channels: object) -> None:
        parameters = dict(zip(types, channels, strict=True))
        memory = {name: settings.kubeflow.step_of(name).memory for name in edges}
        report = _report_task(settings, [*in_run, f"--memory={json.dumps(memory)}"])
        with dsl.ExitHandler(report, name="steps"):
            start = _task(
                settings,
                START,
                "kubeflow.steps.start",
                [
                    root,
                    f"--nodes={','.join(edges)}",
                    f"--api={cluster.api}",
                    f"--settings={text}",
                    *(["--tune"] if tune else []),
                ],
                {**types, "due": str},
                {**parameters, "due": dsl.PIPELINE_JOB_SCHEDULE_TIME_UTC_PLACEHOLDER},
            )
            tasks: dict[str, PipelineTask] = {}
            for name in edges:
                if name != REPORT:
                    tasks[name] = _task(
                        settings, name, "kubeflow.steps.node", [*in_run, *_workers(settings, name), name]
                    )
                    tasks[name].after(*[tasks[before] for before in edges[name]] or [start])
            _task(settings, VERDICT, "kubeflow.steps.verdict", in_run).after(*[tasks[name] for name in last])

    _declare(steps, types, defaults)
    steps.__doc__ = "\n".join(
        [
            "Check the data, and search for better settings."
            if tune
            else "Check the data, train a ViT, check the model and push it.",
            "",
            "Args:",
            *(f"    {name}: {text}" for name, text in _PARAMETERS.items()),
        ]
    )
    return dsl.pipeline(name=settings.name)(steps)


def _report_task(settings: Settings, arguments: list[str]) -> PipelineTask:
    """Return the task of the report. Its outputs let Kubeflow show the report and its figures on the run's page."""

    def command(run_id: str, metrics: dsl.Metrics, report: dsl.HTML) -> dsl.ContainerSpec:
        outputs = [f"--page={report.path}", f"--executor-input={dsl.PIPELINE_TASK_EXECUTOR_INPUT_PLACEHOLDER}"]
        return _container(settings, REPORT, "kubeflow.steps.report", [f"--run-id={run_id}", *arguments, *outputs])

    outputs = {"metrics": dsl.Output[dsl.Metrics], "report": dsl.Output[dsl.HTML]}
    return _configure_task(settings, REPORT, command, outputs, {})


def _task(
    settings: Settings,
    step: str,
    module: str,
    arguments: list[str],
    types: Mapping[str, Any] = MappingProxyType({}),
    inputs: Mapping[str, Any] = MappingProxyType({}),
) -> PipelineTask:
    """Return the task of a step that runs `python -m MODULE`.

    Args:
        settings: the settings of the run.
        step: the name of the step.
        module: the module.
        arguments: its arguments.
        types: the types of the task's inputs, by name. Each input becomes one more argument.
        inputs: the values of these inputs.
    """

    def command(*values: object) -> dsl.ContainerSpec:
        flags = [f"--{name.replace('_', '-')}={value}" for name, value in zip(["run_id", *types], values, strict=True)]
        return _container(settings, step, module, [*flags, *arguments])

    return _configure_task(settings, step, command, types, inputs)


def _workers(settings: Settings, step: str) -> list[str]:
    """Return the argument by which the Trainer starts its workers in pods of their own, if it has several."""
    if not _starts_workers(settings, step):
        return []
    template = pod_template(settings, _image(settings, settings.kubeflow.step_of(TRAINER)))
    return [f"--workers={json.dumps(template)}"]


def _starts_workers(settings: Settings, step: str) -> bool:
    return step == TRAINER and settings.training.workers > 1


def _step_settings(settings: Settings, step: str) -> StepSettings:
    """Return the settings of a step's container. A Trainer that only starts workers leaves them its own."""
    cluster = settings.kubeflow
    return cluster.step if _starts_workers(settings, step) else cluster.step_of(step)


def _container(settings: Settings, step: str, module: str, arguments: list[str]) -> dsl.ContainerSpec:
    image = _image(settings, _step_settings(settings, step))
    return dsl.ContainerSpec(image=image, command=["python", "-m", module], args=arguments)


def _configure_task(
    settings: Settings,
    step: str,
    command: Callable[..., dsl.ContainerSpec],
    types: Mapping[str, Any],
    inputs: Mapping[str, Any],
) -> PipelineTask:
    """Return the task of a step, with resources, volumes, secrets and placement from the settings.

    Args:
        settings: the settings of the run.
        step: the name of the step.
        command: returns the container for the values of the inputs.
        types: the types of the inputs, by name, in the order of the command's arguments.
        inputs: the values of the inputs.
    """
    cluster, own = settings.kubeflow, _step_settings(settings, step)
    command.__name__ = task_name(step).replace("-", "_")  # kfp names the component and the task after it
    _declare(command, {"run_id": str, **types})
    task = dsl.container_component(command)(run_id=dsl.PIPELINE_JOB_ID_PLACEHOLDER, **inputs)
    task.set_display_name(step)
    task.set_caching_options(False)  # TFX has a cache of its own, whose keys include code and data
    # If a gate stopped the run, the verdict fails on every attempt. One retry is enough for a pod that was lost.
    retries, seconds = (1, _VERDICT_BACKOFF) if step == VERDICT else (cluster.retries, cluster.backoff_seconds)
    task.set_retry(retries, backoff_duration=f"{seconds}s", backoff_factor=2, backoff_max_duration="3600s")
    task.set_cpu_request(own.cpu).set_memory_request(own.memory).set_memory_limit(own.memory)
    if own.gpus:
        task.set_accelerator_type(own.gpu_type).set_accelerator_limit(own.gpus)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp")  # needed if a policy makes the containers' root read-only
    if own.shared_memory:
        kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=own.shared_memory)
    for claim, folder in {cluster.claim: cluster.mount, **{name: at for at, name in own.volumes.items()}}.items():
        kubernetes.mount_pvc(task, claim, folder)
    for variable, secret_key in {PASSWORD: cluster.metadata_secret, **own.secrets}.items():
        secret, _, key = secret_key.partition("/")
        kubernetes.use_secret_as_env(task, secret, {key: variable})
    if _starts_workers(settings, step):
        for variable, field in {POD: "metadata.name", UID: "metadata.uid", NAMESPACE: "metadata.namespace"}.items():
            kubernetes.use_field_path_as_env(task, variable, field)
    for label, value in own.node_selector.items():
        kubernetes.add_node_selector(task, label, value)
    for toleration in own.tolerations:
        kubernetes.add_toleration(
            task,
            key=toleration.key or None,
            operator=toleration.operator,
            value=toleration.value or None,
            effect=toleration.effect or None,
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
    """Set the signature of a function, from which kfp reads the inputs of a component.

    Args:
        function: the function to change.
        types: the types of the parameters, by name.
        defaults: the default values of all parameters; empty if they have none.
    """
    parameters = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=types[name]) for name in types
    ]
    if defaults:
        parameters = [parameter.replace(default=defaults[parameter.name]) for parameter in parameters]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined] # read by `inspect`
