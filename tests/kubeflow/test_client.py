"""Requests of the client over a real socket, and its handling of answers and failures."""

import ipaddress
import itertools
import re
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from components.errors import ClusterError, Exit, NotFound, SettingsError, UsageError
from kubeflow import schedule, watch
from kubeflow.client import Client
from kubeflow.connection import OutcomeUnknownError, ServerUnavailableError, Timeouts
from pipeline.outcome import NodeState
from pipeline.settings import load
from tests.helpers import kfp_server

TOKEN = "t0ken.of-somebody"
MANUAL = {"trigger": "manual", "reason": ""}
NIGHTLY = {"trigger": "schedule", "reason": ""}


@pytest.fixture
def messages():
    return []


@pytest.fixture
def settings(endpoint):
    return load("sample", [f"kubeflow.endpoint={endpoint}"], environment={})


@pytest.fixture
def client(settings, messages):
    return connected(settings, messages)


def connected(settings, messages=None, answer_s=2):
    timeouts = Timeouts(connect_s=2, answer_s=answer_s, back_off_s=0.01)
    return Client(settings, (messages if messages is not None else []).append, timeouts)


@pytest.fixture
def version(client, packages):
    return client.deploy(packages[0].read_text(), "c0de")


@pytest.fixture
def run(client, version):
    return client.start(version, "sample-1", MANUAL)


def steps(kfp, run, *tasks):
    for task, state, *log in tasks:
        kfp.play(run.id, task, state, *log)


# Deploying and starting.


def test_an_equal_package_is_uploaded_once(kfp, client, packages):
    first = client.deploy(packages[0].read_text(), "c0de")
    again = client.deploy(packages[0].read_text(), "other-c0de")
    other = client.deploy(packages[1].read_text(), "c0de")
    back = client.deploy(packages[0].read_text(), "c0de")
    assert first.new and other.new and not again.new and not back.new
    assert first.id == again.id == back.id != other.id
    assert re.fullmatch("c0de-[0-9a-f]{12}", first.name) and len(kfp.pipelines) == 1
    assert kfp.packages[first.id] == packages[0].read_text()


@pytest.mark.parametrize("path", ["POST /apis/v2beta1/pipelines$", "POST .*/upload_version", "POST .*/experiments"])
def test_a_name_conflict_reuses_the_existing_resource(kfp, client, packages, path):
    """The server answers 409, although it has carried out the request."""
    kfp.fail(path, 409, done=True, body='{"code": 6, "message": "Already exist error"}')
    version = client.deploy(packages[0].read_text(), "c0de")
    client.start(version, "sample-1", MANUAL)
    assert (len(kfp.pipelines), len(kfp.versions), len(kfp.experiments)) == (1, 1, 1)


def test_a_run_has_the_version_and_parameters_it_was_started_with(kfp, client, version):
    run = client.start(version, "sample-1", {**MANUAL, "span": 2})
    made = kfp.runs[run.id]
    assert made["pipeline_version_reference"]["pipeline_version_id"] == version.id
    assert made["runtime_config"]["parameters"] == {**MANUAL, "span": 2}
    assert made["service_account"] == "vitpipe-steps"
    assert kfp.experiments[made["experiment_id"]]["display_name"] == "sample"


def test_a_run_is_found_if_the_answer_to_its_creation_was_lost(kfp, client, version):
    kfp.fail("POST .*/runs", 0, done=True)
    run = client.start(version, "sample-1", MANUAL)
    assert list(kfp.runs) == [run.id]


def test_a_creation_with_unknown_outcome_is_not_repeated(kfp, client, version):
    kfp.fail("POST .*/runs", 504)
    with pytest.raises(OutcomeUnknownError, match=r"504.*unknown whether the run was started.*`vitpipe kfp status`"):
        client.start(version, "sample-1", MANUAL)
    assert len(kfp.asked("POST .*/runs")) == 1


@pytest.mark.parametrize("users", [False, True])
def test_a_namespace_is_sent_only_to_a_multi_user_server(kfp, packages, settings, users):
    kfp.multi_user = users
    client = connected(settings)
    client.start(client.deploy(packages[0].read_text(), "c0de"), "sample-1", MANUAL)
    named = {one.get("namespace") for one in (*kfp.pipelines.values(), *kfp.experiments.values())}
    assert named == ({"kubeflow"} if users else {None})


# Runs, steps and logs.


def test_the_tasks_of_a_run_are_its_containers(kfp, client, run):
    steps(kfp, run, ("start", "SUCCEEDED"), ("trainer", "RUNNING"))
    found = client.run(run.id)
    assert [(task.node, task.state) for task in found.tasks] == [
        ("Start", "SUCCEEDED"),
        ("Trainer", "RUNNING"),
        ("RunReport", "PENDING"),
        ("Verdict", "PENDING"),
    ]
    assert found.tasks[0].seconds == 3 and found.tasks[1].finished is None and found.tasks[2].seconds is None
    assert found.state == "RUNNING" and not found.ended


@pytest.mark.parametrize("page", [False, True])
def test_every_attempt_has_a_pod_with_its_log(kfp, client, run, page):
    """Logs are read through the web page (`page`), or from a multi-user API server."""
    kfp.page, kfp.multi_user = page, not page
    kfp.play(run.id, "start", "SUCCEEDED", "of the start")
    kfp.play(run.id, "trainer", "SUCCEEDED", "at last", attempts=3)
    pods = client.pods(run.id)["trainer"]
    assert pods == kfp.pods(run.id, "trainer") and len(pods) == 3
    assert [client.log(run.id, pod) for pod in pods] == ["an attempt that failed\n"] * 2 + ["at last"]


def test_the_log_of_a_deleted_pod_is_an_error(kfp, client, run):
    with pytest.raises(ClusterError, match="Could not get main container logs"):
        client.log(run.id, "gone")
    kfp.page = False
    with pytest.raises(ClusterError, match="Failed to read logs for run"):
        client.log(run.id, "gone")


def test_a_run_is_found_by_id_name_prefix_or_last(kfp, client, version):
    runs = [client.start(version, name, MANUAL) for name in ("sample-a1", "sample-a2", "sample-b1")]
    assert client.find(runs[0].id).id == client.find(runs[0].id[:8]).id == client.find("sample-a1").id == runs[0].id
    assert client.find("last").id == client.find("sample-b").id == runs[2].id
    with pytest.raises(NotFound, match="sample-a is the beginning of 2 runs: sample-a2, sample-a1"):
        client.find("sample-a")
    with pytest.raises(NotFound, match=r"no run sample-x1 of sample at .*: the nearest are sample-"):
        client.find("sample-x1")
    assert [run.id for run in client.runs()] == [run.id for run in reversed(runs)]


def test_a_run_of_another_pipeline_is_found_by_its_id(client, run, endpoint):
    elsewhere = connected(load("cifar10", [f"kubeflow.endpoint={endpoint}"], environment={}))
    assert elsewhere.find(run.id).name == "sample-1"


def test_without_runs_the_error_suggests_submit(client, endpoint):
    with pytest.raises(NotFound, match=f"sample has no run at {endpoint}: start one with `vitpipe kfp submit`"):
        client.find("last")


# Watching.


class Recorder:
    def __init__(self):
        self.started, self.ended = [], []

    def watch(self, client, run):
        return watch.watch(client, run.id, started=self.started.append, ended=self.ended.append)


@pytest.fixture
def recorder(monkeypatch):
    monkeypatch.setattr(watch, "POLL_S", 0.01)
    return Recorder()


def run_between_polls(monkeypatch, *moments):
    """Call one of the functions during each wait of the client."""
    left = iter(moments)

    def sleep(_):
        next(left, lambda: None)()

    monkeypatch.setattr(watch.time, "sleep", sleep)


NOISE = 'I1125 10:00:00.000000      1 launcher_v2.go:206] ExecutorOutput: {\n\t"parameters": {}\n}\n'


def test_each_outcome_is_reported_once(kfp, client, run, recorder, monkeypatch):
    def first():
        steps(kfp, run, ("start", "SUCCEEDED", "vitpipe: exit 0: run x: span 1 of data\n"), ("trainer", "RUNNING"))

    def then():
        log = f"{NOISE}vitpipe: exit 0: Trainer is cached\n{NOISE}"
        steps(kfp, run, ("trainer", "SUCCEEDED", log), ("verdict", "SKIPPED"), ("run-report", "FAILED"))
        kfp.end(run.id, "FAILED")

    run_between_polls(monkeypatch, first, lambda: None, then)
    assert recorder.watch(client, run).state == "FAILED"
    assert [(one.node, one.state, one.seconds) for one in recorder.ended] == [
        ("Start", NodeState.COMPLETE, 3),
        ("Trainer", NodeState.CACHED, 3),
        ("Verdict", NodeState.SKIPPED, 3),
        ("RunReport", NodeState.FAILED, 3),
    ]
    assert [activity for activity, _ in itertools.groupby(recorder.started)] == ["waiting", "Trainer"]


def test_watching_continues_after_a_short_outage(kfp, client, run, recorder, messages, monkeypatch):
    kfp.fail(f"GET .*/runs/{run.id}", 503, times=7)
    run_between_polls(monkeypatch, lambda: kfp.end(run.id, "SUCCEEDED"))
    assert recorder.watch(client, run).state == "SUCCEEDED"
    assert "is not ready: 503" in messages[0] and messages[0].endswith("(2 of 4)") and len(messages) == 6


def test_watching_ends_after_a_long_outage(kfp, client, run, recorder, monkeypatch):
    monkeypatch.setattr(watch, "_UNAVAILABLE_S", 0)
    kfp.fail(f"GET .*/runs/{run.id}", 503, times=99)
    with pytest.raises(ServerUnavailableError, match=r"tried 4 times: .* the run itself continues"):
        recorder.watch(client, run)


VERDICT = "vitpipe: blessed: accuracy 0.97\nvitpipe: pushed version 2\nvitpipe: exit 0: done\n"
REFUSED = "vitpipe: not blessed, nothing pushed:\nvitpipe:   accuracy 0.1\nvitpipe: exit 4: not blessed\n"
CRASHED = "Trace\nvitpipe: the log: runs/x.log\nvitpipe: exit 1: crashed in Trainer: out of memory\n"


@pytest.mark.parametrize(
    ("state", "tasks", "code", "lines"),
    [
        (
            "SUCCEEDED",
            [("verdict", "SUCCEEDED", NOISE + VERDICT + NOISE)],
            0,
            ["blessed: accuracy 0.97", "pushed version 2"],
        ),
        ("FAILED", [("verdict", "FAILED", REFUSED)], 4, ["not blessed, nothing pushed:", "  accuracy 0.1"]),
        ("FAILED", [("start", "FAILED", "vitpipe: exit 2: run y is running: wait\n")], 2, ["run y is running: wait"]),
        ("FAILED", [("start", "FAILED", "vitpipe: exit 3: data refused: no span\n")], 3, ["data refused: no span"]),
        (
            "FAILED",
            [("start", "SUCCEEDED", ""), ("trainer", "FAILED", CRASHED), ("run-report", "SUCCEEDED", "")],
            1,
            ["the log: runs/x.log", "crashed in Trainer: out of memory"],
        ),
        ("FAILED", [("trainer", "FAILED", "vitpipe: exit 143: terminated\n")], 1, ["terminated"]),
        (
            "FAILED",
            [("trainer", "FAILED", "epoch 1\nepoch 2\n")],
            1,
            [
                "epoch 1",
                "epoch 2",
                "crashed in Trainer: it was killed. If its pod says OOMKilled, its memory limit of 4Gi is too low: set "
                "kubeflow.steps.Trainer.memory higher. Otherwise its machine was lost or its pod was deleted",
            ],
        ),
        # A report that fails does not change the result.
        (
            "FAILED",
            [("verdict", "SUCCEEDED", VERDICT), ("run-report", "FAILED", "")],
            0,
            ["blessed: accuracy 0.97", "pushed version 2"],
        ),
        (
            "CANCELED",
            [("trainer", "FAILED", "epoch 1\n")],
            1,
            ["terminated on the cluster before it came to a verdict"],
        ),
        ("FAILED", [], 1, ["crashed before its steps, or between them"]),
    ],
)
def test_a_run_ends_with_the_exit_code_of_a_local_run(kfp, client, run, state, tasks, code, lines):
    steps(kfp, run, *tasks)
    kfp.end(run.id, state)
    end = watch.read_ending(client, client.run(run.id))
    assert (end.exit, end.lines) == (Exit(code), lines)


def test_a_driver_that_failed_explains_the_crash(kfp, client, run):
    kfp.driver_errors[run.id] = "wait: Error (exit code 64): the bucket\ndoes not exist"
    kfp.end(run.id, "FAILED")
    [line] = watch.read_ending(client, client.run(run.id)).lines
    assert line.endswith("or between them: root-driver: wait: Error (exit code 64): the bucket does not exist")


@pytest.mark.parametrize(("state", "errors"), [("SUCCEEDED", []), ("FAILED", ["executor: pod deleted"] * 2)])
def test_a_pod_whose_retry_succeeded_explains_no_crash(kfp, client, run, state, errors):
    steps(kfp, run, ("trainer", state, "x"))
    kfp.steps[run.id]["trainer"]["attempts"] = 2
    assert client.pod_errors(run.id) == errors


def test_a_missing_log_suggests_kubectl(kfp, client, run):
    steps(kfp, run, ("trainer", "FAILED", "x"))
    kfp.end(run.id, "FAILED")
    [pod] = kfp.pods(run.id, "trainer")
    kfp.logs.clear()
    end = watch.read_ending(client, client.run(run.id))
    assert end.exit is Exit.CRASHED and end.lines[0].startswith("Trainer failed, and its log cannot be read: ")
    assert end.look == f"kubectl logs -n kubeflow {pod} -c main"


def test_a_result_without_logs_suggests_kubectl_for_all_pods(kfp, client, run):
    steps(kfp, run, ("verdict", "SUCCEEDED", VERDICT))
    kfp.end(run.id, "SUCCEEDED")
    kfp.fail("/apis/v1beta1", 404, times=99)
    end = watch.read_ending(client, client.run(run.id))
    assert end.exit is Exit.OK and "cannot be read" in end.lines[0]
    assert end.look == f"kubectl logs -n kubeflow -l pipeline/runid={run.id} --prefix --tail=-1 -c main"


# Schedules.


def test_a_schedule_starts_one_run_at_a_time_without_catchup(kfp, client, version):
    assert schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    [made] = kfp.recurring.values()
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("1", True, "ENABLE")
    assert made["runtime_config"]["parameters"] == NIGHTLY and made["service_account"] == "vitpipe-steps"
    assert not schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    assert len(kfp.asked("POST .*/recurringruns$")) == 1


def test_a_new_schedule_replaces_the_old_one(kfp, client, version):
    schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    assert schedule.put(client, version, NIGHTLY, cron="", interval_s=3600)
    [made] = kfp.recurring.values()
    assert made["trigger"]["periodic_schedule"]["interval_second"] == "3600"


@pytest.mark.parametrize("enabled", [True, False])
def test_moving_a_schedule_keeps_its_times_and_state(kfp, client, version, packages, enabled):
    schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    if not enabled:
        client.disable(schedule.current(client))
    new = client.deploy(packages[1].read_text(), "c0de")
    assert schedule.move(client, new) and not schedule.move(client, new)
    [made] = kfp.recurring.values()
    assert made["pipeline_version_reference"]["pipeline_version_id"] == new.id
    assert made["trigger"] == {"cron_schedule": {"cron": "0 0 3 * * *"}}
    assert made["mode"] == ("ENABLE" if enabled else "DISABLE")


def test_moving_without_a_schedule_does_nothing(kfp, client, version):
    assert not schedule.move(client, version) and not kfp.recurring


def test_moving_a_schedule_does_not_delete_its_run(kfp, client, version, packages):
    """Kubernetes deletes running runs together with the schedule that started them."""
    schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    [old] = kfp.recurring
    run_id = kfp.tick(old)
    schedule.move(client, client.deploy(packages[1].read_text(), "c0de"))
    modes = {key: one["mode"] for key, one in kfp.recurring.items()}
    assert modes.pop(old) == "DISABLE" and list(modes.values()) == ["ENABLE"]
    kfp.end(run_id, "SUCCEEDED")
    assert schedule.current(client).id in modes and list(kfp.recurring) == list(modes)
    assert kfp.ended_with_their_schedule == []


@pytest.mark.parametrize("broken", ["POST .*:disable", "GET .*/runs$", "DELETE "])
def test_an_interrupted_move_is_finished_by_the_next_call(kfp, client, version, packages, broken):
    schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    [old] = kfp.recurring
    new = client.deploy(packages[1].read_text(), "c0de")
    kfp.fail(broken, 500)
    with pytest.raises(ClusterError):
        schedule.move(client, new)
    assert any(one["mode"] == "ENABLE" for one in kfp.recurring.values())  # there is always a schedule
    assert not schedule.move(client, new)
    [left] = kfp.recurring
    assert left != old and kfp.recurring[left]["mode"] == "ENABLE"


def test_a_failed_move_leaves_the_old_schedule(kfp, client, version, packages):
    schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    before = dict(kfp.recurring)
    kfp.fail("POST .*/recurringruns$", 503, times=9)
    with pytest.raises(ServerUnavailableError, match="is not ready: 503"):
        schedule.move(client, client.deploy(packages[1].read_text(), "c0de"))
    assert kfp.recurring == before


def test_an_interval_continues_after_a_move(kfp, client, version, packages):
    """Moving a schedule must not shift its times; `kubeflow.schedule._last_moment` explains how."""
    schedule.put(client, version, NIGHTLY, cron="", interval_s=3600)
    [made] = kfp.recurring.values()
    began = datetime.now(UTC) - timedelta(hours=50, minutes=20)
    made["trigger"]["periodic_schedule"]["start_time"] = began.isoformat()
    schedule.move(client, client.deploy(packages[1].read_text(), "c0de"))
    [moved] = kfp.recurring.values()
    since = datetime.fromisoformat(moved["trigger"]["periodic_schedule"]["start_time"])
    assert since == began + timedelta(hours=50)


def test_a_schedule_with_another_name_is_ignored(kfp, client, version):
    schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    [ours] = kfp.recurring.values()
    kfp.recurring["theirs"] = {**ours, "recurring_run_id": "theirs", "display_name": "by hand", "created_at": kfp.now()}
    assert schedule.current(client).id == ours["recurring_run_id"] and "theirs" in kfp.recurring


def test_deleting_a_schedule_waits_for_its_run(kfp, client, version):
    schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    [one] = kfp.recurring
    run_id = kfp.tick(one)
    with pytest.raises(UsageError, match=f"paused, but not deleted: its run {run_id} is running"):
        schedule.delete(client)
    assert kfp.recurring[one]["mode"] == "DISABLE" and kfp.tick(one) is None
    kfp.end(run_id, "SUCCEEDED")
    schedule.delete(client)
    assert not kfp.recurring and not kfp.ended_with_their_schedule


def test_deleting_removes_schedules_left_by_a_move_during_a_run(kfp, client, version, packages):
    schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    [old] = kfp.recurring
    run_id = kfp.tick(old)
    schedule.move(client, client.deploy(packages[1].read_text(), "c0de"))
    with pytest.raises(UsageError, match=f"run {run_id} is running"):
        schedule.delete(client)
    assert {one["mode"] for one in kfp.recurring.values()} == {"DISABLE"}
    kfp.end(run_id, "SUCCEEDED")
    schedule.delete(client)
    assert schedule.current(client) is None and not kfp.recurring


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_run_created_despite_an_error_status_is_not_created_twice(kfp, client, version, status):
    kfp.fail("POST .*/runs$", status, done=True)
    made = client.start(version, "sample-1", {})
    assert list(kfp.runs) == [made.id]


# Servers that fail or answer something unexpected.


def test_a_busy_server_is_tried_four_times(kfp, settings, messages):
    kfp.fail("healthz", 503, times=3)
    connected(settings, messages)
    assert len(kfp.requests) == 4 and [line[-8:] for line in messages] == ["(2 of 4)", "(3 of 4)", "(4 of 4)"]
    kfp.fail("healthz", 503, times=4)
    with pytest.raises(ServerUnavailableError, match=r"tried 4 times: http\S+ is not ready: 503 .*out of order"):
        connected(settings)


def test_a_page_waits_for_the_api_server_behind_it(kfp, settings, messages):
    not_ready = {"status": 200, "body": '{"frontendTagName": "2.17.0", "apiServerReady": false}'}
    kfp.fail("healthz", times=3, **not_ready)
    connected(settings, messages)
    assert len(kfp.requests) == 4 and "the API server behind it does not answer" in messages[0]
    kfp.fail("healthz", times=4, **not_ready)
    with pytest.raises(ServerUnavailableError, match=r"tried 4 times: .*kubectl get pods -l app=ml-pipeline"):
        connected(settings)


def test_a_slow_server_times_out_after_the_answer_limit(kfp, settings, messages):
    kfp.fail("healthz", -1, delay_s=0.5)
    connected(settings, messages, answer_s=0.2)
    assert "did not answer within 0.2 s; trying again" in messages[0]
    kfp.fail("healthz", -1, times=4, delay_s=0.5)
    with pytest.raises(ServerUnavailableError, match=r"tried 4 times: \S+ did not answer within 0.2 s"):
        connected(settings, answer_s=0.2)


def test_a_change_with_unknown_outcome_is_not_repeated(kfp, client, version):
    kfp.fail("POST .*/recurringruns$", 0, done=True)
    with pytest.raises(OutcomeUnknownError, match="closed the connection"):
        schedule.put(client, version, NIGHTLY, cron="0 0 3 * * *", interval_s=0)
    assert len(kfp.recurring) == len(kfp.asked("POST .*/recurringruns$")) == 1


@pytest.mark.parametrize(
    ("failure", "error", "message"),
    [
        ({"status": 403, "body": '{"code": 7, "message": "not yours"}'}, SettingsError, "403 .*not yours.*more rights"),
        ({"status": 302, "headers": {"Location": "http://login.example/"}}, SettingsError, "requires a token .302"),
        ({"status": 200, "body": "<html>log in</html>", "kind": "text/html"}, ClusterError, "it sent text/html"),
        ({"status": 200, "body": '{"status": "up"}'}, ClusterError, "an unknown health report"),
        (
            {"status": 404, "body": "404 page not found"},
            ClusterError,
            "does not have the API of Kubeflow Pipelines 2 .* server is older",
        ),
        ({"status": 500, "body": "<html>oops</html>"}, ClusterError, "rejects the request: 500"),
        ({"status": 500, "body": '{"message": "' + 900 * "x" + '"}'}, ClusterError, "x{400} ...$"),
    ],
)
def test_an_unexpected_answer_names_its_cause(kfp, settings, failure, error, message):
    kfp.fail("healthz", **failure)
    with pytest.raises(error, match=message):
        connected(settings)
    assert len(kfp.requests) == 1


def test_an_unreachable_server_suggests_its_address(messages):
    with pytest.raises(
        ServerUnavailableError, match=r"tried 4 times: no Kubeflow Pipelines at http://127.0.0.1:9: .*port-forward"
    ):
        connected(load("sample", ["kubeflow.endpoint=http://127.0.0.1:9"], environment={}), messages)
    with pytest.raises(ServerUnavailableError, match=r"no Kubeflow Pipelines at http://nowhere\.invalid: "):
        connected(load("sample", ["kubeflow.endpoint=http://nowhere.invalid"], environment={}))


@pytest.mark.parametrize("address", ["localhost:8080", "ftp://h", "http://"])
def test_an_invalid_endpoint_is_rejected(address):
    with pytest.raises(SettingsError, match=r"kubeflow\.endpoint .* is not an address: write http://HOST:PORT"):
        connected(load("sample", [f"kubeflow.endpoint={address}"], environment={}))


def test_a_password_in_the_endpoint_is_not_printed():
    with pytest.raises(SettingsError, match="VITPIPE_KUBEFLOW__TOKEN") as raised:
        connected(load("sample", ["kubeflow.endpoint=http://me:s3cret@h"], environment={}))
    assert "s3cret" not in str(raised.value)


def test_a_token_is_sent_and_a_rejected_one_is_not_printed(kfp, endpoint):
    def settings(token):
        variables = {"VITPIPE_KUBEFLOW__TOKEN": token}
        return load("sample", [f"kubeflow.endpoint={endpoint}"], environment=variables)

    kfp.token = TOKEN
    connected(settings(f"{TOKEN}\n"))
    for token, what in (("", "requires a token"), ("wr0ng", "rejects the token")):
        with pytest.raises(SettingsError, match=what) as raised:
            connected(settings(token))
        assert "VITPIPE_KUBEFLOW__TOKEN" in str(raised.value) and TOKEN not in str(raised.value)
        assert not token or token not in str(raised.value)
    with pytest.raises(SettingsError, match="characters beyond ASCII, or several lines"):
        connected(settings("two\nlines"))


def test_a_token_does_not_follow_a_redirect(kfp, endpoint):
    elsewhere = kfp_server.Kfp()
    with kfp_server.serve(elsewhere) as other:
        kfp.fail("healthz", 307, headers={"Location": f"{other}/apis/v2beta1/healthz"})
        variables = {"VITPIPE_KUBEFLOW__TOKEN": TOKEN}
        with pytest.raises(SettingsError, match="307"):
            connected(load("sample", [f"kubeflow.endpoint={endpoint}"], environment=variables))
    assert elsewhere.requests == []


def test_a_certificate_is_trusted_if_ssl_cert_file_names_it(kfp, tmp_path, monkeypatch):
    file = tmp_path / "own.pem"
    file.write_bytes(own_certificate())
    with kfp_server.serve(kfp, file) as address:
        settings = load("sample", [f"kubeflow.endpoint={address}"], environment={})
        with pytest.raises(ClusterError, match=r"not trusted: .*self-signed certificate.* the variable SSL_CERT_FILE"):
            connected(settings)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        connected(settings)


def own_certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kfp")])
    now, day = datetime.now(UTC), timedelta(days=1)
    made = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - day, now + day)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    certificate = made.add_extension(address, critical=False).sign(key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    own = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(pem) + own


def test_the_test_server_detects_deviations_from_the_api_definition():
    """The server compares all its answers with the definition. The comparison must find deviations."""
    assert kfp_server.problems({"run_id": "x", "created_at": "2026-01-01T00:00:00Z"}, "V2beta1Run") == []
    for wrong in ({"runid": "x"}, {"run_id": 1}, {"created_at": "soon"}, {"state": "DONE"}, {"run_details": []}):
        assert kfp_server.problems(wrong, "V2beta1Run")
    assert kfp_server.problems({"max_concurrency": 1}, "V2beta1RecurringRun")  # Go writes int64 as a string
