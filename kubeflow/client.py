"""All that is asked of Kubeflow Pipelines about one pipeline: its versions, runs, their logs, and its schedule."""

import hashlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import kfp_server_api as api

from components.errors import ClusterError, NotFound, SettingsError
from components.suggestions import nearest
from kubeflow.connection import TIMEOUTS, ClusterConnection, OutcomeUnknown, ResourceExists, ResourceNotFound, Timeouts
from kubeflow.steps.step import ENDED
from pipeline.settings import Settings

_PAGE = 100
_DIGEST = 12  # characters of a package's sha256 in the name of its version
_NAMED = "EQUALS"
_ATTEMPT = re.compile(r"\(\d+\)$")
_POD_NAMES = "workflows.argoproj.io/pod-name-format"


class PipelineVersion(NamedTuple):
    """Of the pipeline: one package."""

    id: str
    pipeline: str
    name: str
    new: bool = False  # just uploaded


@dataclass(frozen=True)
class Task:
    """A step of a run."""

    node: str  # as in the graph: Trainer
    name: str  # on the cluster: trainer
    state: str = "PENDING"
    started: datetime | None = None
    finished: datetime | None = None

    @property
    def seconds(self) -> float | None:
        """From the start to the end, or to now; with the waiting for a machine, and every attempt."""
        return ((self.finished or datetime.now(UTC)) - self.started).total_seconds() if self.started else None


@dataclass(frozen=True)
class ClusterRun:
    id: str
    name: str
    state: str
    created: datetime
    finished: datetime | None
    parameters: Mapping[str, Any]
    version: str
    error: str = ""
    tasks: tuple[Task, ...] = ()  # in the order of their start; none in a list of runs

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Schedule:
    """A recurring run, as Kubeflow has it."""

    id: str
    cron: str  # six fields, in UTC; or empty
    interval_s: int  # 0 where there is a cron
    since: datetime | None  # the moment that intervals are counted from
    enabled: bool
    version: str
    parameters: Mapping[str, Any]
    service_account: str
    created: datetime


class Client:
    """One pipeline on one server.

    Raises SettingsError for what a person set wrong, ClusterError for what the server does not give, NotFound.
    """

    def __init__(self, settings: Settings, say: Callable[[str], None], timeouts: Timeouts = TIMEOUTS):
        self.pipeline, self._cluster = settings.name, settings.kubeflow
        self.service_account = settings.kubeflow.service_account
        self._server = ClusterConnection(settings.kubeflow, say, timeouts)
        self._pipelines = api.PipelineServiceApi(self._server)
        self._experiments = api.ExperimentServiceApi(self._server)
        self._runs = api.RunServiceApi(self._server)
        self._recurring = api.RecurringRunServiceApi(self._server)
        # A server without users refuses or ignores a namespace, whichever its version does.
        self._namespace = {"namespace": settings.kubeflow.namespace} if self._server.is_multi_user() else {}

    def link(self, run: str) -> str:
        """The page of a run."""
        return f"{self._server.endpoint}/#/runs/details/{run}"

    # Versions.

    def deploy(self, package: str, code_version: str) -> PipelineVersion:
        """The version with this package, as YAML: an equal one that is there already, or a new one."""
        digest = hashlib.sha256(package.encode()).hexdigest()[:_DIGEST]
        pipeline = self._pipeline()
        if found := self._version(pipeline, digest):
            return found
        name = f"{code_version}-{digest}"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "package.yaml")  # the server goes by the ending
            file.write_text(package, "utf-8")
            try:
                made = api.PipelineUploadServiceApi(self._server).upload_pipeline_version(
                    str(file), name=name, display_name=name, pipelineid=pipeline
                )
            except ResourceExists:  # another client was faster
                if found := self._version(pipeline, digest):
                    return found
                raise
        return PipelineVersion(made.pipeline_version_id, pipeline, name, new=True)

    def _pipeline(self) -> str:
        """The id of the pipeline of this name, which is made where there is none."""
        if found := self._named_pipeline():
            return found
        try:
            made = api.V2beta1Pipeline(name=self.pipeline, display_name=self.pipeline, **self._namespace)
            return str(self._pipelines.pipeline_service_create_pipeline(made).pipeline_id)
        except ResourceExists:
            if found := self._named_pipeline():
                return found
            raise

    def _named_pipeline(self) -> str | None:
        query = _filter("display_name", _NAMED, self.pipeline)
        for found in self._pipelines.pipeline_service_list_pipelines(filter=query, **self._namespace).pipelines or []:
            return str(found.pipeline_id)
        return None

    def _version(self, pipeline: str, digest: str) -> PipelineVersion | None:
        query = _filter("display_name", "IS_SUBSTRING", digest)
        answer = self._pipelines.pipeline_service_list_pipeline_versions(
            pipeline, filter=query, sort_by="created_at desc"
        )
        for found in answer.pipeline_versions or []:
            return PipelineVersion(found.pipeline_version_id, pipeline, found.display_name)
        return None

    def version_names(self) -> dict[str, str]:
        """The name of each version, by its id."""
        if not (pipeline := self._named_pipeline()):
            return {}
        pages = _pages(
            lambda **page: self._pipelines.pipeline_service_list_pipeline_versions(pipeline, **page),
            "pipeline_versions",
        )
        return {version.pipeline_version_id: version.display_name for version in pages}

    # Runs.

    def start(self, version: PipelineVersion, name: str, parameters: Mapping[str, Any]) -> ClusterRun:
        """A run of the version. name: unique, so that a run is known again whose making was not answered."""
        run = api.V2beta1Run(
            display_name=name,
            experiment_id=self._experiment(),
            pipeline_version_reference=_reference(version),
            runtime_config=api.V2beta1RuntimeConfig(parameters=dict(parameters)),
            service_account=self.service_account,
        )
        try:
            return _run(self._runs.run_service_create_run(run))
        except OutcomeUnknown as error:
            for found in self.runs(_filter("display_name", _NAMED, name)):
                return found
            raise OutcomeUnknown(
                f"{error}: the run may have been made, or not; `vitpipe kfp status` shows it, a while later"
            ) from error

    def runs(self, query: str | None = None, limit: int = _PAGE) -> list[ClusterRun]:
        """The newest runs first, without their tasks."""
        if not (experiment := self._named_experiment()):
            return []
        more = {} if query is None else {"filter": query}
        answer = self._runs.run_service_list_runs(
            experiment_id=experiment, sort_by="created_at desc", page_size=limit, **self._namespace, **more
        )
        return [_run(run) for run in answer.runs or []]

    def find(self, name: str) -> ClusterRun:
        """The run of this id or name, or the first characters of either; or `last`. Raises NotFound."""
        recent = self.runs()
        wanted = [run for run in recent if name in (run.id, run.name)] or [
            run for run in recent if run.id.startswith(name) or run.name.startswith(name)
        ]
        if name == "last":
            wanted = recent[:1]
        if len(wanted) == 1:
            return self.run(wanted[0].id)
        if len(wanted) > 1:
            raise NotFound(f"{name} is the beginning of {len(wanted)} runs: {', '.join(run.name for run in wanted)}")
        if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name):
            try:
                return self.run(name)  # an older one, or one of another pipeline
            except ResourceNotFound:
                pass
        if not recent:
            raise NotFound(
                f"{self.pipeline} has no run at {self._server.endpoint}: `vitpipe kfp submit` starts one; another "
                "pipeline is named with -c PRESET or --set name="
            )
        named = [run.name for run in recent]
        like = nearest(name, [*named, *(run.id for run in recent)], most=3) or named[:3]
        raise NotFound(
            f"no run {name} of {self.pipeline} at {self._server.endpoint}: the nearest are {', '.join(like)}"
        )

    def run(self, run_id: str) -> ClusterRun:
        """Return a run with its tasks. Raises ResourceNotFound."""
        answer = self._runs.run_service_get_run(run_id)
        run = _run(answer)
        steps = self._steps(answer.pipeline_version_reference)
        details = answer.run_details.task_details if answer.run_details else None
        known = {one.display_name: one for one in details or [] if one.display_name in steps}
        tasks = [_task(node, name, known.get(name)) for name, node in steps.items()]
        tasks.sort(key=lambda task: task.started or datetime.max.replace(tzinfo=UTC))
        return replace(run, tasks=tuple(tasks))

    def _steps(self, reference: api.V2beta1PipelineVersionReference | None) -> dict[str, str]:
        """The node of each task that is a container: the cluster lists drivers and groups of tasks beside them."""
        if reference is None:
            raise NotFound("this run is of no version of a pipeline, so vitpipe did not start it: look at its page")
        version = self._pipelines.pipeline_service_get_pipeline_version(
            reference.pipeline_id, reference.pipeline_version_id
        )
        spec = version.pipeline_spec.get("pipeline_spec", version.pipeline_spec)  # one level down beside a platform's
        components = spec["components"]
        return {
            name: task["taskInfo"]["name"]
            for component in [spec["root"], *components.values()]
            for name, task in component.get("dag", {}).get("tasks", {}).items()
            if "executorLabel" in components[task["componentRef"]["name"]]
        }

    # Logs.

    def pods(self, run_id: str) -> dict[str, list[str]]:
        """The pods of each task that has any, one an attempt. Raises ClusterError.

        Version 2 of the API does not name them; version 1 shows the workflow as Argo has it.
        """
        path = f"/apis/v1beta1/runs/{run_id}"
        text, _ = self._server.text(path)
        try:
            workflow = json.loads(json.loads(text)["pipeline_runtime"]["workflow_manifest"])
            nodes = list(workflow["status"].get("nodes", {}).values())
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(f"{self._server.endpoint}{path} shows no workflow") from error
        # Each attempt at a pod is in the group of its task; where a cluster retries by itself, groups have attempts.
        task_of = {node["id"]: _ATTEMPT.sub("", node["displayName"]) for node in nodes if node["type"] == "DAG"}
        pods: dict[str, list[str]] = {}
        for node in sorted(nodes, key=lambda node: (node.get("startedAt") or "", node["name"])):
            if node["type"] == "Pod" and node.get("boundaryID") in task_of:
                pods.setdefault(task_of[node["boundaryID"]], []).append(_pod(workflow, node))
        return pods

    def log(self, run_id: str, pod: str) -> str:
        """Return the log of a pod so far. Raises ClusterError.

        The server has no way to follow a log. Behind the address of the page its own log is out of reach, and the
        page's own is there. Without users, the server of 2.17 looks for pods in no namespace and finds none.
        """
        answers: list[ClusterError] = []
        for path, query in (
            (f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", {}),
            ("/k8s/pod/logs", {"podname": pod, "runid": run_id, "podnamespace": self._cluster.namespace}),
        ):
            try:
                text, kind = self._server.text(path, **query)
            except (ClusterError, SettingsError) as error:  # the one may be refused and the other not
                answers.append(error if isinstance(error, ClusterError) else ClusterError(str(error)))
                continue
            if text.startswith('{"error_message":'):  # with status 200, for the log has begun
                answers.append(ClusterError(json.loads(text)["error_message"]))
            elif "html" not in kind:
                return text
        # The address has one of the two; what the other answers is only that it is not there.
        raise next((one for one in answers if not isinstance(one, ResourceNotFound)), ClusterError(str(answers[-1])))

    def kubectl(self, run_id: str, pod: str = "") -> str:
        """How to read a log past the server."""
        which = pod or f"-l pipeline/runid={run_id} --prefix --tail=-1"
        return f"kubectl logs -n {self._cluster.namespace} {which} -c main"

    # Schedules. The newest is the one that counts; `kubeflow/schedule.py` sees to the others.

    def schedules(self) -> list[Schedule]:
        """Of this pipeline, the newest first."""
        if not (experiment := self._named_experiment()):
            return []
        pages = _pages(
            lambda **page: self._recurring.recurring_run_service_list_recurring_runs(
                experiment_id=experiment, **self._namespace, **page
            ),
            "recurring_runs",
        )
        return [_schedule(one) for one in pages if one.display_name == self.pipeline]

    def add_schedule(
        self,
        version: PipelineVersion,
        parameters: Mapping[str, Any],
        *,
        cron: str = "",
        interval_s: int = 0,
        since: datetime | None = None,
        enabled: bool = True,
    ) -> Schedule:
        """At the moments of `cron`, or every so many seconds: one run at a time, and one for all that were missed."""
        trigger = (
            api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron))
            if cron
            else api.V2beta1Trigger(
                periodic_schedule=api.V2beta1PeriodicSchedule(interval_second=str(interval_s), start_time=since)
            )
        )
        made = api.V2beta1RecurringRun(
            display_name=self.pipeline,
            experiment_id=self._experiment(),
            pipeline_version_reference=_reference(version),
            runtime_config=api.V2beta1RuntimeConfig(parameters=dict(parameters)),
            service_account=self.service_account,
            trigger=trigger,
            mode=api.RecurringRunMode.ENABLE if enabled else api.RecurringRunMode.DISABLE,
            max_concurrency="1",
            no_catchup=True,
        )
        return _schedule(self._recurring.recurring_run_service_create_recurring_run(made))

    def enable(self, schedule: Schedule) -> None:
        self._recurring.recurring_run_service_enable_recurring_run(schedule.id)

    def disable(self, schedule: Schedule) -> None:
        self._recurring.recurring_run_service_disable_recurring_run(schedule.id)

    def delete(self, schedule: Schedule) -> None:
        self._recurring.recurring_run_service_delete_recurring_run(schedule.id)

    def running(self, schedule: Schedule) -> list[ClusterRun]:
        """Return the runs that a schedule started and that have not ended."""
        return [run for run in self.runs(_filter("recurring_run_id", _NAMED, schedule.id)) if not run.ended]

    def _experiment(self) -> str:
        """The id of the experiment with the runs of the pipeline, which is made where there is none."""
        if found := self._named_experiment():
            return found
        try:
            made = api.V2beta1Experiment(display_name=self.pipeline, **self._namespace)
            return str(self._experiments.experiment_service_create_experiment(made).experiment_id)
        except ResourceExists:
            if found := self._named_experiment():
                return found
            raise

    def _named_experiment(self) -> str | None:
        query = _filter("display_name", _NAMED, self.pipeline)
        answer = self._experiments.experiment_service_list_experiments(filter=query, **self._namespace)
        for found in answer.experiments or []:
            return str(found.experiment_id)
        return None


def _filter(key: str, operation: str, value: str) -> str:
    return json.dumps({"predicates": [{"operation": operation, "key": key, "string_value": value}]})


def _pages(ask: Callable[..., Any], field: str) -> Iterator[Any]:
    token = ""
    while True:
        answer = ask(page_size=_PAGE, page_token=token, sort_by="created_at desc")
        yield from getattr(answer, field) or []
        if not (token := answer.next_page_token):
            return


def _reference(version: PipelineVersion) -> api.V2beta1PipelineVersionReference:
    return api.V2beta1PipelineVersionReference(pipeline_id=version.pipeline, pipeline_version_id=version.id)


def _run(answer: api.V2beta1Run) -> ClusterRun:
    reference = answer.pipeline_version_reference
    return ClusterRun(
        answer.run_id,
        answer.display_name,
        _state(answer),
        answer.created_at,
        _moment(answer.finished_at),
        (answer.runtime_config.parameters if answer.runtime_config else None) or {},
        reference.pipeline_version_id if reference else "",
        (answer.error.message if answer.error else None) or "",
    )


def _state(answer: api.V2beta1Run) -> str:
    """A run that a person terminated ends as FAILED, and only its history says so."""
    history = [one.state for one in answer.state_history or []]
    return "CANCELED" if history[-2:] == ["CANCELING", "FAILED"] else answer.state or "PENDING"


def _task(node: str, name: str, detail: api.V2beta1PipelineTaskDetail | None) -> Task:
    if detail is None:
        return Task(node, name)
    return Task(node, name, detail.state or "PENDING", _moment(detail.start_time), _moment(detail.end_time))


def _schedule(answer: api.V2beta1RecurringRun) -> Schedule:
    cron, periodic = answer.trigger.cron_schedule, answer.trigger.periodic_schedule
    return Schedule(
        answer.recurring_run_id,
        cron.cron if cron else "",
        int(periodic.interval_second) if periodic else 0,
        _moment(periodic.start_time) if periodic else None,
        answer.mode == api.RecurringRunMode.ENABLE,
        answer.pipeline_version_reference.pipeline_version_id,
        (answer.runtime_config.parameters if answer.runtime_config else None) or {},
        answer.service_account or "",
        answer.created_at,
    )


def _moment(answer: datetime | None) -> datetime | None:
    """The server writes 1970, and Go's year 1, for what has not happened."""
    return answer if answer and answer.year > 1970 else None


def _pod(workflow: dict[str, Any], node: dict[str, Any]) -> str:
    """As Argo names it: by its id, or since 3.4 also by its template."""
    meta = workflow["metadata"]
    if meta.get("annotations", {}).get(_POD_NAMES) == "v1":
        return str(node["id"])
    template = "" if ".inline" in node["name"] else f"{node['templateName']}-"
    return f"{meta['name']}-{template}{node['id'].rpartition('-')[2]}"
