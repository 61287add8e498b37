"""`python -m kubeflow.steps.start`: the first step of a run on a cluster.

Chooses the span once for all steps, refuses a second run of the same pipeline, registers the run in ML Metadata and
writes its graph beside its logs, where the other steps find it.
"""

import json
import os
from collections.abc import Collection, Mapping
from types import MappingProxyType

import requests
from pydantic import ValidationError

from components.errors import AnotherRun, DataRefused, Exit, StoreError, UsageError
from components.model.evaluator.judgement import GateSettings
from kubeflow.steps import step
from pipeline import provenance, run_facts
from pipeline.console.logs import redirected
from pipeline.metadata.address import PASSWORD, check_server
from pipeline.metadata.reader import reader
from pipeline.result.run_result import EXIT, TAKEN_OVER, current_settings
from pipeline.run import node_names, plan, record_start
from pipeline.run_lock import lock_run_folder, running_on_cluster
from pipeline.settings import Settings, settings_error

NEWEST = -1  # as a span: a parameter of a pipeline on Kubeflow has no way to say "none"


def main() -> None:
    """Run the step."""
    parser = step.parser(__doc__)
    parser.add_argument("--settings", required=True, help="all of them as JSON, without a secret")
    parser.add_argument("--span", type=int, default=NEWEST, help=f"to train on; {NEWEST} for the newest")
    for name in GateSettings.model_fields:
        parser.add_argument(f"--gate-{name.replace('_', '-')}", type=float, help=f"instead of the setting gate.{name}")
    parser.add_argument("--nodes", required=True, help="of the graph as it was compiled, with commas")
    parser.add_argument("--trigger", choices=run_facts.TRIGGERS, default="manual")
    parser.add_argument("--reason", default="")
    parser.add_argument("--accept", default="", help="checks of the data gate that shall not stop it, with commas")
    parser.add_argument("--due", default="", help="when a schedule wanted the run")
    parser.add_argument("--take-over", default="", help="id of a run that is recorded as running but has ended")
    parser.add_argument("--api", default="", help="address of Kubeflow Pipelines' REST API, asked for other runs")
    arguments = step.parse(parser)
    given = {name: getattr(arguments, f"gate_{name}") for name in GateSettings.model_fields}
    gate = {name: value for name, value in given.items() if value is not None}
    reason = arguments.reason
    if arguments.trigger == "schedule" and not reason and not arguments.due.startswith("{{"):  # before KFP 2.16
        reason = f"due {arguments.due}"
    try:
        settings = settings_of(arguments.settings, arguments.span, gate)
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
        )
    except UsageError as error:
        step.end(Exit.USAGE, str(error))
    except DataRefused as error:
        step.end(Exit.DATA_REFUSED, str(error))
    except StoreError as error:
        step.end(Exit.CRASHED, str(error))
    logs = run_facts.logs_folder(settings, arguments.run_id)
    step.end(
        Exit.OK, f"logs in {logs}", f"run {arguments.run_id} of {settings.name}: span {span} of {settings.data.dir}"
    )


def settings_of(text: str, span: int, gate: Mapping[str, float]) -> Settings:
    """The settings as compiled, with what this run was started with, and the password from the environment.

    Raises SettingsError for a value out of its bounds.
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
) -> int:
    """Register the run and write its graph; its span. Once more does no harm.

    nodes: that the cluster has a task for. accepted: see `create_pipeline`. take_over: a run that does not go on,
    whatever it seems. api: of Kubeflow Pipelines, to ask what became of another run.
    Raises AnotherRun while another run of the pipeline is running, UsageError for other nodes, StoreError where ML
    Metadata is away, and what `run_facts.choose_span` raises.
    """
    logs = run_facts.logs_folder(settings, run_id)
    address = settings.store
    check_server(address)
    planned = plan(settings, accepted=accepted, log=logs / "startup.log")
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
            store = MetadataStore(connection)  # makes the tables
            with reader(address) as read:
                others = [name for name in running_on_cluster(read, settings.name) if name != run_id]
            for other in others:
                if other != take_over and not _has_ended(api, other):
                    raise AnotherRun(
                        f"run {other} of {settings.name} is running: wait for it. If it is not, start this one again "
                        f"with take_over={other}"
                    )
                record(store, other, **{EXIT: str(int(Exit.CRASHED)), TAKEN_OVER: run_id})
            process = json.dumps({"kubeflow": run_id})
            facts = record_start(planned, run_id, trigger=trigger, reason=reason, process=process)
            register(graph, run_id, facts, connection)
            step.write_graph(graph, logs)
    return planned.span


def _has_ended(api: str, run_id: str) -> bool:
    """Whether Kubeflow Pipelines says so, or knows no such run. A run that was deleted had no last step."""
    try:
        answer = requests.get(f"{api}/apis/v2beta1/runs/{run_id}", timeout=10)
        if answer.status_code == requests.codes.not_found:
            return True
        return answer.status_code == requests.codes.ok and answer.json().get("state") in step.ENDED
    except (requests.RequestException, ValueError):
        return False


if __name__ == "__main__":
    main()
