"""Output and exit codes of the `vitpipe kfp` commands, run against a server."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kubeflow import watch
from tests.helpers import kfp_server
from vitpipe.cli import main

ROOT = Path(__file__).parents[2]
TOKEN = "t0ken.of-somebody"
VERDICT = "vitpipe: pushed version 1 to runs/sample/serving/1\nvitpipe: exit 0: done\n"
REFUSED = "vitpipe: not blessed, nothing pushed:\nvitpipe:   accuracy 0.1\nvitpipe: exit 4: not blessed\n"


@pytest.fixture
def vitpipe(endpoint, monkeypatch, capfd, tmp_path):
    """Function that runs a command in this process. Returns exit code, standard output and standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITPIPE_KUBEFLOW__ENDPOINT", endpoint)
    monkeypatch.setenv("VITPIPE_KUBEFLOW__TOKEN", TOKEN)
    monkeypatch.setattr(watch, "POLL_S", 0.01)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vitpipe", "kfp", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        done = capfd.readouterr()
        assert TOKEN not in done.out + done.err and "Traceback" not in done.err
        return ended.value.code or 0, done.out, done.err

    return run


@pytest.fixture
def kfp():
    return kfp_server.Kfp(token=TOKEN)


@pytest.fixture
def submitted(vitpipe, kfp, packages):
    code, out, _ = vitpipe("submit", "--package", packages[0])
    assert code == 0
    return re.match(r"run (\S+)\n", out)[1]


def start_process(endpoint, *arguments, **variables):
    line = [sys.executable, "-m", "vitpipe", "kfp", *map(str, arguments)]
    environment = {
        "PYTHONPATH": str(ROOT),
        "VITPIPE_KUBEFLOW__ENDPOINT": endpoint,
        "PATH": os.environ["PATH"],
        **variables,
    }
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=environment)


def test_submit_prints_the_run_and_its_page(vitpipe, kfp, packages, endpoint):
    code, out, err = vitpipe("submit", "--package", packages[0], "--span", 2, "--reason", "the new camera")
    [run_id] = kfp.runs
    assert code == 0 and out == f"run {run_id}\n{endpoint}/#/runs/details/{run_id}\n"
    assert re.search("deployed: version .+-[0-9a-f]{12}\n", err)
    assert kfp.runs[run_id]["runtime_config"]["parameters"] == {
        "trigger": "manual",
        "reason": "the new camera",
        "span": 2,
    }
    code, _, err = vitpipe(
        "submit", "--package", packages[0], "--accept", "drift_colour", "--reason", "darker", "--take-over", run_id
    )
    assert code == 0 and "already deployed: version" in err and len(kfp.versions) == 1
    assert list(kfp.runs.values())[-1]["runtime_config"]["parameters"] == {
        "trigger": "manual",
        "reason": "darker",
        "accept": "drift_colour",
        "take_over": run_id,
    }


def test_submit_compiles_the_settings_without_a_package(vitpipe, kfp):
    code, _, err = vitpipe("submit")
    assert code == 2 and "kubeflow.image is not set" in err and not kfp.versions
    code, out, _ = vitpipe("submit", "--set", "kubeflow.image=registry.example/vitpipe:1")
    assert code == 0 and out.startswith("run ")
    nodes = {line.partition("\t")[0] for line in vitpipe("status", "last")[1].splitlines()}
    assert {"Start", "ImportExampleGen", "DataGate", "Trainer", "Pusher", "Verdict", "RunReport"} < nodes


def test_a_tuning_is_submitted_without_moving_the_schedule(vitpipe, kfp, packages):
    assert vitpipe("schedule", "--cron", "0 3 * * *", "--package", packages[0])[0] == 0
    before = dict(kfp.recurring)
    code, _, err = vitpipe("submit", "--tune", "--set", "kubeflow.image=registry.example/vitpipe:1")
    assert code == 0 and "was moved" not in err
    assert dict(kfp.recurring) == before and len(kfp.versions) == 2
    code, _, err = vitpipe("submit", "--tune", "--package", packages[0])
    assert code == 2 and "--tune has no effect on --package" in err


def test_watching_prints_outcomes_and_ends_with_the_exit_code_of_the_run(vitpipe, kfp, packages, monkeypatch):
    def sleep(_):
        [run_id] = kfp.runs
        kfp.play(run_id, "trainer", "SUCCEEDED", "vitpipe: exit 0: Trainer is cached\n")
        kfp.play(run_id, "verdict", "FAILED", REFUSED)
        kfp.end(run_id, "FAILED")

    monkeypatch.setattr(watch.time, "sleep", sleep)
    code, out, err = vitpipe("submit", "--package", packages[0], "--watch")
    assert code == 4 and out.endswith("not blessed, nothing pushed:\n  accuracy 0.1\n")
    assert "Trainer           cached       3.0 s\nVerdict           failed       3.0 s\n" in err
    code, out, _ = vitpipe("status", "last", "--watch", "--json")
    assert code == 4 and json.loads(out)["state"] == "FAILED"


def test_status_lists_runs_and_the_nodes_of_one_run(vitpipe, kfp, submitted, endpoint):
    kfp.play(submitted, "start")
    code, out, err = vitpipe("status")
    assert (code, err) == (0, "")
    [row] = [line.split("\t") for line in out.splitlines()]
    assert row[0] == submitted and row[2] == "running" and row[-2:] == ["manual", ""]
    code, out, _ = vitpipe("status", "last")
    assert [line.split("\t")[:2] for line in out.splitlines()[:4]] == [
        ["Start", "succeeded"],
        ["RunReport", "pending"],
        ["Trainer", "pending"],
        ["Verdict", "pending"],
    ]
    assert out.endswith(f"run {submitted}: running\n{endpoint}/#/runs/details/{submitted}\n")
    [listed] = json.loads(vitpipe("status", "--json")[1])
    details = json.loads(vitpipe("status", submitted[:8], "--json")[1])
    nodes = details.pop("nodes")
    assert listed == details and details["parameters"] == {"trigger": "manual", "reason": ""}
    assert nodes[0] == {"node": "Start", "state": "SUCCEEDED", "started": "2026-01-01T00:00:05+00:00", "seconds": 3.0}


def test_status_without_any_run_suggests_submit(vitpipe):
    code, out, err = vitpipe("status")
    assert code == 2 and not out and "start one with `vitpipe kfp submit`" in err and err.count("\n") == 1
    assert vitpipe("status", "--json")[:2] == (0, "[]\n")


def test_logs_prints_each_attempt_under_its_name(vitpipe, kfp, submitted):
    kfp.play(submitted, "start", "SUCCEEDED", "span 1\n")
    kfp.play(submitted, "trainer", "SUCCEEDED", "epoch 1\nepoch 2", attempts=2)
    code, out, err = vitpipe("logs", "last")
    assert (code, err) == (0, "")
    trainer = "==> Trainer <==\nan attempt that failed\n==> Trainer, attempt 2 <==\nepoch 1\nepoch 2\n"
    assert out == f"==> Start <==\nspan 1\n{trainer}"
    assert vitpipe("logs", "last", "Trainer")[1] == trainer
    code, _, err = vitpipe("logs", "last", "Traner")
    assert code == 2 and "no node Traner" in err and "Start, Trainer, RunReport, Verdict" in err
    del kfp.logs[kfp.pods(submitted, "start")[0]]
    code, out, err = vitpipe("logs", "last")
    assert (code, out) == (0, trainer)
    assert re.search(
        "the log of Start cannot be read: .*; to read it without the server: kubectl logs -n kubeflow", err
    )
    kfp.fail("/apis/v1beta1", 404)
    code, out, err = vitpipe("logs", "last")
    assert (code, out) == (
        1,
        "",
    ) and f"to read the logs without the server: kubectl logs -n kubeflow -l pipeline/runid={submitted}" in err


def test_following_a_log_prints_each_part_once(vitpipe, kfp, submitted, monkeypatch):
    kfp.play(submitted, "trainer", "RUNNING", "epoch 1\nepo")
    [pod] = kfp.pods(submitted, "trainer")

    def second():
        kfp.logs[pod] += "ch 2\n"

    def third():
        kfp.logs[pod] += "epoch 3"
        kfp.steps[submitted]["trainer"] |= {"state": "SUCCEEDED", "finished": kfp.now()}

    left = iter([second, lambda: None, third])
    monkeypatch.setattr(time, "sleep", lambda _: next(left)())
    code, out, _ = vitpipe("logs", "last", "Trainer", "--follow")
    assert code == 0 and out == "==> Trainer <==\nepoch 1\nepoch 2\nepoch 3\n"


def test_schedule_creates_pauses_moves_changes_and_deletes(vitpipe, kfp, packages):
    def schedule(*arguments):
        return vitpipe("schedule", *arguments)

    package = "--package", packages[0]
    assert schedule("--list") == (0, "", "") and schedule("--list", "--json")[1] == "[]\n"
    code, _, err = schedule("--pause")
    assert code == 2 and "sample has no schedule" in err
    code, out, _ = schedule("--cron", "0 3 * * *", "--reason", "nightly", *package)
    assert (code, out) == (0, 'sample runs at "0 0 3 * * *" (second, minute, hour, day, month, weekday; UTC)\n')
    assert schedule("--cron", "0 3 * * *", "--reason", "nightly", *package)[1].endswith("; UTC), as before\n")

    assert schedule("--pause")[:2] == (0, "the schedule of sample is paused\n")
    [row] = [line.split("\t") for line in schedule("--list")[1].splitlines()]
    [version] = kfp.versions.values()
    assert row[0].startswith('at "0 0 3 * * *"') and row[1:3] == ["paused", version["name"]]
    _, _, err = vitpipe("submit", "--package", packages[1])
    assert f"the schedule of sample was moved to {list(kfp.versions.values())[-1]['name']}" in err
    assert schedule("--resume")[0] == 0
    [details] = json.loads(schedule("--list", "--json")[1])
    assert details["version"] == list(kfp.versions.values())[-1]["name"] and details["enabled"]
    assert details["cron"] == "0 0 3 * * *" and details["parameters"] == {"trigger": "schedule", "reason": "nightly"}

    assert schedule("--every", "6h", *package)[1] == "sample runs every 6 h 0 min\n"
    assert len(kfp.recurring) == 1
    assert schedule("--delete")[:2] == (0, "the schedule of sample is deleted\n")
    assert not kfp.recurring


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["schedule"], "use exactly one of --cron, --every, --list, --pause, --resume, --delete\n"),
        (["schedule", "--cron", "0 3 * * *", "--pause"], "--cron and --pause cannot be used together"),
        (["schedule", "--cron", "nightly"], "wrong number of fields, 1"),
        (["submit", "--package", "missing.yaml"], "--package missing.yaml: No such file"),
        (["submit", "--package", "x.yaml"], "--package x.yaml is not a pipeline package"),
        (["submit", "--accept", "drift_colour"], "--accept CHECK and --reason"),
        (["submit", "--set", "kubeflow.token=x"], "only the environment variable VITPIPE_KUBEFLOW__TOKEN"),
        (["logs", "x"], "sample has no run"),
    ],
)
def test_wrong_usage_ends_with_exit_code_2(vitpipe, kfp, tmp_path, arguments, message):
    (tmp_path / "x.yaml").write_text("no: package\n")
    code, out, err = vitpipe(*arguments)
    assert (code, out) == (2, "") and message in err and err.count("\n") == 1
    assert not kfp.versions


def test_submit_rejects_a_package_of_another_pipeline(vitpipe, packages):
    code, _, err = vitpipe("submit", "--package", packages[0], "-c", "cifar10")
    assert code == 2 and "belongs to pipeline sample, but the settings are for cifar10" in err


@pytest.mark.parametrize(
    ("failure", "code", "message"),
    [
        ({"status": 401}, 2, "rejects the token (401"),
        ({"status": 403}, 2, "more rights"),
        ({"status": 503, "times": 9}, 1, "tried 4 times"),
        ({"status": 200, "body": "<html>", "kind": "text/html"}, 1, "does not answer like Kubeflow Pipelines"),
    ],
)
def test_a_failure_prints_one_error_line_after_its_retries(vitpipe, kfp, monkeypatch, failure, code, message):
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda seconds: None)
    kfp.fail("healthz", **failure)
    ended, out, err = vitpipe("status")
    *tried, last = err.splitlines()
    assert (ended, out) == (code, "") and message in last and last.startswith("error: ")
    assert all("trying again" in line for line in tried)


def test_output_to_a_pipe_is_plain_data(kfp, endpoint, submitted):
    """A script gets no colours and no control characters, and only data on standard output."""
    done = start_process(endpoint, "status", "--json", VITPIPE_KUBEFLOW__TOKEN=TOKEN)
    out, err = done.communicate(timeout=60)
    assert done.returncode == 0 and err == "" and json.loads(out)[0]["run"] == submitted
    done = start_process(endpoint, "status")
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (2, "") and err.startswith(f"error: {endpoint} requires a token (401")


def test_an_interrupted_watch_leaves_the_run_running(kfp, endpoint, submitted):
    kfp.play(submitted, "start")
    watching = start_process(endpoint, "status", "last", "--watch", VITPIPE_KUBEFLOW__TOKEN=TOKEN)
    assert watching.stderr.readline().startswith("Start ")
    time.sleep(0.5)  # until the command waits between two requests
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=60)
    assert watching.returncode == 130
    assert err == f"the run continues; watch it again with: vitpipe kfp status {submitted} --watch -c sample\n"
    assert kfp.runs[submitted]["state"] == "RUNNING"


def test_the_command_module_imports_no_heavy_library():
    """The client is imported only when it is used, so that a command starts fast."""
    heavy = {"kfp", "kfp_server_api", "numpy", "tfx"}
    code = f"import sys; import vitpipe.cli.kfp; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout == "set()\n"
