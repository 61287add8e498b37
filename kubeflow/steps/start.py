"""`python -m kubeflow.steps.start`: start a run. This is the first step of a run on a cluster.

It chooses the span once for all steps, rejects a second run of the same pipeline, registers the run in ML Metadata, and
writes its graph beside its logs, where the other steps find it.
"""

import json
import os
from collections.abc import Collection, Mapping
from types import MappingProxyType

import requests
from pydantic import ValidationError

from components.errors import AnotherRun, DataRefused, EngineError, Exit, StoreError, UsageError
from components.model.evaluator.judgement import GateSettings
from kubeflow.steps import step
from pipeline import provenance, run_facts
from pipeline.beam import check_job_service
from pipeline.console.logs import redirected
from pipeline.metadata.address import PASSWORD, check_server
from pipeline.metadata.reader import reader
from pipeline.result.run_result import EXIT, TAKEN_OVER, current_settings
from pipeline.run import node_names, plan, record_start
from pipeline.run_lock import lock_run_folder, running_on_cluster
from pipeline.settings import Settings, settings_error

NEWEST = -1  # the span number that stands for the newest, because a parameter of Kubeflow cannot be null


def main() -> None:
    """Run the step."""
    parser = step.parser(__doc__)
    parser.add_argument("--settings", required=True, help="all settings as JSON, without secrets")
    parser.add_argument("--span", type=int, default=NEWEST, help=f"span to train on; {NEWEST} for the newest")
    for name in GateSettings.model_fields:
        parser.add_argument(f"--gate-{name.replace('_', '-')}", type=float, help=f"overrides the setting gate.{name}")
    parser.add_argument("--nodes", required=True, help="ids of the compiled graph's nodes, separated by commas")
    parser.add_argument("--trigger", choices=run_facts.TRIGGERS, default="manual", help="what started the run")
    parser.add_argument("--reason", default="", help="why the run was started")
    parser.add_argument("--accept", default="", help="checks of the data gate that do not stop the run, with commas")
    parser.add_argument("--due", default="", help="time at which a schedule had to start the run")
    parser.add_argument("--take-over", default="", help="id of a run that is recorded as running but has ended")
    parser.add_argument("--tune", action="store_true", help="search for better settings, in place of a training")
    parser.add_argument("--api", default="", help="address of Kubeflow Pipelines' REST API, to look up other runs")
    arguments = step.parse(parser)
    overrides = {name: getattr(arguments, f"gate_{name}") for name in GateSettings.model_fields}
    gate = {name: value for name, value in overrides.items() if value is not None}
    reason = arguments.reason
    # Kubeflow Pipelines before 2.16 does not replace the placeholder of the time.
    if arguments.trigger == "schedule" and not reason and not arguments.due.startswith("{{"):
        reason = f"due {arguments.due}"
    try:
        settings = resolve_settings(arguments.settings, arguments.span, gate)
        accepted = run_facts.accepted_checks(
            [name.strip() for name in arguments.accept.split(",") if name.strip()], reason
        )
        span = begin(
            settings,
            arguments.run_id,
            nodes=arguments.nodes.split(","),
            trigger=arguments.trigger,
            reason=reason,
            accepted=accepted,
            take_over=arguments.take_over,
            api=arguments.api,
            tune=arguments.tune,
        )
    except UsageError as error:
        step.end(Exit.USAGE, str(error))
    except DataRefused as error:
        step.end(Exit.DATA_REFUSED, str(error))
    except (StoreError, EngineError) as error:
        step.end(Exit.CRASHED, str(error))
    logs = run_facts.logs_folder(settings, arguments.run_id)
    step.end(
        Exit.OK, f"logs in {logs}", f"run {arguments.run_id} of {settings.name}: span {span} of {settings.data.dir}"
    )


def resolve_settings(text: str, span: int, gate: Mapping[str, float]) -> Settings:
    """Return the compiled settings with the parameters of this run, and the password from the environment.

    Args:
        text: the compiled settings, as JSON.
        span: the span to train on; `NEWEST` keeps the compiled value.
        gate: settings of the model gate that the run overrides.

    Raises:
        SettingsError: if a value is out of its bounds.
    """
    settings = current_settings(json.loads(text))
    if span != NEWEST:
        settings["data"]["span"] = span
    settings["gate"].update(gate)
    settings["metadata"]["password"] = os.environ.get(PASSWORD, "")
    try:
        return Settings.model_validate(settings)
    except ValidationError as error:
        raise settings_error(error) from None


def begin(
    settings: Settings,
    run_id: str,
    *,
    nodes: Collection[str],
    trigger: str = "manual",
    reason: str = "",
    accepted: Mapping[str, str] = MappingProxyType({}),
    take_over: str = "",
    api: str = "",
    tune: bool = False,
) -> int:
    """Register a run and write its graph. A second call for the same run changes nothing.

    Args:
        settings: the settings of the run.
        run_id: the id of the run.
        nodes: the nodes for which the cluster has a task.
        trigger: what started the run, one of `run_facts.TRIGGERS`.
        reason: why the run was started.
        accepted: the checks of the data gate that do not stop the run, each with the reason.
        take_over: the id of a run that is recorded as running, but has ended.
        api: the address of Kubeflow Pipelines, where the states of other runs are looked up.
        tune: search for better settings, in place of a training.

    Returns:
        The span that the run trains on.

    Raises:
        AnotherRun: if another run of the pipeline is running.
        UsageError: if `nodes` are not those of the graph.
        SettingsError: if the span does not exist, or the run folder belongs to another store of ML Metadata.
        DataRefused: if the span is damaged.
        StoreError: if the store cannot be reached.
        EngineError: if the job service of `beam.runner` does not answer.
    """
    logs = run_facts.logs_folder(settings, run_id)
    address = settings.store
    check_server(address)
    check_job_service(settings.beam)
    planned = plan(settings, accepted=accepted, log=logs / "startup.log", tune=tune)
    with lock_run_folder(settings):
        logs.mkdir(parents=True, exist_ok=True)
        with redirected(logs / "startup.log"):
            from ml_metadata import MetadataStore

            from pipeline.metadata.writer import record
            from pipeline.registration import register

            graph = planned.graph()
            here = {*node_names(graph)}
            if here != {*nodes}:
                raise UsageError(
                    "the package has tasks for other nodes than the graph of this image "
                    f"({provenance.code_version()}): "
                    f"they differ in {', '.join(sorted(here ^ {*nodes}))}. Compile it with the version of the image"
                )
            connection = address.connection_config()
            store = MetadataStore(connection)  # creates the tables of a new store
            with reader(address) as read:
                others = [name for name in running_on_cluster(read, settings.name) if name != run_id]
            for other in others:
                if other != take_over and not _has_ended(api, other):
                    raise AnotherRun(
                        f"run {other} of {settings.name} is running: wait for it to end. If it has ended, start this "
                        f"run again with take_over={other}"
                    )
                record(store, other, **{EXIT: str(int(Exit.CRASHED)), TAKEN_OVER: run_id})
            process = json.dumps({"kubeflow": run_id})
            facts = record_start(planned, run_id, trigger=trigger, reason=reason, process=process)
            register(graph, run_id, facts, connection)
            step.write_graph(graph, logs)
    return planned.span


def _has_ended(api: str, run_id: str) -> bool:
    """Return whether a run has ended or was deleted, as far as Kubeflow Pipelines answers.

    A terminated or deleted run never reached its last step, so ML Metadata does not know its end.
    """
    try:
        answer = requests.get(f"{api}/apis/v2beta1/runs/{run_id}", timeout=10)
        if answer.status_code == requests.codes.not_found:
            return True
        return answer.status_code == requests.codes.ok and answer.json().get("state") in step.ENDED
    except (requests.RequestException, ValueError):
        return False


if __name__ == "__main__":
    main()
