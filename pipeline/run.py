"""One run of the whole graph: check it, execute it and read its result."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from components.data import ingest
from components.data.ingest import manifest
from components.errors import SettingsError, StoreError, UsageError
from pipeline import run_facts
from pipeline.beam import check_job_service
from pipeline.console.display import Display
from pipeline.console.logs import display_path, own_stderr, redirected
from pipeline.error_messages import explain_error
from pipeline.metadata.address import check_server
from pipeline.metadata.reader import reader
from pipeline.metadata.stores import check_store
from pipeline.pushed_models import record_pushes
from pipeline.result.run_result import EXIT, KIND, TUNING, WARNING, RunResult, this_process
from pipeline.result.verdict import verdict
from pipeline.run_lock import lock_for_run
from pipeline.settings import Settings
from pipeline.tuned import settings_to_tune, tuned_settings
from pipeline.warm_start import plan as warm_start_plan
from trainer.warm_start import WarmStart

if TYPE_CHECKING:
    from tfx.proto.orchestration import pipeline_pb2


@dataclass(frozen=True)
class Plan:
    """A run that has been checked against its data and models, but not started."""

    settings: Settings  # the settings; those of a fine-tuning have the sizes of its backbone
    span: int  # the span to train on
    accepted: Mapping[str, str]  # checks of the data gate that do not stop the run, each with the reason
    warm_start: WarmStart | None  # weights and classes that the training takes over from the serving model
    tune: bool = False  # the run searches for better settings, and trains no model to push

    def graph(self, force: Collection[str] = ()) -> pipeline_pb2.Pipeline:
        """Return the compiled graph. Imports TFX.

        Args:
            force: ids of nodes that run even if their outputs are cached.

        Raises:
            UsageError: if the graph lacks a node of `force`.
        """
        from pipeline.graph import compile_graph

        graph = compile_graph(self.settings, self.span, uncached=[*force], accepted=self.accepted, tune=self.tune)
        names = node_names(graph)
        for name in {*force} - {*names}:
            raise UsageError(f"--force {name}: no such node; the graph has {', '.join(names)}")
        return graph


def node_names(graph: pipeline_pb2.Pipeline) -> list[str]:
    """Return the ids of the nodes of a compiled graph, in the order in which they run."""
    return [node.pipeline_node.node_info.id for node in graph.nodes]


def plan(
    settings: Settings,
    *,
    accepted: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    log: Path = Path(os.devnull),
    tune: bool = False,
) -> Plan:
    """Check everything that a run needs, before anything is computed.

    Args:
        settings: the settings of the run.
        accepted: checks of the data gate that do not stop the run, each with the reason, from
            `run_facts.accepted_checks`.
        overrides: the settings `a.b=c` that a user gave for this run. An override without effect in a fine-tuning is
            an error, whereas such a setting in a preset is ignored.
        log: the file to which output of libraries is appended.
        tune: search for better settings, in place of training and testing a model.

    Returns:
        The checked run. The settings of a fine-tuning have the sizes of its backbone, and those of a training with
        `training.tuned` the values of the newest tuning.

    Raises:
        SettingsError: if the span is missing, a setting has no effect, the backbone or warm start does not fit, or
            there is nothing to search or no tuning.
        DataRefused: if the span or a model is damaged.
    """
    if tune:
        settings = settings_to_tune(settings)
    elif settings.training.tuned:
        settings = tuned_settings(settings)
    span = run_facts.choose_span(settings)
    warm_start = warm_start_plan(settings, span)
    if settings.finetune.source:
        with redirected(log):
            from pipeline.backbone import check_classes, fit_to_backbone

            settings = fit_to_backbone(settings, overrides)
            if not settings.finetune.trains:
                check_classes(settings, manifest.read(ingest.span_folder(settings.data.dir, span)).class_names)
    else:
        for flag in overrides:
            if flag.startswith("finetune.") and not flag.startswith("finetune.source="):
                raise SettingsError(f"--set {flag}: it has no effect without finetune.source; set that to a backbone")
    return Plan(settings, span, accepted or {}, warm_start, tune)


def record_start(
    planned: Plan, run_id: str, *, trigger: str, reason: str, process: str, warning: str = ""
) -> dict[str, str]:
    """Write the facts of a run to a file beside its logs, and return them for ML Metadata.

    Also records the pushes of earlier runs that were killed before they could record them.

    Args:
        planned: the run.
        run_id: its id.
        trigger: what started it, one of `run_facts.TRIGGERS`.
        reason: why it was started, in words.
        process: a record of the process that runs it, see `this_process`.
        warning: a problem that does not prevent the run; empty for none.

    Returns:
        The facts, by name.
    """
    settings = planned.settings
    facts = run_facts.facts(settings, planned.span, planned.accepted, trigger, reason, process)
    if planned.tune:
        facts[KIND] = TUNING
    if warning:
        facts[WARNING] = warning
    run_facts.write_facts(run_facts.logs_folder(settings, run_id), facts)
    record_pushes(settings.store, settings.folder / "serving")
    return facts


def run(
    settings: Settings,
    *,
    accept: Sequence[str] = (),
    reason: str = "",
    force: Collection[str] = (),
    trigger: Literal["manual", "span", "drift", "schedule"] = "manual",
    overrides: Sequence[str] = (),
) -> RunResult:
    """Train, check and push a model on this machine, with progress on standard error.

    A run that a gate stops raises no error: the result says which gate stopped it and why.

    Args:
        settings: the settings of the run, from `load`.
        accept: checks of the data gate that do not stop this run.
        reason: why these checks are accepted, or why the run was started; recorded in ML Metadata.
        force: ids of nodes that run even if their outputs are cached. A forced `Trainer` trains from the first epoch.
        trigger: what started the run.
        overrides: the settings `a.b=c` that a user gave for this run, see `plan`.

    Returns:
        The outcome of the run.

    Raises:
        SettingsError: if a setting is wrong, or a GPU is required and missing.
        UsageError: if a check of `accept` or a node of `force` does not exist.
        AnotherRun: if another run of this pipeline is running, here or on a cluster.
        DataRefused: if the span or a model is damaged.
        StoreError: if ML Metadata or its disk cannot be used.
        EngineError: if the job service of `beam.runner` does not answer.
    """
    planned = plan(settings, accepted=run_facts.accepted_checks(accept, reason), overrides=overrides)
    return _locked_run(planned, force, trigger, reason)


def tune(
    settings: Settings,
    *,
    accept: Sequence[str] = (),
    reason: str = "",
    overrides: Sequence[str] = (),
) -> RunResult:
    """Search for better settings on this machine, with progress on standard error.

    The search space and the number of trials are in the group `tune`. An interrupted search continues. To train with
    the result, set `training.tuned`.

    Args:
        settings: the settings of the run, from `load`.
        accept: checks of the data gate that do not stop this run.
        reason: why these checks are accepted, or why the search was started; recorded in ML Metadata.
        overrides: the settings `a.b=c` that a user gave for this run, see `plan`.

    Returns:
        The outcome of the run, whose `tuning` is the result of the search.

    Raises:
        SettingsError: if a setting is wrong, there is nothing to search, or a GPU is required and missing.
        UsageError: if a check of `accept` does not exist.
        AnotherRun: if another run of this pipeline is running, here or on a cluster.
        DataRefused: if the span is damaged.
        StoreError: if ML Metadata or its disk cannot be used.
        EngineError: if the job service of `beam.runner` does not answer.
    """
    accepted = run_facts.accepted_checks(accept, reason)
    return _locked_run(plan(settings, accepted=accepted, overrides=overrides, tune=True), (), "manual", reason)


def _locked_run(planned: Plan, force: Collection[str], trigger: str, reason: str) -> RunResult:
    settings = planned.settings
    with lock_for_run(settings), own_stderr() as stderr:
        check_store(settings.store)
        try:
            return _run(planned, Display(stderr), force, trigger, reason)
        except Exception as error:
            if (text := explain_error(error, settings.folder)) is None:
                raise
            raise StoreError(text) from error


def _run(planned: Plan, display: Display, force: Collection[str], trigger: str, reason: str) -> RunResult:
    settings = planned.settings
    if planned.warm_start:
        display.line(str(planned.warm_start))
    check_server(settings.store)
    check_job_service(settings.beam)
    warning = run_facts.record_places(settings)
    display.line("starting TFX ...")
    startup_log = settings.folder / "logs" / "startup.log"
    with redirected(startup_log):
        import tensorflow as tf

        from pipeline.graph import checkpoints_folder
        from pipeline.local_runner import Runner
        from pipeline.metadata.writer import MetadataStore, record

        gpus = tf.config.list_physical_devices("GPU")
        graph = planned.graph(force)
    trains = not settings.finetune.source or settings.finetune.trains
    if settings.training.require_gpu and trains and not gpus:
        raise SettingsError(
            "training.require_gpu is true, but TensorFlow finds no GPU (see `vitpipe doctor`): run on a machine with a "
            "GPU, use the preset cifar10-cpu, or --set training.require_gpu=false"
        )
    if "Trainer" in force:
        shutil.rmtree(checkpoints_folder(settings), ignore_errors=True)
    run_id = run_facts.new_run_id()
    logs = run_facts.logs_folder(settings, run_id)
    logs.mkdir(parents=True)
    startup_log.rename(logs / "startup.log")
    facts = record_start(planned, run_id, trigger=trigger, reason=reason, process=this_process(), warning=warning)
    display.line(
        f"run {run_id} of {settings.name}: span {planned.span} of {settings.data.dir}, logs in {display_path(logs)}"
    )
    connection = settings.store.connection_config()
    with display:
        runner = Runner(
            run_id=run_id,
            connection=connection,
            logs=logs,
            facts=facts,
            started=display.started,
            ended=display.ended,
            attempts=settings.beam.attempts,
            repeated=display.line,
        )
        runner.run_with_ir(graph)
    with reader(settings.store) as store:
        ended = store.run(run_id)
    assert ended is not None  # the runner has recorded its facts
    code = str(int(verdict(RunResult(ended, runner.outcomes)).exit))
    record(MetadataStore(connection), run_id, **{EXIT: code})
    return RunResult(replace(ended, facts={**ended.facts, EXIT: code}), runner.outcomes)
