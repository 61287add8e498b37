"""`python -m kubeflow.start`: the first step of a run on a cluster.

Chooses the span once for all steps, refuses a second run of the same pipeline, registers the run in ML Metadata and
writes its graph beside its logs, where the other steps find it.
"""

import json
import os
from collections.abc import Mapping
from types import MappingProxyType

import requests
from pydantic import SecretStr

from components.gate import GateSettings
from components.ingest import DataRefused, UsageError
from kubeflow import step
from pipeline import start
from pipeline.config import DataSettings, MetadataSettings, Settings, SettingsError
from pipeline.exits import Exit
from pipeline.logs import redirected
from pipeline.metadata import summary
from pipeline.metadata.address import PASSWORD, StoreError, check_server
from pipeline.metadata.reader import reader

NEWEST = -1  # as a span: a parameter of a pipeline on Kubeflow has no way to say "none"
TAKEN_OVER = "taken_over_by"  # fact of a run that was found dead when the next one started
_ENDED = {"SUCCEEDED", "FAILED", "CANCELED", "SKIPPED"}  # states of a run, of Kubeflow Pipelines' REST API


def main() -> None:
    """Run the step."""
    parser = step.parser(__doc__)
    parser.add_argument("--settings", required=True, help="all of them as JSON, without a secret")
    parser.add_argument("--span", type=int, default=NEWEST, help=f"to train on; {NEWEST} for the newest")
    for name in GateSettings.model_fields:
        parser.add_argument(f"--gate-{name.replace('_', '-')}", type=float, help=f"instead of the setting gate.{name}")
    parser.add_argument("--trigger", default="manual")
    parser.add_argument("--reason", default="")
    parser.add_argument("--accept", default="", help="checks of the data gate that shall not stop it, with commas")
    parser.add_argument("--due", default="", help="when a schedule wanted the run")
    parser.add_argument("--take-over", default="", help="a run that is not going on any more, whatever it seems")
    parser.add_argument("--api", default="", help="address of Kubeflow Pipelines' REST API, asked for other runs")
    arguments = step.parse(parser)
    given = {name: getattr(arguments, f"gate_{name}") for name in GateSettings.model_fields}
    gate = {name: value for name, value in given.items() if value is not None}
    reason = arguments.reason or (f"due {arguments.due}" if arguments.trigger == "schedule" else "")
    try:
        settings = settings_of(arguments.settings, arguments.span, gate)
        accepted = start.accepted([name.strip() for name in arguments.accept.split(",") if name.strip()], reason)
        span = begin(
            settings, arguments.run_id, arguments.trigger, reason, accepted, arguments.take_over, arguments.api
        )
    except (SettingsError, UsageError) as error:
        step.end(Exit.USAGE, str(error))
    except DataRefused as error:
        step.end(Exit.DATA_REFUSED, str(error))
    except StoreError as error:
        step.end(Exit.CRASHED, str(error))
    logs = start.logs_folder(settings, arguments.run_id)
    step.end(
        Exit.OK, f"logs in {logs}", f"run {arguments.run_id} of {settings.name}: span {span} of {settings.data.dir}"
    )


def settings_of(text: str, span: int, gate: Mapping[str, float]) -> Settings:
    """The settings as compiled, with what this run was started with, and the password from the environment."""
    settings = Settings.model_validate_json(text)
    return settings.model_copy(
        update={
            "data": DataSettings(**settings.data.model_dump() | ({} if span == NEWEST else {"span": span})),
            "gate": GateSettings(**settings.gate.model_dump() | dict(gate)),
            "metadata": MetadataSettings(
                address=settings.metadata.address, password=SecretStr(os.environ.get(PASSWORD, ""))
            ),
        }
    )


def begin(
    settings: Settings,
    run_id: str,
    trigger: str = "manual",
    reason: str = "",
    accepted: Mapping[str, str] = MappingProxyType({}),
    take_over: str = "",
    api: str = "",
) -> int:
    """Register the run and write its graph; its span. Once more does no harm.

    accepted: see `create_pipeline`. take_over: a run that does not go on, whatever it seems. api: of Kubeflow
    Pipelines, to ask what became of another run.
    Raises SettingsError where another run of the pipeline is going on, StoreError where ML Metadata is away, and what
    `start.choose_span` raises.
    """
    logs = start.logs_folder(settings, run_id)
    address = settings.store
    span = start.choose_span(settings)
    check_server(address)
    with start.alone(settings):
        logs.mkdir(parents=True, exist_ok=True)
        with redirected(logs / "startup.log"):
            from ml_metadata import MetadataStore

            from pipeline.build import compile_graph
            from pipeline.metadata.store import record
            from pipeline.registration import register

            graph = compile_graph(settings, span, accepted=accepted)
            connection = address.connection_config()
            store = MetadataStore(connection)  # makes the tables
            with reader(address) as read:
                others = [name for name in start.going_on(read, settings.name) if name != run_id]
            for other in others:
                if other != take_over and not _has_ended(api, other):
                    raise SettingsError(
                        f"run {other} of {settings.name} is going on: wait for it. If it is not, start this one again "
                        f"with take_over={other}"
                    )
                record(store, other, **{summary.EXIT: str(int(Exit.CRASHED)), TAKEN_OVER: run_id})
            facts = start.facts(settings, span, accepted, trigger, reason)
            start.write_facts(logs, facts, settings, span)
            process = json.dumps({"kubeflow": run_id})
            facts |= {"settings": settings.resolved(span), summary.PROCESS: process}
            register(graph, run_id, facts, connection)
            step.write_graph(graph, logs)
    return span


def _has_ended(api: str, run_id: str) -> bool:
    """Whether Kubeflow Pipelines knows the run and says so. A run that it terminated had no last step."""
    try:
        answer = requests.get(f"{api}/apis/v2beta1/runs/{run_id}", timeout=10)
        return answer.status_code == requests.codes.ok and answer.json().get("state") in _ENDED
    except (requests.RequestException, ValueError):
        return False


if __name__ == "__main__":
    main()
