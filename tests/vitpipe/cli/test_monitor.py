"""`vitpipe monitor` on the pushed model of a real run: exit codes, JSON, and the record in ML Metadata."""

import csv
import io
import json
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from components.data.ingest import tfrecord
from pipeline.beam_tasks import TaskRunner
from pipeline.drawing.lineage import describe
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.monitoring.monitor import Monitor
from pipeline.settings.beam import BeamSettings
from tests.helpers.command import command, on_terminal, vitpipe
from tests.helpers.stores import make_store
from tests.helpers.traffic import ask, json_line, prediction_log, write_records
from tests.helpers.webhook import webhook
from vitpipe.ui.app import create_app

ANSWERS = 300


def darken(image):
    pixels = np.asarray(Image.open(io.BytesIO(image)).convert("RGB")) * 0.3
    out = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def served(short_run, tmp_path_factory):
    """Folder with a pushed model, and the logs of answers for its test images and for dark copies of them."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copytree(short_run[0], folder, dirs_exist_ok=True)
    model = folder / "runs" / "sample" / "serving" / "1"
    names = json.loads((model / "model.json").read_text())["classes"]
    examples = [*tfrecord.read_split(folder / "data" / "sample" / "span-1" / "test")]
    chosen = np.random.default_rng(0).integers(0, len(examples), ANSWERS).tolist()
    for name, change in {"clean": lambda image: image, "dark": darken}.items():
        images = [change(example.image) for example in examples]
        answers = ask(model, images)
        lines = [
            json_line(images[at], answers[at], id=f"{at}", time=second, latency_ms=10.0)
            for second, at in enumerate(chosen)
        ]
        (folder / f"{name}.jsonl").write_text("".join(lines))
        records = [prediction_log([images[at] for at in chosen], answers[chosen], names=names)]
        write_records(folder / f"{name}.tfrecord", records)
    (folder / "labels.csv").write_text(
        "id,label\n" + "".join(f"{at},{names[examples[at].label]}\n" for at in {*chosen})
    )
    return folder


@pytest.fixture
def hook():
    with webhook() as server:
        yield server


def alerts(window):
    return [finding for finding in window["findings"] if finding["level"] == "stop"]


def test_unchanged_traffic(served, in_this_process):
    done = in_this_process(served, "monitor", "sample", "--logs", "clean.jsonl", "--labels", "labels.csv", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    [window] = report["windows"]
    assert (window["version"], window["answers"], window["labelled"]) == (1, ANSWERS, ANSWERS)
    assert window["latency_ms"] == {"p50": 10, "p95": 10, "p99": 10}
    low, high = window["accuracy_interval"]
    assert low <= window["accuracy"] <= high and not report["problems"]
    low, high = window["expected_accuracy_interval"]
    assert low <= window["expected_accuracy"] <= high
    assert {"drift_brightness", "drift_labels_js", "accuracy_loss"} <= {one["check"] for one in window["findings"]}


@pytest.mark.parametrize("log", ["dark.jsonl", "dark.tfrecord"])
def test_dark_traffic_exits_with_3_and_is_recorded(served, in_this_process, log):
    done = in_this_process(served, "monitor", "sample", "--logs", log, "--window", "100")
    assert done.returncode == 3 and len(done.stdout.splitlines()) == 3
    assert "drift_brightness" in done.stderr and "data_gate.drift_brightness.stop" in done.stderr
    address = Address(file=served / "runs" / "sample" / "metadata.db")
    with reader(address) as store:
        artifact = store.artifacts("MonitorReport")[0]
        made_from = {one.type for one in store.lineage(artifact.id).artifacts.values()}
        pushed = store.artifacts("PushedModel")[0]
        below = store.lineage(pushed.id, "down")
    assert {"PushedModel", "Model", "Examples"} <= made_from
    assert artifact.id in below.artifacts and "3 windows of version 1" in describe(artifact)
    recorded = json.loads((Path(artifact.uri) / "report.json").read_text())
    assert [window["number"] for window in recorded["windows"]] == [1, 2, 3]
    assert artifact.properties["alerts"] >= 3


def test_the_printed_command_shows_the_report_among_several_pipelines(served, in_this_process, tmp_path):
    runs = tmp_path / "all runs"
    shutil.copytree(served / "runs" / "sample", runs / "sample")
    make_store(runs / "other" / "metadata.db", "other", runs=1)
    done = in_this_process(tmp_path, "monitor", "sample", "--logs", served / "clean.jsonl", "--runs", "all runs")
    [line] = re.findall(r"^report: artifact \d+, see `vitpipe (.*)`$", done.stderr, re.MULTILINE)
    done = in_this_process(tmp_path, *shlex.split(line))
    assert done.returncode == 0 and done.stdout.startswith("MonitorReport "), done.stderr


def test_pages_show_the_windows_beside_the_model(served, in_this_process):
    in_this_process(served, "monitor", "sample", "--logs", "dark.jsonl")
    client = create_app(served / "runs").test_client()
    with reader(Address(file=served / "runs" / "sample" / "metadata.db")) as store:
        pushed, report = store.artifacts("PushedModel")[0], store.artifacts("MonitorReport")[0]
    for artifact in pushed, report:
        page = client.get(f"/sample/artifacts/{artifact.id}").text
        assert page.count('id="traffic"') == 1 and f'<a class="stop" href="#window-{report.id}-1"' in page
        assert 'id="stop-drift_brightness"' in page
        assert page.count("<details open>") == 1
    assert page.count('<img src="data:image') == 8  # the page of the model shows other reports, too
    other = client.get("/sample/artifacts/1").text
    assert 'id="traffic"' not in other


def test_bounds_are_overridden(served, in_this_process):
    checks = ["data_gate.drift_colour", "data_gate.drift_brightness", "data_gate.drift_sharpness"]
    checks += ["data_gate.drift_labels_linf", "data_gate.drift_labels_js", "monitor.drift_confidence"]
    off = [word for check in checks for word in ("--set", f"{check}.stop=null")]
    arguments = ["monitor", "sample", "--logs", "dark.jsonl", "--labels", "labels.csv", *off]
    assert in_this_process(served, *arguments).returncode == 4  # only the accuracy is left
    off = ["--set", "monitor.accuracy_loss.stop=null", "--set", "monitor.expected_accuracy_loss.stop=null"]
    assert in_this_process(served, *arguments, *off).returncode == 0
    for wrong in "training.epochs=3", "monitor.errors.stop=-1", "monitor.false_alerts=0":
        assert in_this_process(served, *arguments, "--set", wrong).returncode == 2
    done = in_this_process(served, *arguments, "--set", "training.epochs=3")
    assert "training: this command does not use this setting" in done.stderr


def test_variables_override_the_recorded_bounds_and_flags_override_variables(served, in_this_process, monkeypatch):
    monkeypatch.setenv("VITPIPE_MONITOR__ERRORS", "{stop: 1}")
    monkeypatch.setenv("VITPIPE_DATA_GATE__DRIFT_COLOUR__STOP", "7")
    monkeypatch.setenv("VITPIPE_TRAINING__EPOCHS", "3")  # of a group that the command does not use
    flag = ["--set", "data_gate.drift_colour.stop=8"]
    for more, stop in ([], 7), (flag, 8):
        done = in_this_process(served, "monitor", "sample", "--logs", "clean.jsonl", "--json", *more)
        [window] = json.loads(done.stdout)["windows"]
        bounds = {one["check"]: one["bound"] for one in window["findings"]}
        assert done.returncode == 0 and bounds["drift_colour"]["stop"] == stop
        assert bounds["errors"]["stop"] == 1
    monkeypatch.setenv("VITPIPE_MONITOR__EROORS__STOP", "1")
    done = in_this_process(served, "monitor", "sample", "--logs", "clean.jsonl")
    assert done.returncode == 2 and "VITPIPE_MONITOR__EROORS__STOP: monitor.eroors: no such setting" in done.stderr


def texts(folder):
    """Return the content of all files that runs and commands may write."""
    return b"".join(file.read_bytes() for file in (folder / "runs").rglob("*") if file.is_file())


def test_each_window_with_alerts_is_sent_to_the_webhook(served, in_this_process, monkeypatch, hook):
    arguments = ["monitor", "sample", "--logs", "dark.jsonl", "--window", "100"]
    monkeypatch.setenv("VITPIPE_MONITOR__WEBHOOK", hook.address)
    done = in_this_process(served, *arguments, "--json")
    quiet = in_this_process(served, "monitor", "sample", "--logs", "clean.jsonl")
    dump = in_this_process(served, "run", "-c", "sample", "--data", "data/sample", "--dry-run")
    assert (done.returncode, quiet.returncode, dump.returncode) == (3, 0, 0)
    windows = json.loads(done.stdout)["windows"]
    assert [one["window"]["number"] for one in hook.messages] == [1, 2, 3]
    first = hook.messages[0]
    assert (first["pipeline"], first["version"], first["window"]["answers"]) == ("sample", 1, 100)
    assert [
        {"check": one["check"], "value": one["value"], "bound": one["bound"]["stop"], "fix": one["fix"]}
        for one in alerts(windows[0])
    ] == [{key: one[key] for key in ("check", "value", "bound", "fix")} for one in first["checks"]]
    assert "drift_brightness" in {one["check"] for one in first["checks"]}
    assert first["text"].startswith("sample: ") and "in window 1 of version 1: drift_" in first["text"]
    assert len(first["text"].splitlines()) == 1
    assert json.loads(Path(first["report"]).read_text())["windows"][0]["number"] == 1
    printed = [text for one in (done, quiet, dump) for text in (one.stdout, one.stderr)]
    assert not any("s3cret" in text for text in printed) and b"s3cret" not in texts(served)


def test_a_webhook_that_fails_changes_neither_the_record_nor_the_exit_code(served, in_this_process, monkeypatch, hook):
    arguments = ["monitor", "sample", "--logs", "dark.jsonl", "--window", "100"]
    hook.statuses = [200, 404]
    monkeypatch.setenv("VITPIPE_MONITOR__WEBHOOK", hook.address)
    done = in_this_process(served, *arguments)
    assert done.returncode == 3 and "report: artifact" in done.stderr and len(hook.messages) == 2
    [warning] = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "127.0.0.1 did not accept an alert (404 Not Found)" in warning
    assert "Windows with alerts that were not sent: 2" in warning and "s3cret" not in done.stdout + done.stderr
    done = in_this_process(served, *arguments, "--set", "monitor.webhook=http://h/s3cret")
    assert done.returncode == 2 and "only the environment variable VITPIPE_MONITOR__WEBHOOK" in done.stderr
    assert "s3cret" not in done.stderr
    monkeypatch.setenv("VITPIPE_MONITOR__WEBHOOK", "ftp://h/s3cret")
    done = in_this_process(served, *arguments)
    assert done.returncode == 2 and "it is not a web address" in done.stderr and "s3cret" not in done.stderr


def test_a_hostile_log_is_counted_and_escaped(served, in_this_process):
    image = (served / "clean.jsonl").read_text().splitlines()[0]
    lines = [image, "\x1b]0;title\x07\n", json_line(**{"class": "\x1b[2Jzebra"}), json_line(version=99, valid=True)]
    (served / "hostile.jsonl").write_text("\n".join(lines) + "\n")
    done = in_this_process(served, "monitor", "sample", "--logs", "hostile.jsonl")
    assert done.returncode == 0 and "\x1b" not in done.stdout + done.stderr
    assert "version 99" in done.stderr and "zebra" in done.stderr


def test_checks_that_the_log_does_not_allow_are_named(served, in_this_process):
    lines = [json.loads(line) for line in (served / "clean.jsonl").read_text().splitlines()]
    without = [json.dumps({key: line[key] for key in ("probabilities", "id")}) + "\n" for line in lines]
    (served / "imageless.jsonl").write_text("".join(without))
    done = in_this_process(served, "monitor", "sample", "--logs", "imageless.jsonl", "--window", "50", "--json")
    lines = [
        line for line in done.stderr.splitlines() if line.startswith("not checked in windows 1, 2, 3, 4, 5 and 1 ")
    ]
    checks = "drift_colour, drift_brightness, drift_sharpness, drift_sizes, drift_formats"
    assert len(lines) == 2 and f" of version 1: {checks}: no answer has an image" in lines[0]
    assert "accuracy_loss: no answer has a true class: name a table of them with --labels" in lines[1]
    window = json.loads(done.stdout)["windows"][0]
    assert [one["check"] for one in window["unchecked"]] == [*checks.split(", "), "accuracy_loss"]
    client = create_app(served / "runs").test_client()
    with reader(Address(file=served / "runs" / "sample" / "metadata.db")) as store:
        report = store.artifacts("MonitorReport")[0]
    page = client.get(f"/sample/artifacts/{report.id}").text
    assert page.count("(not checked: ") == 6 and page.count("no answer has an image that can be used") == 1


def test_answers_that_the_model_cannot_have_given_raise_an_alert(served, in_this_process):
    lines = [json.loads(line) for line in (served / "clean.jsonl").read_text().splitlines()]
    broken = [json.dumps(line | {"probabilities": [2.0] * 10}) for line in lines]
    (served / "broken.jsonl").write_text("\n".join(broken) + "\n")
    done = in_this_process(served, "monitor", "sample", "--logs", "broken.jsonl", "--labels", "labels.csv", "--json")
    [window] = json.loads(done.stdout)["windows"]
    assert done.returncode == 3 and (window["unreadable"], window["labelled"]) == (ANSWERS, 0)
    assert {one["check"] for one in window["findings"] if one["level"] == "stop"} == {"unreadable_answers"}


def test_a_log_without_a_usable_answer_exits_with_3(served, in_this_process):
    (served / "empty").mkdir(exist_ok=True)
    done = in_this_process(served, "monitor", "sample", "--logs", "empty")
    assert done.returncode == 3 and "no answer can be used (it has no records)" in done.stderr
    (served / "other.jsonl").write_text(json_line(version=99, valid=True) * 5)
    done = in_this_process(served, "monitor", "sample", "--logs", "other.jsonl")
    assert done.returncode == 3 and "version 99: it is not in the folder of pushed models" in done.stderr
    foreign = json_line(ts=1, level="info", msg="GET /"), json_line(probs=[0.1] * 10, img="a.png")
    (served / "foreign.jsonl").write_text("".join(foreign) * 500)
    done = in_this_process(served, "monitor", "sample", "--logs", "foreign.jsonl")
    assert done.returncode == 3 and "1,000: a line with none of the keys image, image_bytes, " in done.stderr


def test_images_that_are_missing_raise_an_alert(served, in_this_process):
    lines = [json.loads(line) for line in (served / "clean.jsonl").read_text().splitlines()]
    missing = [json_line(image=f"{line['id']}.png", probabilities=line["probabilities"]) for line in lines]
    (served / "lost.jsonl").write_text("".join(missing))
    done = in_this_process(served, "monitor", "sample", "--logs", "lost.jsonl")
    assert done.returncode == 3 and "300 of 300 images cannot be used" in done.stderr
    assert done.stdout.rstrip().endswith("\t1 alert")
    assert "300 in the log: an image file that is missing" in done.stderr


def test_the_workers_of_an_engine_change_no_window(served, monkeypatch):
    monkeypatch.setattr("pipeline.monitoring.log_files._PART", 20_000)
    options = {"window": "80", "runs": served / "runs", "labels": served / "labels.csv"}
    for log in "dark.jsonl", "clean.tfrecord":
        alone = Monitor("sample", served / log, **options).read_all()
        opened = Monitor("sample", served / log, **options)
        with opened.measured_by(TaskRunner(BeamSettings())):
            monkeypatch.setattr("pipeline.monitoring.engine_work.measure_images_of", None)  # every image has a row
            report = opened.read_all()
        monkeypatch.undo()
        assert report.windows == alone.windows and len(report.windows) == 4


def test_an_engine_that_cannot_be_used(served, in_this_process):
    flags = ["--set", "beam.runner=flink", "--set", "beam.job_service=127.0.0.1:1", "--set", "beam.worker_pool=w:1"]
    done = in_this_process(served, "monitor", "sample", "--logs", "clean.jsonl", *flags)
    assert done.returncode == 1 and "127.0.0.1:1" in done.stderr
    done = in_this_process(served, "monitor", "sample", "--logs", "clean.jsonl", "--follow", *flags)
    assert done.returncode == 2 and "beam.runner=flink has no effect with --follow" in done.stderr
    done = in_this_process(served, "monitor", "sample", "--logs", "clean.jsonl", *flags[:2])
    assert done.returncode == 2 and "beam.runner flink requires beam.job_service" in done.stderr


def test_a_reading_that_takes_too_long_ends_with_the_windows_so_far(served):
    opened = Monitor("sample", served / "clean.jsonl", runs=served / "runs", window="100", follow=True)
    opened.stop_within(-1)
    assert [*opened.read()] == [] and opened.answered == 0


def test_labels_that_belong_to_no_answer_are_reported(served, in_this_process):
    label = (served / "labels.csv").read_text().split(",")[-1]
    (served / "others.csv").write_text(f"id,label\nnobody,{label}")
    done = in_this_process(served, "monitor", "sample", "--logs", "clean.jsonl", "--labels", "others.csv", "--json")
    assert done.returncode == 0 and not json.loads(done.stdout)["problems"]
    [warning] = [line for line in done.stderr.splitlines() if line.startswith("warning: ")]
    assert "--labels others.csv: no usable answer has one of its ids, such as 'nobody'" in warning


def test_labels_that_are_not_classes_are_refused(served, in_this_process):
    (served / "indices.csv").write_text("id,label\n1,-1\n2,77\n")
    done = in_this_process(served, "monitor", "sample", "--logs", "clean.jsonl", "--labels", "indices.csv")
    assert done.returncode == 2 and "none of its labels, such as '-1', is a class of the model" in done.stderr
    assert " and 5 more" in done.stderr


def test_labels_of_a_sample_belong_to_answers_whose_ids_are_formulas(served, in_this_process):
    lines = [json.loads(line) for line in (served / "clean.jsonl").read_text().splitlines()[:100]]
    (served / "formulas.jsonl").write_text("".join(json_line(**line | {"id": f"=cmd|{line['id']}"}) for line in lines))
    arguments = ["monitor", "sample", "--logs", "formulas.jsonl", "--json"]
    done = in_this_process(served, *arguments, "--sample", "formulas", "--sample-images", "100")
    assert done.returncode == 0, done.stderr
    with (served / "formulas" / "labels.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert rows and not any(row["id"].startswith("=") for row in rows)
    with (served / "formulas" / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({**row, "label": row["answer"]} for row in rows)
    [window] = json.loads(in_this_process(served, *arguments, "--labels", "formulas/labels.csv").stdout)["windows"]
    assert window["labelled"] == 100 and window["accuracy"] == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["other", "--logs", "clean.jsonl"],
        ["sample", "--logs", "missing.jsonl"],
        ["sample", "--logs", "clean.jsonl", "--window", "5 minutes"],
        ["sample", "--logs", "clean.jsonl", "--labels", "missing.csv"],
        ["sample", "--logs", "clean.jsonl", "--labels", "clean.jsonl"],
        ["sample", "--logs", "clean.jsonl", "--sample", "clean.jsonl/new"],
    ],
)
def test_wrong_usage(served, in_this_process, arguments):
    assert in_this_process(served, "monitor", *arguments).returncode == 2


@pytest.mark.parametrize(("end", "code"), [(signal.SIGINT, 3), (signal.SIGTERM, 143)])
def test_follow_reads_what_is_appended(served, hook, end, code):
    log = served / f"growing-{code}.jsonl"
    lines = (served / "dark.jsonl").read_text().splitlines(keepends=True)
    log.write_text("".join(lines[:150]))
    arguments = ["monitor", "sample", "--logs", log, "--window", "100", "--follow", "--json"]
    line, options = command(served, *arguments, VITPIPE_MONITOR__WEBHOOK=hook.address)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    try:
        first = json.loads(process.stdout.readline())
        with log.open("a") as file:
            file.write("".join(lines[150:220]))
        second = json.loads(process.stdout.readline())
        process.send_signal(end)
        rest, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    assert rest, errors
    last = json.loads(rest)
    assert [window["number"] for window in (first, second, last)] == [1, 2, 3]
    assert [window["answers"] for window in (first, second, last)] == [100, 100, 20]
    assert process.returncode == code, errors
    assert alerts(first) and alerts(second) and errors.count("report: artifact") == 3
    assert not alerts(last)  # it is too small
    assert [one["window"]["number"] for one in hook.messages] == [1, 2]
    assert len({one["report"] for one in hook.messages}) == 2


def test_pictures_are_kept_for_the_newest_windows(served, in_this_process, monkeypatch):
    monkeypatch.setattr("pipeline.monitoring.monitor.PICTURED_WINDOWS", 2)
    arguments = ["monitor", "sample", "--logs", "clean.jsonl", "--window", "60", "--json"]
    windows = json.loads(in_this_process(served, *arguments).stdout)["windows"]
    pictures = [[bool(image["picture"]) for image in window["farthest"]] for window in windows]
    assert pictures == [[False] * 8] * 3 + [[True] * 8] * 2


def test_a_terminal_shows_the_progress_and_nothing_else_does(served):
    arguments = ["monitor", "sample", "--logs", "clean.jsonl"]
    done, shown = on_terminal(served, *arguments)
    assert done.returncode == 0 and done.stdout.splitlines()[-1].endswith("ok")
    for text in "reading the reference of the model", "reading the logs: 300 answers, 100%", "recording the report":
        assert text in shown, shown
    assert "reading" not in vitpipe(served, *arguments).stderr


def test_only_new_answers_are_used_if_the_user_wishes(served, in_this_process):
    lines = (served / "clean.jsonl").read_text().splitlines(keepends=True)  # one answer each second
    log = served / "since.jsonl"
    log.write_text("".join(lines[:200]))

    def monitor(*options):
        return in_this_process(served, "monitor", "sample", "--logs", "since.jsonl", "--json", *options)

    def answers(*options):
        return sum(window["answers"] for window in json.loads(monitor(*options).stdout)["windows"])

    assert answers("--since", "1970-01-01T00:03:00") == 20
    assert answers() == 200
    for content in "damaged\n" + "".join(lines[:200]), "":  # an empty log was rotated
        log.write_text(content)
        done = monitor("--since", "1h")
        assert done.returncode == 0 and "no answer is as new as --since 1h" in done.stderr
        assert "report: artifact" not in done.stderr
    assert monitor("--since", "yesterday").returncode == 2
    log.write_text("".join(lines[:200]) + "damaged\n")
    assert monitor("--since", "1h").returncode == 3
    log.write_text(json_line(None, [0.1] * 10))
    done = monitor("--since", "1h")
    assert done.returncode == 3 and "an answer without a usable time, which --since" in done.stderr


def test_images_worth_labelling_become_the_next_span(served, in_this_process):
    arguments = ["monitor", "sample", "--logs", "dark.jsonl", "--sample", "to-label", "--sample-images", "130"]
    assert in_this_process(served, *arguments).returncode == 3
    assert in_this_process(served, *arguments).returncode == 2  # the folder exists
    folder = served / "to-label"
    with (folder / "labels.csv").open(newline="") as file:
        rows = [*csv.DictReader(file)]
    assert len(rows) == len({row["path"] for row in rows}) == len([*(folder / "images").iterdir()]) == 130
    assert {row["reason"] for row in rows} == {"unsure", "far", "rare", "random"}
    origin = json.loads((folder / "sample.json").read_text())
    assert origin["images"] == 130 and origin["pipeline"] == "sample" and origin["report"] > 0
    known = dict(csv.reader((served / "labels.csv").read_text().splitlines()))
    with (folder / "labels.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows({**row, "label": known[row["id"]]} for row in rows)
    done = in_this_process(
        served, "data", "prepare", "images", "--source", "to-label/labels.csv", "--out", "data/sample"
    )
    assert done.returncode == 0, done.stderr
    manifest = json.loads((served / "data" / "sample" / "span-2" / "manifest.json").read_text())
    assert sum(sum(counts.values()) for counts in manifest["counts"].values()) == 130
    assert "to-label/labels.csv" in manifest["source"]
    done = in_this_process(served, "monitor", "sample", "--logs", "dark.jsonl", "--labels", "to-label/labels.csv")
    assert "accuracy_loss" in done.stderr


def test_garbage_collection_keeps_what_traffic_is_compared_with(served, in_this_process):
    assert in_this_process(served, "gc", "--keep", "1").returncode == 0
    assert in_this_process(served, "monitor", "sample", "--logs", "clean.jsonl").returncode == 0
