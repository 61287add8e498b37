"""Server of Kubeflow Pipelines for tests: the used part of its REST API, over a real socket, with its state in memory.

Paths, bodies and statuses are those of its API server (backend/src/apiserver of kubeflow/pipelines 2.17). Requests and
answers of version 2 of the API are compared with its definition in kfp_server_api, so that neither side can deviate
from it. Tests set the states of runs with `play`.
"""

import contextlib
import email
import email.policy
import hashlib
import json
import re
import ssl
import threading
import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kfp_server_api
import yaml
from dateutil.parser import isoparse

GONE_ON = {"PENDING", "RUNNING"}
NEVER = "1970-01-01T00:00:00Z"
NOT_YET = "0001-01-01T00:00:00Z"  # end of a step that has not ended
GROUP = "exit-handler-1"
# Templates of a step. Their names contain the metadata of its pods: no annotation and one label.
EXECUTOR, IMPL = "metadata-0-1-retry-system-container-executor", "metadata-0-1-retry-system-container-impl"
PHASES = {"SUCCEEDED": "Succeeded", "FAILED": "Failed", "RUNNING": "Running", "SKIPPED": "Skipped"}


class ErrorAnswer(Exception):
    """An error answer: `status` is that of HTTP, `code` that of gRPC in the body."""

    def __init__(self, status, code, message):
        super().__init__(message)
        self.status, self.code = status, code


@dataclass
class Failure:
    """Failure of the next `times` requests whose `METHOD /path` matches `pattern`."""

    pattern: str
    status: int = 0  # 0: the connection is closed without an answer
    times: int = 1
    body: str = '{"code": 14, "message": "out of order"}'
    kind: str = "application/json"
    headers: dict = field(default_factory=dict)
    done: bool = False  # the server carries the request out before it fails
    delay_s: float = 0.0  # delay before the failure; with status -1, the request succeeds after the delay


class Kfp:
    """State of the server, with a method for each route."""

    def __init__(self, *, token="", multi_user=False, page=True):
        self.token, self.multi_user = token, multi_user
        self.page = page  # whether the address is that of the web page, which has no /apis/v1alpha1
        self.pipelines, self.versions, self.experiments = {}, {}, {}
        self.runs, self.recurring = {}, {}
        self.packages = {}  # text by version
        self.steps = {}  # tasks by run, with their states, in the order of `play`
        self.logs = {}  # text by pod
        self.driver_errors = {}  # by run: what Argo reports about the pod of its first driver
        self.ended_with_their_schedule = []  # runs that Kubernetes deleted
        self.failures, self.requests = [], []
        self._clock = datetime(2026, 1, 1, tzinfo=UTC)

    # Methods for tests.

    def fail(self, pattern, status=0, **how):
        self.failures.append(Failure(pattern, status, **how))

    def asked(self, pattern):
        return [line for line in self.requests if re.search(pattern, line)]

    def play(self, run_id, task, state="SUCCEEDED", log="", *, attempts=1, seconds=3):
        """Set the state of a step. The last attempt has this log."""
        run = self.runs[run_id]
        run["state"] = "RUNNING"
        self.steps[run_id][task] = {
            "state": state,
            "attempts": attempts,
            "started": self.now(),
            "finished": NEVER,
        }
        if state not in GONE_ON:
            self._clock += timedelta(seconds=seconds - 1)
            self.steps[run_id][task]["finished"] = self.now()
        pods = self.pods(run_id, task)
        self.logs.update(dict.fromkeys(pods[:-1], "an attempt that failed\n"))
        self.logs[pods[-1]] = log

    def end(self, run_id, state):
        """End a run. The state of a canceled run is FAILED; only its history shows that a user terminated it."""
        before, last = ("CANCELING", "FAILED") if state == "CANCELED" else ("RUNNING", state)
        history = [{"update_time": self.now(), "state": one} for one in (before, last)]
        self.runs[run_id] |= {"state": last, "finished_at": self.now(), "state_history": history}

    def tick(self, recurring_id):
        """Let a schedule start a run. Returns the id of the run, or None if it starts none."""
        one = self.recurring[recurring_id]
        going_on = [
            run for run in self.runs.values() if run.get("recurring_run_id") == recurring_id and run["state"] in GONE_ON
        ]
        if one["mode"] != "ENABLE" or len(going_on) >= int(one["max_concurrency"]):
            return None
        fields = ("experiment_id", "pipeline_version_reference", "runtime_config", "service_account")
        body = {name: one[name] for name in fields if name in one}
        body |= {"display_name": f"{one['display_name']}-tick-{len(self.runs)}"}
        return self._add_run(body, recurring_run_id=recurring_id)["run_id"]

    def pods(self, run_id, task):
        names = [node["name"] for node in self.nodes(run_id).values() if node["type"] == "Pod"]
        return [_pod(self._workflow(run_id), name) for name in names if f".{task}(0).executor(" in name]

    def now(self):
        """Return a time that is a second later at each call, because the server's times are in seconds."""
        self._clock += timedelta(seconds=1)
        return f"{self._clock:%Y-%m-%dT%H:%M:%SZ}"

    # The API, version 2.

    def healthz(self, query, body):
        return {
            "commit_sha": "c0ffee",
            "tag_name": "2.17.0",
            "multi_user": self.multi_user,
            "pipeline_store": "database",
        }

    def create_pipeline(self, query, body):
        if any(one["display_name"] == body["display_name"] for one in self.pipelines.values()):
            raise ErrorAnswer(409, 6, f"Already exist error: The name {body['display_name']} already exist")
        return self._add(self.pipelines, "pipeline_id", {"name": body["display_name"], **body})

    def list_pipelines(self, query, body):
        return self._page(self.pipelines, "pipelines", query, ("display_name", "name"))

    def upload_version(self, query, body):
        pipeline, name = query["pipelineid"], query["name"]
        if not any(self._is_spec(one) for one in yaml.safe_load_all(body)):
            raise ErrorAnswer(400, None, "Failed to read a pipeline spec file")
        if any(one["name"] == name and one["pipeline_id"] == pipeline for one in self.versions.values()):
            raise ErrorAnswer(409, None, "Failed to create a pipeline version")
        documents = list(yaml.safe_load_all(body))
        [spec] = [one for one in documents if self._is_spec(one)]
        platform = [one for one in documents if not self._is_spec(one)]
        made = self._add(
            self.versions,
            "pipeline_version_id",
            {
                "pipeline_id": pipeline,
                "name": name,
                "display_name": query.get("display_name", name),
                "pipeline_spec": {"pipeline_spec": spec, "platform_spec": platform[0]} if platform else spec,
            },
        )
        self.packages[made["pipeline_version_id"]] = body
        return made

    def list_versions(self, query, body, pipeline):
        versions = {key: one for key, one in self.versions.items() if one["pipeline_id"] == pipeline}
        return self._page(versions, "pipeline_versions", query, ("display_name", "name"))

    def get_version(self, query, body, pipeline, version):
        return self._get(self.versions, version, "PipelineVersion")

    def create_experiment(self, query, body):
        if any(one["display_name"] == body["display_name"] for one in self.experiments.values()):
            raise ErrorAnswer(409, 6, f"Already exist error: The name {body['display_name']} already exists")
        return self._add(self.experiments, "experiment_id", {**body, "storage_state": "AVAILABLE"})

    def list_experiments(self, query, body):
        return self._page(self.experiments, "experiments", query, ("display_name",))

    def create_run(self, query, body):
        return self._add_run(body)

    def list_runs(self, query, body):
        runs = {key: one for key, one in self.runs.items() if one["experiment_id"] == query["experiment_id"]}
        return self._page(runs, "runs", query, ("display_name", "recurring_run_id"))

    def get_run(self, query, body, run_id):
        return self._get(self.runs, run_id, "Run") | {"run_details": {"task_details": self._task_details(run_id)}}

    def create_recurring(self, query, body):
        trigger = body["trigger"]
        if "cron_schedule" in trigger and len(trigger["cron_schedule"]["cron"].split()) != 6:
            raise ErrorAnswer(400, 3, "Invalid input error: Schedule cron is not as robfig/cron reads it")
        if not 1 <= int(body["max_concurrency"]) <= 10:
            raise ErrorAnswer(400, 3, "Invalid input error: The max concurrency must be between 1 and 10")
        self._check_source(body)
        status = {"ENABLE": "ENABLED", "DISABLE": "DISABLED"}[body["mode"]]
        return self._add(self.recurring, "recurring_run_id", {**body, "status": status, "namespace": "kubeflow"})

    def list_recurring(self, query, body):
        found = {key: one for key, one in self.recurring.items() if one["experiment_id"] == query["experiment_id"]}
        return self._page(found, "recurringRuns", query, ("display_name",))

    def enable(self, query, body, one):
        self._get(self.recurring, one, "Job").update(mode="ENABLE", status="ENABLED")
        return {}

    def disable(self, query, body, one):
        self._get(self.recurring, one, "Job").update(mode="DISABLE", status="DISABLED")
        return {}

    def delete_recurring(self, query, body, one):
        self._get(self.recurring, one, "Job")
        del self.recurring[one]
        for run_id, run in self.runs.items():
            if run.get("recurring_run_id") == one and run["state"] in GONE_ON:
                self.ended_with_their_schedule.append(run_id)
        return {}

    # Other routes.

    def get_run_v1(self, query, body, run_id):
        """Return an apiRunDetail of backend/api/v1beta1/swagger/run.swagger.json."""
        run = self._get(self.runs, run_id, "Run")
        workflow = {"metadata": {"name": self._workflow(run_id)}, "status": {"nodes": self.nodes(run_id)}}
        return {
            "run": {"id": run_id, "name": run["display_name"]},
            "pipeline_runtime": {"workflow_manifest": json.dumps(workflow)},
        }

    def log(self, run_id, pod):
        """Return a log, or an error with status 200. A single-user server searches without a namespace, in vain."""
        if self.multi_user and pod in self.logs:
            return self.logs[pod]
        text = f"BadRequestError: Failed to read logs for run {run_id}: InternalServerError: Failed to read logs"
        return json.dumps({"error_message": text, "error_details": f"{text}\nat some line"}, separators=(",", ":"))

    def nodes(self, run_id):
        """Return Argo's nodes of a run: steps, drivers and groups. The pods of a step are below two more nodes.

        With kubeflow/manifests/pipelines/retries.yaml, each node has one attempt as its child.
        """
        name = self._workflow(run_id)
        nodes = {}

        def add(path, kind, template, boundary, state, started, finished):
            node = {
                "id": _id(name, path),
                "name": path,
                "displayName": path.rpartition(".")[2],
                "type": kind,
                "templateName": template,
                "phase": PHASES[state],
                "startedAt": started,
                "children": [],
            }
            if boundary:
                node["boundaryID"] = _id(name, boundary)
            if finished != NEVER:
                node["finishedAt"] = finished
            nodes[node["id"]] = node
            return node

        def add_tried(path, kind, *rest):
            above, attempt = add(path, "Retry", *rest), add(f"{path}(0)", kind, *rest)
            above["children"].append(attempt["id"])
            return above, attempt

        begun = self.runs[run_id]["created_at"]
        root, group = f"{name}(0).root", f"{name}(0).root(0).{GROUP}"
        for path, boundary in ((name, None), (root, f"{name}(0)"), (group, f"{root}(0)")):
            _, before = add_tried(path, "DAG", "root", boundary, "RUNNING", begun, NEVER)
            error = self.driver_errors.get(run_id) if path == root else None
            state = "FAILED" if error else "SUCCEEDED"
            _, driver = add_tried(f"{path}-driver", "Pod", "system-dag-driver", boundary, state, begun, begun)
            driver["message"] = error or ""
        for task, how in self.steps[run_id].items():
            times = how["state"], how["started"], how["finished"]
            above = f"{group}(0)"
            if task == "run-report":
                above = f"{group}.onExit(0)"
                add_tried(f"{group}.onExit", "DAG", "exit-hook-root-run-report", f"{root}(0)", *times)
            path = f"{above}.{task}"
            driver, driven = add_tried(
                f"{path}-driver", "Pod", "system-container-driver", above, "SUCCEEDED", how["started"], how["started"]
            )
            before["children"].append(driver["id"])
            step, tried = add_tried(path, "DAG", EXECUTOR, above, *times)
            driven["children"].append(step["id"])
            retry = add(f"{path}(0).executor", "Retry", IMPL, f"{path}(0)", *times)
            tried["children"].append(retry["id"])
            for attempt in range(how["attempts"]):
                last = attempt == how["attempts"] - 1
                state = how["state"] if last else "FAILED"
                pod = add(f"{path}(0).executor({attempt})", "Pod", IMPL, f"{path}(0)", state, *times[1:])
                if state == "FAILED":
                    pod["message"] = "pod deleted"
                retry["children"].append(pod["id"])
                before = pod  # the next task is a child of the last pod
        return nodes

    def _task_details(self, run_id):
        """Return task details as the server derives them from Argo's nodes. They do not name the pods of a task."""
        states = {phase: state for state, phase in PHASES.items()}
        return [
            {
                "run_id": run_id,
                "task_id": str(uuid.uuid5(uuid.NAMESPACE_OID, node["id"])),
                "display_name": node["displayName"],
                "create_time": self.runs[run_id]["created_at"],
                "start_time": node["startedAt"],
                "end_time": node.get("finishedAt", NOT_YET),
                "state": states[node["phase"]],
                "child_tasks": [{"pod_name": child} for child in node["children"]],
            }
            for _, node in sorted(self.nodes(run_id).items())
        ]

    def _workflow(self, run_id):
        return f"{self.runs[run_id]['display_name'].split('-')[0]}-{run_id[:5]}"

    def _add_run(self, body, **more):
        self._check_source(body)
        made = self._add(
            self.runs,
            "run_id",
            {**body, **more, "state": "PENDING", "storage_state": "AVAILABLE", "finished_at": NEVER},
        )
        made["scheduled_at"] = made["created_at"]
        self.steps[made["run_id"]] = {}
        return made

    def _check_source(self, body):
        reference = body["pipeline_version_reference"]
        version = self.versions.get(reference["pipeline_version_id"])
        if version is None:
            raise ErrorAnswer(500, 13, "InternalServerError: Failed to create a run due to error fetching manifest")
        if version["pipeline_id"] != reference["pipeline_id"]:
            raise ErrorAnswer(400, 3, "Invalid input error: Pipeline version belongs to another pipeline")
        if body["experiment_id"] not in self.experiments:
            raise ErrorAnswer(404, 5, "Experiment not found")
        spec = version["pipeline_spec"].get("pipeline_spec", version["pipeline_spec"])
        known = spec["root"].get("inputDefinitions", {}).get("parameters", {})
        if unknown := body.get("runtime_config", {}).get("parameters", {}).keys() - known.keys():
            raise ErrorAnswer(
                400, 3, f"Invalid input error: parameters {sorted(unknown)} are not in the pipeline's inputs"
            )

    def _add(self, into, key, content):
        made = {key: str(uuid.uuid4()), "created_at": self.now(), **content}
        into[made[key]] = made
        return made

    @staticmethod
    def _get(of, key, what):
        if key not in of:
            raise ErrorAnswer(404, 5, f"Failed to get: ResourceNotFoundError: {what} {key} not found.")
        return of[key]

    @staticmethod
    def _is_spec(document):
        return isinstance(document, dict) and document.get("schemaVersion") == "2.1.0" and "pipelineInfo" in document

    @staticmethod
    def _page(of, field, query, filtered):
        rows = list(of.values())
        for predicate in json.loads(query.get("filter", "{}")).get("predicates", []):
            key, value = predicate["key"], predicate["string_value"]
            if key not in filtered:
                raise ErrorAnswer(400, 3, f"Invalid input error: invalid filter key {key}")
            holds = {"EQUALS": str.__eq__, "IS_SUBSTRING": str.__contains__}[predicate["operation"]]
            rows = [row for row in rows if holds(row.get(key, ""), value)]
        if query.get("sort_by", "created_at desc") != "created_at desc":
            raise ErrorAnswer(400, 3, f"Invalid input error: Invalid sorting field: {query['sort_by']}")
        rows.sort(key=lambda row: row["created_at"], reverse=True)
        first, size = int(query.get("page_token") or 0), int(query.get("page_size") or 20)
        answer = {field: rows[first : first + size], "total_size": len(rows)}
        return answer | ({"next_page_token": str(first + size)} if first + size < len(rows) else {})


_V2 = "/apis/v2beta1"
# Method, path, function, type of the body, type of the answer.
_ROUTES = [
    ("GET", f"{_V2}/healthz", Kfp.healthz, None, "V2beta1GetHealthzResponse"),
    ("POST", f"{_V2}/pipelines", Kfp.create_pipeline, "V2beta1Pipeline", "V2beta1Pipeline"),
    ("GET", f"{_V2}/pipelines", Kfp.list_pipelines, None, "V2beta1ListPipelinesResponse"),
    ("POST", f"{_V2}/pipelines/upload_version", Kfp.upload_version, "file", "V2beta1PipelineVersion"),
    ("GET", f"{_V2}/pipelines/([^/]+)/versions", Kfp.list_versions, None, "V2beta1ListPipelineVersionsResponse"),
    ("GET", f"{_V2}/pipelines/([^/]+)/versions/([^/]+)", Kfp.get_version, None, "V2beta1PipelineVersion"),
    ("POST", f"{_V2}/experiments", Kfp.create_experiment, "V2beta1Experiment", "V2beta1Experiment"),
    ("GET", f"{_V2}/experiments", Kfp.list_experiments, None, "V2beta1ListExperimentsResponse"),
    ("POST", f"{_V2}/runs", Kfp.create_run, "V2beta1Run", "V2beta1Run"),
    ("GET", f"{_V2}/runs", Kfp.list_runs, None, "V2beta1ListRunsResponse"),
    ("GET", f"{_V2}/runs/([^/:]+)", Kfp.get_run, None, "V2beta1Run"),
    ("POST", f"{_V2}/recurringruns", Kfp.create_recurring, "V2beta1RecurringRun", "V2beta1RecurringRun"),
    ("GET", f"{_V2}/recurringruns", Kfp.list_recurring, None, "V2beta1ListRecurringRunsResponse"),
    ("POST", f"{_V2}/recurringruns/([^/:]+):enable", Kfp.enable, None, "object"),
    ("POST", f"{_V2}/recurringruns/([^/:]+):disable", Kfp.disable, None, "object"),
    ("DELETE", f"{_V2}/recurringruns/([^/:]+)", Kfp.delete_recurring, None, "object"),
    ("GET", "/apis/v1beta1/runs/([^/]+)", Kfp.get_run_v1, None, "v1"),
]
_UNDOCUMENTED = {"V2beta1GetHealthzResponse": {"commit_sha", "tag_name"}}  # the server's main.go writes them


def problems(value, kind, at=""):
    """Return the deviations of a JSON value from a type of the API's definition in kfp_server_api."""
    if match := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            return [f"{at} is not a list"]
        return [problem for index, one in enumerate(value) for problem in problems(one, match[1], f"{at}[{index}]")]
    if match := re.fullmatch(r"dict\(str, (.+)\)", kind):
        if not isinstance(value, dict):
            return [f"{at} is not an object"]
        return [problem for key, one in value.items() for problem in problems(one, match[1], f"{at}.{key}")]
    if kind == "object":
        return []
    if kind == "datetime":
        with contextlib.suppress(ValueError, TypeError):
            isoparse(value)
            return []
        return [f"{at} {value!r} is not a time"]
    if basic := {"str": str, "int": int, "bool": bool}.get(kind):
        return [] if type(value) is basic else [f"{at} {value!r} is not of type {kind}"]
    model = getattr(kfp_server_api, kind)
    if hasattr(model, "allowable_values"):
        return [] if value in model.allowable_values else [f"{at} {value!r} is not one of {model.allowable_values}"]
    if not isinstance(value, dict):
        return [f"{at} is not an object"]
    kinds = {model.attribute_map[name]: of for name, of in model.openapi_types.items()}
    known = kinds.keys() | _UNDOCUMENTED.get(kind, set())
    return [f"{at}.{key} is not in the definition of {kind}" for key in value.keys() - known] + [
        problem for key in value.keys() & kinds.keys() for problem in problems(value[key], kinds[key], f"{at}.{key}")
    ]


@contextlib.contextmanager
def serve(kfp, certificate=None):
    """Start the server. Yields its address. `certificate` is a file with a certificate and its key, for https."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # sends an answer as one packet, because a second packet would be delayed by 40 ms

        def handle_any(self):
            url = urlsplit(self.path)
            query = {key: values[-1] for key, values in parse_qs(url.query).items()}
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            line = f"{self.command} {url.path}"
            kfp.requests.append(line)
            failure = next((one for one in kfp.failures if one.times and re.search(one.pattern, line)), None)
            if failure:
                failure.times -= 1
                time.sleep(failure.delay_s)
                if failure.status >= 0:
                    if failure.done:
                        self.answer_of(url.path, query, body)
                    if not failure.status:
                        self.close_connection = True
                        return
                    self.send(failure.status, failure.body, failure.kind, failure.headers)
                    return
            self.send(*self.answer_of(url.path, query, body))

        do_GET = do_POST = do_DELETE = handle_any

        def answer_of(self, path, query, body):
            if kfp.token and self.headers.get("Authorization") != f"Bearer {kfp.token}":
                return 401, json.dumps(
                    {"code": 16, "message": "Request header error: there is no user identity header."}
                )
            if match := re.fullmatch(r"/apis/v1alpha1/runs/([^/]+)/nodes/([^/]+)/log", path):
                if not kfp.page:
                    return 200, kfp.log(*match.groups()), "text/plain"
            elif path == "/k8s/pod/logs" and kfp.page:
                found = kfp.logs.get(query["podname"])
                if found is not None:
                    return 200, found, "text/plain"
                return 500, "Could not get main container logs: Error: Unable to retrieve workflow status", "text/html"
            else:
                with contextlib.suppress(StopIteration):
                    return self.answer_of_api(path, query, body)
            if kfp.page:
                return 404, f"<!DOCTYPE html><html><pre>Cannot GET {path}</pre></html>", "text/html"
            return 404, json.dumps({"code": 5, "message": "Not Found"})

        def answer_of_api(self, path, query, body):
            route = next(one for one in _ROUTES if one[0] == self.command and re.fullmatch(one[1], path))
            pattern, answers, takes, gives = route[1:]
            try:
                if takes == "file":
                    content = self.uploaded(body)
                elif takes:
                    content = json.loads(body)
                    if found := problems(content, takes):
                        raise ErrorAnswer(400, 3, f"proto: {found[0]}")
                else:
                    content = None
                answer = answers(kfp, query, content, *re.fullmatch(pattern, path).groups())
            except ErrorAnswer as error:
                if error.code is None:  # the upload server uses other fields
                    content = {"error_message": str(error), "error_details": f"Error: {error}"}
                else:
                    content = {"code": error.code, "message": str(error), "details": []}
                return error.status, json.dumps(content)
            if gives != "v1":
                found = problems(answer, gives)
                assert not found, found
            return 200, json.dumps(answer)

        def uploaded(self, body):
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            message = email.message_from_bytes(head + body, policy=email.policy.default)
            [part] = [one for one in message.iter_parts() if one.get_param("name", header="content-disposition")]
            assert part.get_filename().endswith(".yaml")
            return part.get_payload(decode=True).decode()

        def send(self, status, text, kind="application/json", headers=()):
            with contextlib.suppress(ConnectionError):  # the client has timed out
                self.send_response(status)
                for name, value in {"Content-Type": kind, **dict(headers)}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def _id(workflow, path):
    return workflow if path == workflow else f"{workflow}-{int(hashlib.sha256(path.encode()).hexdigest()[:8], 16)}"


def _pod(workflow, path):
    return f"{workflow}-{IMPL}-{_id(workflow, path).rpartition('-')[2]}"
