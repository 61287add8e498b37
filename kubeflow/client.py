"""Client of Kubeflow Pipelines for one pipeline: its versions, runs, logs and schedules."""

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
from kubeflow.connection import (
    TIMEOUTS,
    ClusterConnection,
    OutcomeUnknownError,
    ResourceExistsError,
    ResourceNotFoundError,
    Timeouts,
)
from kubeflow.steps.step import ENDED
from pipeline.settings import Settings

_PAGE = 100  # items in one page of a listing
_DIGEST = 12  # characters of a package's sha256 in the name of its version
_ATTEMPT = re.compile(r"\(\d+\)$")
_POD_NAMES = "workflows.argoproj.io/pod-name-format"


class PipelineVersion(NamedTuple):
    """One uploaded package of the pipeline.

    Attributes:
        id: the id of the version.
        pipeline: the id of the pipeline.
        name: the code version and a digest of the package.
        new: whether this call uploaded it.
    """

    id: str
    pipeline: str
    name: str
    new: bool = False


@dataclass(frozen=True)
class Task:
    """One step of a run.

    Attributes:
        node: the id of the node in the graph, such as `ImportExampleGen`.
        name: the name of the task on the cluster, such as `import-example-gen`.
        state: the state in the API of Kubeflow Pipelines.
        started: when the task started; None before.
        finished: when the task ended; None before.
    """

    node: str
    name: str
    state: str = "PENDING"
    started: datetime | None = None
    finished: datetime | None = None

    @property
    def seconds(self) -> float | None:
        """Seconds since the start, up to the end of the task. Includes all attempts and the waits for a machine."""
        return ((self.finished or datetime.now(UTC)) - self.started).total_seconds() if self.started else None


@dataclass(frozen=True)
class ClusterRun:
    """One run on the cluster.

    Attributes:
        id: the id of the run.
        name: the name that it was submitted with.
        state: the state in the API of Kubeflow Pipelines.
        created: when it was submitted.
        finished: when it ended; None before.
        parameters: the parameters that it was submitted with.
        version: the id of the version of the pipeline.
        error: the error that Kubeflow Pipelines reports; empty without one.
        tasks: the steps, in the order of their start. A listing of runs leaves them out.
    """

    id: str
    name: str
    state: str
    created: datetime
    finished: datetime | None
    parameters: Mapping[str, Any]
    version: str
    error: str = ""
    tasks: tuple[Task, ...] = ()

    @property
    def ended(self) -> bool:
        """True if the run has ended."""
        return self.state in ENDED


@dataclass(frozen=True)
class Schedule:
    """One recurring run of Kubeflow Pipelines.

    Attributes:
        id: the id of the recurring run.
        cron: the cron expression of six fields, in UTC; empty if there is an interval.
        interval_s: the interval in seconds; 0 if there is a cron expression.
        since: the moment from which intervals are counted.
        enabled: False if the schedule is paused.
        version: the id of the version of the pipeline.
        parameters: the parameters of the runs that it starts.
        service_account: the service account of these runs.
        created: when the schedule was created.
    """

    id: str
    cron: str
    interval_s: int
    since: datetime | None
    enabled: bool
    version: str
    parameters: Mapping[str, Any]
    service_account: str
    created: datetime


class Client:
    """Client for one pipeline on one server.

    Every method that sends a request raises `SettingsError` if the server rejects the token or the rights of its user,
    and `ClusterError` if the server does not answer or gives an unexpected answer. The methods' docstrings name only
    other errors.

    Args:
        settings: the settings of the pipeline. `name` and `kubeflow` are used.
        report: called with a message before each repetition of a request.
        timeouts: the time limits of a request.
    """

    def __init__(self, settings: Settings, report: Callable[[str], None], timeouts: Timeouts = TIMEOUTS) -> None:
        self.pipeline, self._cluster = settings.name, settings.kubeflow
        self.service_account = settings.kubeflow.service_account
        self._server = ClusterConnection(settings.kubeflow, report, timeouts)
        self._pipelines = api.PipelineServiceApi(self._server)
        self._experiments = api.ExperimentServiceApi(self._server)
        self._runs = api.RunServiceApi(self._server)
        self._recurring = api.RecurringRunServiceApi(self._server)
        # A single-user server rejects or ignores a namespace, depending on its version.
        self._namespace = {"namespace": settings.kubeflow.namespace} if self._server.is_multi_user() else {}

    def link(self, run: str) -> str:
        """Return the address of the page that shows a run."""
        return f"{self._server.endpoint}/#/runs/details/{run}"

    def memory_limit(self, step: str) -> str:
        """Return the memory limit that the settings give to a step."""
        return self._cluster.step_of(step).memory

    # Versions.

    def deploy(self, package: str, code_version: str) -> PipelineVersion:
        """Upload a package as a version of the pipeline, unless an equal package was uploaded before.

        Args:
            package: the compiled package, as YAML.
            code_version: the version of the code, which begins the name of a new version.

        Returns:
            The version that has this package.
        """
        digest = hashlib.sha256(package.encode()).hexdigest()[:_DIGEST]
        pipeline = self._find_or_create_pipeline()
        if found := self._find_version(pipeline, digest):
            return found
        name = f"{code_version}-{digest}"
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "package.yaml")  # the server recognises the format by the file extension
            file.write_text(package, "utf-8")
            try:
                created = api.PipelineUploadServiceApi(self._server).upload_pipeline_version(
                    str(file), name=name, display_name=name, pipelineid=pipeline
                )
            except ResourceExistsError:  # another client was faster
                if found := self._find_version(pipeline, digest):
                    return found
                raise
        return PipelineVersion(created.pipeline_version_id, pipeline, name, new=True)

    def _find_or_create_pipeline(self) -> str:
        """Return the id of the pipeline."""
        if found := self._find_pipeline():
            return found
        try:
            pipeline = api.V2beta1Pipeline(name=self.pipeline, display_name=self.pipeline, **self._namespace)
            return str(self._pipelines.pipeline_service_create_pipeline(pipeline).pipeline_id)
        except ResourceExistsError:  # another client was faster
            if found := self._find_pipeline():
                return found
            raise

    def _find_pipeline(self) -> str | None:
        query = _filter("display_name", "EQUALS", self.pipeline)
        for found in self._pipelines.pipeline_service_list_pipelines(filter=query, **self._namespace).pipelines or []:
            return str(found.pipeline_id)
        return None

    def _find_version(self, pipeline: str, digest: str) -> PipelineVersion | None:
        query = _filter("display_name", "IS_SUBSTRING", digest)
        answer = self._pipelines.pipeline_service_list_pipeline_versions(
            pipeline, filter=query, sort_by="created_at desc"
        )
        for found in answer.pipeline_versions or []:
            return PipelineVersion(found.pipeline_version_id, pipeline, found.display_name)
        return None

    def version_names(self) -> dict[str, str]:
        """Return the name of each version, by its id."""
        if not (pipeline := self._find_pipeline()):
            return {}
        pages = _pages(
            lambda **page: self._pipelines.pipeline_service_list_pipeline_versions(pipeline, **page),
            "pipeline_versions",
        )
        return {version.pipeline_version_id: version.display_name for version in pages}

    # Runs.

    def start(self, version: PipelineVersion, name: str, parameters: Mapping[str, Any]) -> ClusterRun:
        """Start a run.

        Args:
            version: the version of the pipeline.
            name: a unique name. If the server does not answer, the run is looked up by this name.
            parameters: the parameters of the run.

        Returns:
            The run, without its tasks.

        Raises:
            OutcomeUnknownError: if the server did not answer, and the run is not found.
        """
        run = api.V2beta1Run(
            display_name=name,
            experiment_id=self._find_or_create_experiment(),
            pipeline_version_reference=_reference(version),
            runtime_config=api.V2beta1RuntimeConfig(parameters=dict(parameters)),
            service_account=self.service_account,
        )
        try:
            return _parse_run(self._runs.run_service_create_run(run))
        except OutcomeUnknownError as error:
            for found in self.runs(_filter("display_name", "EQUALS", name)):
                return found
            raise OutcomeUnknownError(
                f"{error}: it is unknown whether the run was started. Check with `vitpipe kfp status` in a while"
            ) from error

    def runs(self, query: str | None = None, limit: int = _PAGE) -> list[ClusterRun]:
        """List runs of the pipeline, newest first, without their tasks.

        Args:
            query: a filter in the form of the API; None for all runs.
            limit: the largest number of runs to return.
        """
        if not (experiment := self._find_experiment()):
            return []
        more = {} if query is None else {"filter": query}
        answer = self._runs.run_service_list_runs(
            experiment_id=experiment, sort_by="created_at desc", page_size=limit, **self._namespace, **more
        )
        return [_parse_run(run) for run in answer.runs or []]

    def find(self, name: str) -> ClusterRun:
        """Find a run.

        Args:
            name: the id or name of a run, the first characters of either, or `last`.

        Returns:
            The run with its tasks.

        Raises:
            NotFound: if no run has this name, or several names begin with it.
        """
        recent = self.runs()
        matches = [run for run in recent if name in (run.id, run.name)] or [
            run for run in recent if run.id.startswith(name) or run.name.startswith(name)
        ]
        if name == "last":
            matches = recent[:1]
        if len(matches) == 1:
            return self.run(matches[0].id)
        if len(matches) > 1:
            raise NotFound(f"{name} is the beginning of {len(matches)} runs: {', '.join(run.name for run in matches)}")
        if re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", name):
            try:
                return self.run(name)  # an older run, or a run of another pipeline
            except ResourceNotFoundError:
                pass
        if not recent:
            raise NotFound(
                f"{self.pipeline} has no run at {self._server.endpoint}: start one with `vitpipe kfp submit`, or name "
                "another pipeline with -c PRESET or --set name="
            )
        names = [run.name for run in recent]
        suggestions = nearest(name, [*names, *(run.id for run in recent)], most=3) or names[:3]
        raise NotFound(
            f"no run {name} of {self.pipeline} at {self._server.endpoint}: the nearest are {', '.join(suggestions)}"
        )

    def run(self, run_id: str) -> ClusterRun:
        """Return a run with its tasks.

        Raises:
            NotFound: if the run was not started from a version of a pipeline.
            ResourceNotFoundError: if there is no such run.
        """
        answer = self._runs.run_service_get_run(run_id)
        run = _parse_run(answer)
        nodes = self._nodes_by_task(answer.pipeline_version_reference)
        details = answer.run_details.task_details if answer.run_details else None
        started = {detail.display_name: detail for detail in details or [] if detail.display_name in nodes}
        tasks = [_parse_task(node, name, started.get(name)) for name, node in nodes.items()]
        tasks.sort(key=lambda task: task.started or datetime.max.replace(tzinfo=UTC))
        return replace(run, tasks=tuple(tasks))

    def _nodes_by_task(self, reference: api.V2beta1PipelineVersionReference | None) -> dict[str, str]:
        """Return the node of each task that runs a container. Leaves out drivers and groups of tasks."""
        if reference is None:
            raise NotFound("the run belongs to no version of a pipeline, so vitpipe did not start it: open its page")
        version = self._pipelines.pipeline_service_get_pipeline_version(
            reference.pipeline_id, reference.pipeline_version_id
        )
        # A package with a platform specification has the pipeline's specification one level deeper.
        spec = version.pipeline_spec.get("pipeline_spec", version.pipeline_spec)
        components = spec["components"]
        return {
            name: task["taskInfo"]["name"]
            for component in [spec["root"], *components.values()]
            for name, task in component.get("dag", {}).get("tasks", {}).items()
            if "executorLabel" in components[task["componentRef"]["name"]]
        }

    # Logs.

    def pods(self, run_id: str) -> dict[str, list[str]]:
        """Return the names of the pods of each task, one pod for each attempt, oldest first.

        The names are read from Argo's workflow, which version 1 of the API returns. Version 2 does not name pods.
        """
        workflow, nodes = self._argo_nodes(run_id)
        # The pods of all attempts belong to the group of their task. If the cluster itself retries tasks, there is a
        # group for each attempt, whose name ends in the number of the attempt.
        task_of = {node["id"]: _ATTEMPT.sub("", node["displayName"]) for node in nodes if node["type"] == "DAG"}
        pods: dict[str, list[str]] = {}
        for node in nodes:
            if node["type"] == "Pod" and node.get("boundaryID") in task_of:
                pods.setdefault(task_of[node["boundaryID"]], []).append(_pod_name(workflow, node))
        return pods

    def pod_errors(self, run_id: str) -> list[str]:
        """Return what Argo reports about the pods of a run that failed for good, also drivers. The oldest is first."""
        _, nodes = self._argo_nodes(run_id)
        retried = {
            child
            for node in nodes
            if node["type"] == "Retry" and node.get("phase") == "Succeeded"
            for child in node.get("children", [])
        }
        return [
            f"{_ATTEMPT.sub('', node['displayName'])}: {' '.join(node['message'].split())}"
            for node in nodes
            if node["type"] == "Pod" and node.get("phase") in ("Failed", "Error") and node.get("message")
            if node["id"] not in retried
        ]

    def _argo_nodes(self, run_id: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return Argo's workflow of a run, and its nodes in the order of their start."""
        path = f"/apis/v1beta1/runs/{run_id}"
        text, _ = self._server.get_text(path)
        try:
            workflow = json.loads(json.loads(text)["pipeline_runtime"]["workflow_manifest"])
            nodes = list(workflow["status"].get("nodes", {}).values())
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(f"{self._server.endpoint}{path} does not contain a workflow of Argo") from error
        nodes.sort(key=lambda node: (node.get("startedAt") or "", node["name"]))
        return workflow, nodes

    def log(self, run_id: str, pod: str) -> str:
        """Return what a pod has logged so far.

        The log is requested at two addresses. The first is that of the API server: it is not reachable through the
        address of the web page, and a single-user server of version 2.17 reads there only logs from its archive, which
        has the pods that have ended. It may not read others, because it searches for them without a namespace. The
        second is that of the web page. Neither of them can follow a log.

        Args:
            run_id: the id of the run.
            pod: the name of the pod.

        Returns:
            The text of the log.

        Raises:
            ClusterError: if neither address returns the log.
        """
        errors: list[ClusterError] = []
        for path, query in (
            (f"/apis/v1alpha1/runs/{run_id}/nodes/{pod}/log", {}),
            ("/k8s/pod/logs", {"podname": pod, "runid": run_id, "podnamespace": self._cluster.namespace}),
        ):
            try:
                text, kind = self._server.get_text(path, **query)
            except (ClusterError, SettingsError) as error:  # the other address may still allow it
                errors.append(error if isinstance(error, ClusterError) else ClusterError(str(error)))
                continue
            if text.startswith('{"error_message":'):  # the status is 200 if the error occurs after the log has begun
                errors.append(ClusterError(json.loads(text)["error_message"]))
            elif "html" not in kind:
                return text
        # Usually only one of the two addresses exists, and its error is the one to report.
        existing = (error for error in errors if not isinstance(error, ResourceNotFoundError))
        raise next(existing, ClusterError(str(errors[-1])))

    def kubectl(self, run_id: str, pod: str = "") -> str:
        """Return a command that reads logs from Kubernetes, without Kubeflow Pipelines.

        Args:
            run_id: the id of the run.
            pod: the name of a pod; empty for all pods of the run.
        """
        selection = pod or f"-l pipeline/runid={run_id} --prefix --tail=-1"
        return f"kubectl logs -n {self._cluster.namespace} {selection} -c main"

    # Schedules. Only the newest one of a pipeline is in effect; kubeflow/schedule.py removes the others.

    def schedules(self) -> list[Schedule]:
        """List the schedules of this pipeline, newest first."""
        if not (experiment := self._find_experiment()):
            return []
        pages = _pages(
            lambda **page: self._recurring.recurring_run_service_list_recurring_runs(
                experiment_id=experiment, **self._namespace, **page
            ),
            "recurring_runs",
        )
        return [_parse_schedule(recurring) for recurring in pages if recurring.display_name == self.pipeline]

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
        """Create a schedule. It starts one run at a time, and a single run for all start times that were missed.

        Args:
            version: the version of the pipeline.
            parameters: the parameters of the runs.
            cron: a cron expression of six fields, in UTC; empty for an interval.
            interval_s: the interval in seconds, if `cron` is empty.
            since: the moment from which intervals are counted.
            enabled: False to create a paused schedule.

        Returns:
            The schedule as the server created it.
        """
        trigger = (
            api.V2beta1Trigger(cron_schedule=api.V2beta1CronSchedule(cron=cron))
            if cron
            else api.V2beta1Trigger(
                periodic_schedule=api.V2beta1PeriodicSchedule(interval_second=str(interval_s), start_time=since)
            )
        )
        recurring = api.V2beta1RecurringRun(
            display_name=self.pipeline,
            experiment_id=self._find_or_create_experiment(),
            pipeline_version_reference=_reference(version),
            runtime_config=api.V2beta1RuntimeConfig(parameters=dict(parameters)),
            service_account=self.service_account,
            trigger=trigger,
            mode=api.RecurringRunMode.ENABLE if enabled else api.RecurringRunMode.DISABLE,
            max_concurrency="1",
            no_catchup=True,
        )
        return _parse_schedule(self._recurring.recurring_run_service_create_recurring_run(recurring))

    def enable(self, schedule: Schedule) -> None:
        """Let a paused schedule start runs again."""
        self._recurring.recurring_run_service_enable_recurring_run(schedule.id)

    def disable(self, schedule: Schedule) -> None:
        """Pause a schedule."""
        self._recurring.recurring_run_service_disable_recurring_run(schedule.id)

    def delete(self, schedule: Schedule) -> None:
        """Delete a schedule. Kubernetes deletes its running runs with it."""
        self._recurring.recurring_run_service_delete_recurring_run(schedule.id)

    def running(self, schedule: Schedule) -> list[ClusterRun]:
        """Return the runs that a schedule started and that have not ended."""
        return [run for run in self.runs(_filter("recurring_run_id", "EQUALS", schedule.id)) if not run.ended]

    def _find_or_create_experiment(self) -> str:
        """Return the id of the experiment that contains the runs of the pipeline."""
        if found := self._find_experiment():
            return found
        try:
            experiment = api.V2beta1Experiment(display_name=self.pipeline, **self._namespace)
            return str(self._experiments.experiment_service_create_experiment(experiment).experiment_id)
        except ResourceExistsError:  # another client was faster
            if found := self._find_experiment():
                return found
            raise

    def _find_experiment(self) -> str | None:
        query = _filter("display_name", "EQUALS", self.pipeline)
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


def _parse_run(answer: api.V2beta1Run) -> ClusterRun:
    reference = answer.pipeline_version_reference
    return ClusterRun(
        answer.run_id,
        answer.display_name,
        _parse_state(answer),
        answer.created_at,
        _parse_time(answer.finished_at),
        (answer.runtime_config.parameters if answer.runtime_config else None) or {},
        reference.pipeline_version_id if reference else "",
        (answer.error.message if answer.error else None) or "",
    )


def _parse_state(answer: api.V2beta1Run) -> str:
    """Return the state of a run. A run that a user terminated is FAILED; its history shows that it was canceled."""
    history = [status.state for status in answer.state_history or []]
    return "CANCELED" if history[-2:] == ["CANCELING", "FAILED"] else answer.state or "PENDING"


def _parse_task(node: str, name: str, detail: api.V2beta1PipelineTaskDetail | None) -> Task:
    if detail is None:
        return Task(node, name)
    return Task(node, name, detail.state or "PENDING", _parse_time(detail.start_time), _parse_time(detail.end_time))


def _parse_schedule(answer: api.V2beta1RecurringRun) -> Schedule:
    cron, periodic = answer.trigger.cron_schedule, answer.trigger.periodic_schedule
    return Schedule(
        answer.recurring_run_id,
        cron.cron if cron else "",
        int(periodic.interval_second) if periodic else 0,
        _parse_time(periodic.start_time) if periodic else None,
        answer.mode == api.RecurringRunMode.ENABLE,
        answer.pipeline_version_reference.pipeline_version_id,
        (answer.runtime_config.parameters if answer.runtime_config else None) or {},
        answer.service_account or "",
        answer.created_at,
    )


def _parse_time(answer: datetime | None) -> datetime | None:
    """Return a time. The server writes 1970, or year 1 (Go's zero time), for an event that has not happened."""
    return answer if answer and answer.year > 1970 else None


def _pod_name(workflow: dict[str, Any], node: dict[str, Any]) -> str:
    """Return the name that Argo gives to a pod: the id of the node or, since version 3.4, with the template's name."""
    meta = workflow["metadata"]
    if meta.get("annotations", {}).get(_POD_NAMES) == "v1":
        return str(node["id"])
    template = "" if ".inline" in node["name"] else f"{node['templateName']}-"
    return f"{meta['name']}-{template}{node['id'].rpartition('-')[2]}"
