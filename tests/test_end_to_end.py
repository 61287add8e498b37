"""Whole runs through the command, as a person starts them."""

import contextlib
import hashlib
import io
import json
import os
import pty
import re
import shutil
import signal
import sqlite3
import subprocess
import tarfile
from pathlib import Path

import filelock
import numpy as np
import pytest
from huggingface_hub import ModelCard
from PIL import Image

from components.data.ingest import tfrecord
from tests.helpers.command import (
    ROOT,
    SHORT,
    command,
    pushed,
    read_report,
    run_id,
    states,
    vitpipe,
    with_settings,
)

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
# Settings of another model that is trained for a short time and blessed whatever its accuracy.
ANOTHER_MODEL = {
    "training.seed": 1,
    "training.epochs": 3,
    "gate.accuracy": 0,
    "gate.class_accuracy": 0,
    "gate.calibration": 1,
    "gate.tolerance": 1,
}


def another_model(settings=None):
    """Return the arguments of a run of that model; `settings` override its settings."""
    return ["run", "-c", "sample", *with_settings(ANOTHER_MODEL | (settings or {}))]


@pytest.fixture
def sample(pushed_sample, tmp_path):
    """Copy of the folder of `pushed_sample`, which a test may change."""
    return shutil.copytree(pushed_sample[0], tmp_path / "sample")


@pytest.fixture
def rejected(run_once, pushed_sample, tmp_path):
    """Copy of the folder of `pushed_sample` after a run whose model was not blessed, and the process of that run."""
    folder, done = run_once("rejected", pushed_sample[0], *another_model({"gate.accuracy": 1}))
    assert done.returncode == 4, done.stdout + done.stderr
    return shutil.copytree(folder, tmp_path / "sample"), done


@pytest.fixture
def unused(sample_data, tmp_path):
    """Copy of the folder of `sample_data`, in which nothing was run yet."""
    return shutil.copytree(sample_data, tmp_path / "unused")


def test_the_sample_is_trained_and_pushed(pushed_sample):
    folder, done = pushed_sample
    assert done.returncode == 0, done.stdout + done.stderr
    assert pushed(folder, "sample") == ["1"]
    assert set(states(done).values()) == {"complete"}
    assert "pushed version 1 to runs/sample/serving/1" in done.stdout
    assert "blessed: accuracy 0.9" in done.stdout
    for noise in ("WARNING", "oneDNN", "absl", "Traceback"):
        assert noise not in done.stdout + done.stderr


@pytest.mark.slow
def test_after_a_kill_the_same_command_ends_with_a_pushed_model(unused):
    arguments = ["run", "-c", "sample", *with_settings(SHORT | {"training.epochs": 12})]
    line, options = command(unused, *arguments)
    killed = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options)
    for text in killed.stderr:
        if "epoch 3/" in text:
            break
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL

    done = vitpipe(unused, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert pushed(unused, "sample") == ["1"]
    assert states(done)["ImportExampleGen"] == states(done)["Transform"] == "cached"  # of the killed run
    assert states(done)["Trainer"] == states(done)["Pusher"] == "complete"
    assert "continuing from" in done.stderr and "epoch 12/12" in done.stderr
    assert "epoch 2/" not in done.stderr  # of the killed run
    runs = json.loads(vitpipe(unused, "runs", "list", "--json").stdout)
    assert [run["state"] for run in runs] == ["done", "died"]


@pytest.mark.slow
def test_two_workers_train_a_model_that_is_pushed(unused):
    done = vitpipe(unused, "run", "-c", "sample", *with_settings(SHORT | {"training.workers": 2}))
    assert done.returncode == 0, done.stderr
    assert "on 2 CPUs" in done.stderr and "epoch 6/6" in done.stderr
    assert pushed(unused, "sample") == ["1"]
    assert read_report(unused, done)["settings"]["training"]["workers"] == 2
    logs = unused / "runs" / "sample" / "logs" / run_id(done) / "Trainer-workers"
    assert "epoch 6/6" in (logs / "worker-1.log").read_text()


def test_the_model_says_where_it_came_from(pushed_sample):
    folder, _ = pushed_sample
    record = json.loads((folder / "runs" / "sample" / "serving" / "1" / "model.json").read_text())
    assert (record["version"], record["classes"][:3]) == (1, ["zero", "one", "two"])
    assert record["metrics"]["accuracy"] > 0.9 and record["span"] == 1
    assert record["signatures"] == ["explain", "serving_bytes", "serving_default", "serving_images"]
    assert record["files"].keys() >= {"saved_model.pb", "assets.extra/vit.keras"}
    logs = folder / "runs" / "sample" / "logs" / record["run_id"]
    assert "code_version:" in (logs / "run.yaml").read_text()
    assert (logs / "Trainer.log").stat().st_size > 0
    with contextlib.closing(sqlite3.connect(folder / "runs" / "sample" / "metadata.db")) as database, database:
        rows = database.execute(
            "select p.name, p.string_value from ContextProperty p join Context c on c.id = p.context_id"
            " where c.name = ?",
            [record["run_id"]],
        )
        facts = dict(rows.fetchall())
    assert json.loads(facts["settings"])["training"]["batch_size"] == 64
    assert facts["code_version"] and facts["data_digest"] and facts["trigger"] == "manual"


def test_the_model_card_states_the_facts_of_the_run(pushed_sample):
    folder, done = pushed_sample
    version = folder / "runs" / "sample" / "serving" / "1"
    card, record = ModelCard.load(version / "README.md"), json.loads((version / "model.json").read_text())
    assert record["files"].keys() >= {"README.md"}  # `models verify` checks it, too
    results = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert results["accuracy"] == record["metrics"]["accuracy"] and card.data.license is None
    for fact in (run_id(done), record["code_version"], record["settings_digest"], record["data_digest"]):
        assert f"`{fact}`" in card.text
    assert "| 9 | nine |" in card.text and "latency in ms" in card.text
    assert "Its model card is runs/sample/serving/1/README.md." in vitpipe(folder, "why", "last").stdout
    [model] = json.loads(vitpipe(folder, "models", "list", "--json").stdout)
    assert model["card"] == "runs/sample/serving/1/README.md"


@pytest.mark.slow
def test_a_pushed_model_is_exported_to_litert(sample):
    """As float32 and as int8, and refused with no file left if it may not differ at all."""
    done = vitpipe(sample, "export", "sample", "--to", "litert", "--json")
    assert done.returncode == 0, done.stderr
    exported = json.loads(done.stdout)
    comparison = exported["comparison"]
    assert comparison["same_class"] == comparison["examples"] == 173 and comparison["largest_difference"] < 1e-3
    content = Path(exported["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == exported["sha256"]
    lineage = vitpipe(sample, "lineage", "v1", "--down").stdout
    assert f"ExportedModel {exported['artifact']}, version 1 as litert" in lineage

    done = vitpipe(sample, "export", "sample/1", "--to", "litert", "--int8", "--json")
    assert done.returncode == 0, done.stderr
    quantized = json.loads(done.stdout)
    assert quantized["comparison"]["bytes"] < comparison["bytes"] and quantized["comparison"]["accuracy"] > 0.9
    before = sorted(sample.rglob("*.tflite"))
    assert len(before) == 2

    refused = vitpipe(sample, "export", "sample", "--to", "litert", "--int8", "--max-difference", "0.0001")
    assert refused.returncode == 4 and "largest difference of probabilities" in refused.stderr
    assert sorted(sample.rglob("*.tflite")) == before
    assert vitpipe(sample, "models", "verify").returncode == 0


def test_predict_names_the_digits(sample):
    from sklearn.datasets import load_digits

    digits = load_digits()
    for index in range(20):
        image = Image.fromarray((digits.images[index] / 16 * 255).astype("uint8"))
        image.resize((32, 32), Image.Resampling.BICUBIC).save(sample / f"{index}.png")
    files = [f"{index}.png" for index in range(20)]
    done = vitpipe(sample, "predict", *files, "--json")
    assert done.returncode == 0, done.stderr
    answers = json.loads(done.stdout)
    names = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    right = [answer["class"] == names[digits.target[index]] for index, answer in enumerate(answers)]
    assert np.mean(right) >= 0.8
    assert all(abs(sum(answer["probabilities"]) - 1) < 1e-5 for answer in answers)

    (sample / "broken.png").write_text("<html>")
    mixed = vitpipe(sample, "predict", "0.png", "broken.png")
    assert mixed.returncode == 3
    assert "not a PNG or JPEG" in mixed.stdout


@pytest.mark.slow
def test_an_equal_run_trains_nothing_and_pushes_nothing(sample):
    done = vitpipe(sample, "run", "-c", "sample")
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done)["Trainer"] == states(done)["Transform"] == "cached"
    assert "nothing trained" in done.stdout
    assert "nothing to push" in done.stdout
    assert pushed(sample, "sample") == ["1"]


@pytest.mark.slow
def test_a_moved_folder_trains_nothing_and_missing_artifacts_are_reported(short_run, tmp_path):
    moved = shutil.copytree(short_run[0], tmp_path / "moved")
    arguments = ["run", "-c", "sample", *with_settings(SHORT)]
    done = vitpipe(moved, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done)["ImportExampleGen"] == states(done)["Trainer"] == "cached"
    assert "nothing to push" in done.stdout and pushed(moved, "sample") == ["1"]
    with contextlib.closing(sqlite3.connect(moved / "runs" / "sample" / "metadata.db")) as database, database:
        uris = [uri for (uri,) in database.execute("SELECT uri FROM Artifact")]
    assert all(Path(uri).is_relative_to(moved) for uri in uris)

    shutil.rmtree(moved / "runs" / "sample" / "root")
    assert "no candidate can be compared with it" in vitpipe(moved, "models", "verify").stderr
    done = vitpipe(moved, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "artifact(s) below" in done.stdout and "there is nothing to compare with" in done.stdout
    assert any("nothing to compare with" in line for line in read_report(moved, done)["verdict"])
    assert pushed(moved, "sample") == ["1", "2"]


@pytest.mark.slow
def test_the_served_model_is_fine_tuned_to_other_data(pushed_sample, tmp_path):
    serving = Path("runs", "sample", "serving")
    shutil.copytree(pushed_sample[0] / serving, tmp_path / serving)
    prepared = vitpipe(tmp_path, "data", "prepare", "sample", "--classes", "two,four,six,eight", "--out", "data/even")
    assert prepared.returncode == 0, prepared.stderr
    settings = {
        "name": "even",
        "finetune.head_epochs": 2,
        "finetune.epochs": 2,
        "finetune.blocks": 1,
        "finetune.head_learning_rate": 0.02,
        "gate.class_accuracy": 0,
        "gate.calibration": 1,
    }
    line = ["finetune", "--from", "sample", "-c", "sample", "--data", "data/even", *with_settings(settings)]
    done = vitpipe(tmp_path, *line)
    assert done.returncode == 0, done.stdout + done.stderr
    assert states(done)["Backbone"] == "complete"
    assert "phase 1: the head" in done.stderr and "phase 2: the head and the last 1 of 4 blocks" in done.stderr
    assert pushed(tmp_path, "even") == ["1"]
    listed = vitpipe(tmp_path, "artifacts", "list", "--type", "Backbone", "--pipeline", "even", "--json")
    [told] = json.loads(listed.stdout)
    newest = pushed(tmp_path, "sample")[-1]
    assert told["properties"]["version"] == newest
    assert told["properties"]["source"] == str(tmp_path.resolve() / serving / newest)
    why = vitpipe(tmp_path, "why", run_id(done)).stdout
    of_run = told["properties"]["run_id"]
    assert f"The model was fine-tuned from {told['properties']['source']}, the model of run {of_run}." in why
    models = vitpipe(tmp_path, "artifacts", "list", "--type", "PushedModel", "--pipeline", "even", "--json")
    [model] = json.loads(models.stdout)
    lineage = vitpipe(tmp_path, "lineage", str(model["id"]), "--up", "--pipeline", "even").stdout
    assert f"backbone: Backbone {told['id']}, {told['properties']['source']}, sha256 " in lineage
    again = vitpipe(tmp_path, *line)
    assert states(again)["Backbone"] == states(again)["Trainer"] == "cached"


@pytest.mark.slow
def test_a_model_that_misses_a_bound_is_not_pushed(sample):
    for _ in range(2):  # the second time the verdict comes from the cache
        done = vitpipe(sample, "run", "-c", "sample", "--set", "gate.accuracy=1.0")
        assert done.returncode == 4, done.stdout + done.stderr
        assert "not blessed" in done.stdout
        assert "is below 1.0000" in done.stdout
        assert states(done)["Pusher"] == "skipped"
    assert states(done)["Evaluator"] == "cached"
    report = read_report(sample, done)
    assert (report["state"], report["judgement"]["checks"][0]["bound"]) == ("not blessed", 1)
    assert report["mistakes"][0]["explained"]["maps"] and not report["unexplained"]
    assert pushed(sample, "sample") == ["1"]

    missed = run_id(done)
    why = vitpipe(sample, "why", missed)
    assert why.returncode == 0, why.stderr
    assert "The model was not blessed" in why.stdout and "The data passed." in why.stdout
    assert re.search(
        r"failed: accuracy is 0\.\d+, 0\.\d+ to 0\.\d+ with 95% confidence; it must be at least 1", why.stdout
    )
    assert "passed: accuracy against the serving model" in why.stdout
    assert "compared with the serving one, runs/sample/root/Trainer/model/" in why.stdout
    weighed = json.loads(vitpipe(sample, "why", missed, "--json").stdout)
    assert weighed["model"]["checks"][0]["bound"] == 1 and weighed["pipeline"] == "sample"
    unknown = vitpipe(sample, "why", missed[:-1])
    assert unknown.returncode == 2 and f"did you mean {missed}" in unknown.stderr


def damaged(folder, change):
    """A copy of the sample's first span whose training records are changed, under a manifest that claims them."""
    data = folder / "data" / change.__name__
    shutil.copytree(folder / "data" / "sample", data)
    [shard] = (data / "span-1" / "train").iterdir()
    content = change([*tfrecord.read(shard)])
    shard.write_bytes(content)
    path = data / "span-1" / "manifest.json"
    manifest = json.loads(path.read_text())
    entry = manifest["shards"][f"train/{shard.name}"]
    entry["sha256"] = hashlib.sha256(content).hexdigest()
    path.write_text(json.dumps(manifest))
    return str(data.relative_to(folder))


def cut_short(records):
    return b"".join(map(tfrecord.frame, records))[:-50]


def a_page_for_an_image(records):
    last = tfrecord.parse(records[-1])
    return b"".join(map(tfrecord.frame, [*records[:-1], tfrecord.example(b"<html>", last.label, b"page.jpg")]))


@pytest.mark.slow
@pytest.mark.parametrize(
    "change, messages",
    [
        (
            cut_short,
            [
                "data refused, nothing trained: ",
                "/data/cut_short/span-1/train/part-",
                "found after 'digits:",
                "see ",
            ],
        ),
        (a_page_for_an_image, ["  undecodable: 1 in train: not a PNG or JPEG image", "first: 'page.jpg'", "data.html"]),
    ],
)
def test_damaged_data_end_the_run_before_anything_is_trained_and_the_old_model_serves(sample, change, messages):
    done = vitpipe(sample, "run", "-c", "sample", "--data", damaged(sample, change))
    assert done.returncode == 3, done.stdout + done.stderr
    for message in messages:
        assert message in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert states(done).get("Trainer", "skipped") == "skipped"
    report = read_report(sample, done)
    assert report["state"] == "data refused" and "data refused, nothing trained" in report["verdict"][0]
    assert report["mistakes"] == [] and "did not test a model" in report["unexplained"]
    assert pushed(sample, "sample") == ["1"]
    why = vitpipe(sample, "why", run_id(done)).stdout
    assert "There is no verdict on a model" in why
    Image.new("RGB", (32, 32)).save(sample / "some.png")
    assert vitpipe(sample, "predict", "some.png").returncode == 0
    assert vitpipe(sample, "data", "verify", "data/sample").returncode == 0  # nothing of the good data was touched


def shuffled_labels(records):
    """Shuffle the labels of training records. The labels of the test images stay correct."""
    examples = [tfrecord.parse(record) for record in records]
    labels = np.random.default_rng(0).permutation([example.label for example in examples])
    shuffled = [
        tfrecord.example(example.image, int(label), example.id) for example, label in zip(examples, labels, strict=True)
    ]
    return b"".join(map(tfrecord.frame, shuffled))


@pytest.mark.slow
def test_a_model_that_learnt_shuffled_labels_is_stopped_by_every_bound_of_accuracy(sample):
    settings = {
        "model.depth": 1,
        "training.epochs": 3,
        "data_gate.conflicting_labels.stop": "null",  # that check would stop the run first
    }
    arguments = ["--data", damaged(sample, shuffled_labels), *with_settings(settings)]
    done = vitpipe(sample, "run", "-c", "sample", *arguments)
    assert done.returncode == 4, done.stdout + done.stderr
    for name in ("accuracy 0.", "worst class accuracy 0.", "accuracy against the serving model -0."):
        assert re.search(rf"^  {re.escape(name)}\d+ is below -?0\.", done.stdout, re.MULTILINE), done.stdout
    assert pushed(sample, "sample") == ["1"]
    why = vitpipe(sample, "why", run_id(done)).stdout
    assert "The data passed." in why and "failed: accuracy against the serving model" in why


@pytest.mark.slow
def test_a_model_worse_than_the_serving_model_is_stopped_by_the_comparison_alone(rejected):
    sample, _ = rejected
    done = vitpipe(sample, *another_model({"gate.tolerance": 0.01}))
    assert done.returncode == 4, done.stdout + done.stderr
    verdict = done.stdout[done.stdout.index("not blessed, nothing pushed:") :].splitlines()
    assert verdict[1].startswith("  accuracy against the serving model -0.") and not verdict[2].startswith("  ")
    assert "examples gained" in verdict[1] and pushed(sample, "sample") == ["1"]


@pytest.mark.slow
def test_a_model_that_cannot_be_served_in_time_is_not_pushed(rejected):
    sample, _ = rejected
    done = vitpipe(sample, *another_model({"serving_check.latency_ms": 0.001}))
    assert done.returncode == 5, done.stdout + done.stderr
    assert "cannot be served, nothing pushed:" in done.stdout and "latency in ms" in done.stdout
    assert states(done)["Pusher"] == "skipped" and pushed(sample, "sample") == ["1"]
    assert "The model cannot be served." in vitpipe(sample, "why", run_id(done)).stdout


@pytest.mark.slow
def test_a_user_can_overrule_the_gate_and_the_reason_is_recorded(rejected):
    sample, done = rejected
    assert states(done)["ServingCheck"] == "complete" and states(done)["Pusher"] == "skipped"
    overruled = run_id(done)
    silent = vitpipe(sample, "bless", overruled, "--reason", " ")
    assert silent.returncode == 2 and "say why" in silent.stderr

    blessed = vitpipe(sample, "bless", overruled, "--reason", "shown tonight, and no customer sees it")
    assert blessed.returncode == 0, blessed.stdout + blessed.stderr
    assert pushed(sample, "sample") == ["1", "2"]
    record = json.loads((sample / "runs" / "sample" / "serving" / "2" / "model.json").read_text())
    assert (record["run_id"], record["span"], len(record["settings_digest"])) == (overruled, 1, 64)
    assert record["override"] == "shown tonight, and no customer sees it"
    assert "shown tonight, and no customer sees it" in vitpipe(sample, "why", overruled).stdout
    listed = json.loads(vitpipe(sample, "runs", "list", "--json").stdout)[0]
    assert (listed["run"], listed["state"], listed["blessed"], listed["pushed"]) == (overruled, "done", True, "2")
    once_more = vitpipe(sample, *another_model({"gate.accuracy": 1}))
    assert once_more.returncode == 0, once_more.stdout + once_more.stderr
    assert "nothing to push: this model serves, blessed by a person: shown tonight" in once_more.stdout
    assert vitpipe(sample, "models", "verify").returncode == 0
    again = vitpipe(sample, "bless", overruled, "--reason", "once more")
    assert "nothing to do" in again.stdout and pushed(sample, "sample") == ["1", "2"]


@pytest.mark.slow
def test_a_rollback_and_later_runs(rejected):
    """A second model is pushed and rolled back. It no longer serves, and the same run does not push it again."""
    sample, _ = rejected
    other = another_model()
    assert "pushed version 2" in vitpipe(sample, *other).stdout
    back = vitpipe(sample, "rollback")
    assert back.returncode == 0 and back.stdout.startswith("version 3 in runs/sample/serving is version 1 again"), back
    assert pushed(sample, "sample") == ["1", "2", "3"]
    listed = vitpipe(sample, "models", "list").stdout.splitlines()
    assert len(listed) == 3 and listed[2].endswith("serving, version 1 again")

    again = vitpipe(sample, *other)
    assert again.returncode == 0, again.stdout + again.stderr
    assert "not pushed: this model was rolled back; version 3" in again.stdout
    assert vitpipe(sample, "run", "-c", "sample").returncode == 0  # the model of version 1 is compared with itself
    assert pushed(sample, "sample") == ["1", "2", "3"]

    assert vitpipe(sample, "models", "verify").returncode == 0
    Image.new("RGB", (32, 32)).save(sample / "some.png")
    with (sample / "runs" / "sample" / "serving" / "3" / "saved_model.pb").open("ab") as file:
        file.write(b"more")
    for arguments in (["models", "verify"], ["predict", "some.png"]):
        done = vitpipe(sample, *arguments)
        assert done.returncode == 3 and "serving/3/saved_model.pb: expected sha256" in done.stdout + done.stderr
    done = vitpipe(sample, "rollback", "9")
    assert done.returncode == 2 and "no version 9 in" in done.stderr


@pytest.mark.slow
def test_runs_are_listed_and_files_that_no_kept_run_needs_are_removed(rejected):
    sample, _ = rejected
    runs = json.loads(vitpipe(sample, "runs", "list", "--json").stdout)
    assert [run["state"] for run in runs] == ["not blessed", "done"]
    lineage = vitpipe(sample, "lineage", "v1")
    assert lineage.returncode == 0 and "data/sample/span-1, sha256 " in lineage.stdout, lineage.stderr

    assert vitpipe(sample, "run", "-c", "sample").returncode == 0
    freed = vitpipe(sample, "gc", "--keep", "1")
    assert freed.returncode == 0 and "removed" in freed.stdout, freed.stderr
    assert "deleted" in vitpipe(sample, "artifacts", "list", "--type", "Model").stdout
    # The results of the kept run are still in the cache, and the serving model still exists.
    again = vitpipe(sample, "run", "-c", "sample")
    assert again.returncode == 0 and "nothing trained" in again.stdout, again.stdout + again.stderr


def test_one_run_at_a_time(unused):
    (unused / "runs" / "sample").mkdir(parents=True)
    with filelock.FileLock(unused / "runs" / "sample" / ".lock"):
        done = vitpipe(unused, "run", "-c", "sample")
    assert done.returncode == 2
    assert "another run of sample is running" in done.stderr


@pytest.mark.slow
def test_on_a_terminal_the_libraries_stay_in_their_log(sample):
    """Run on a real terminal, on which Rich draws its spinner. A forced node runs again."""
    line, options = command(sample, "run", "-c", "sample", "--force", "Evaluator")
    terminal, other_end = pty.openpty()
    options["env"] |= {"TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(line, stdin=other_end, stdout=other_end, stderr=other_end, **options)
    os.close(other_end)
    seen = b""
    with contextlib.suppress(OSError):  # a terminal raises it when the process has ended
        while some := os.read(terminal, 65536):
            seen += some
    assert process.wait() == 0
    text = seen.decode()
    assert "nothing to push" in text
    assert re.search(r"Evaluator +complete", text)
    for noise in ("INFO", "absl", "WARNING"):
        assert noise not in text
    newest = max((sample / "runs" / "sample" / "logs").iterdir(), key=lambda path: path.name)
    assert "absl" in (newest / "Evaluator.log").read_text()


def test_wrong_usage_is_reported_before_anything_starts(tmp_path):
    for arguments, message in [
        (["run", "-c", "sample"], "no data in data/sample: make some with `vitpipe data prepare"),
        (["run", "-c", "smaple"], "did you mean sample?"),
        (["run", "--set", "training.epocs=3"], "did you mean training.epochs?"),
        (["predict", "nothing.png"], "nothing.png is not a file"),
        (["predict", str(ROOT / "README.md")], "no pushed model below runs"),
    ]:
        done = vitpipe(tmp_path, *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert "Traceback" not in done.stderr


def test_the_checks_that_can_be_accepted_are_listed(unused):
    for arguments, message in [
        (["--accept", "near_leaks"], "--accept CHECK and --reason"),
        (["--reason", "so"], "has no effect without --accept CHECK"),
        (
            ["--accept", "near_leak", "--reason", "so"],
            "no such check; did you mean near_leaks? the checks are anomalies,",
        ),
        (["--accept", "undecodable", "--reason", "so"], "nothing can be trained on such examples"),
    ]:
        done = vitpipe(unused, "run", *arguments)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr


def test_a_dry_run_shows_settings_and_nodes_and_leaves_nothing(unused):
    done = vitpipe(unused, "run", "--dry-run", "--set", "training.epochs=7")
    assert done.returncode == 0, done.stderr
    assert "epochs: 7" in done.stdout and "Pusher" in done.stdout
    assert not (unused / "runs").exists()


def test_a_span_without_its_manifest_is_refused(unused):
    (unused / "data" / "sample" / "span-1" / "manifest.json").unlink()
    done = vitpipe(unused, "run")
    assert done.returncode == 3
    assert "manifest.json" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.slow
def test_other_sizes_and_classes_need_only_settings(tmp_path):
    """Photographs of 64x64 pixels and three classes. One training image also appears in test, and is left out."""
    rng = np.random.default_rng(0)
    colours = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}
    for split, rows in {"train": 40, "test": 10}.items():
        for name, colour in colours.items():
            for row in range(rows):
                small = np.clip(rng.normal(colour, 60, (8, 8, 3)), 0, 255).astype("uint8")
                target = tmp_path / "images" / split / name / f"{row}.jpg"
                target.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC).save(target)
    shutil.copy(tmp_path / "images" / "test" / "red" / "0.jpg", tmp_path / "images" / "train" / "red" / "copy.jpg")
    assert vitpipe(tmp_path, "data", "prepare", "images", "--source", "images", "--out", "data/mine").returncode == 0
    (tmp_path / "mine.yaml").write_text(
        "preset: sample\nname: mine\ndata: {dir: data/mine}\ngate: {accuracy: 0.5, class_accuracy: 0, calibration: 1}\n"
        "model: {image_size: 64, patch_size: 16, depth: 1}\ntraining: {epochs: 6, batch_size: 16}\n"
    )
    refused = vitpipe(tmp_path, "run", "-c", "mine.yaml")
    assert refused.returncode == 3, refused.stdout + refused.stderr
    assert "exact_leaks" in refused.stdout and "test/red/0.jpg" in refused.stdout

    done = vitpipe(tmp_path, "run", "-c", "mine.yaml", "--set", "data_gate.leave_out_leaks=true")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 examples that leak between splits are left out" in done.stderr
    assert states(done)["ImageStatistics"] == "cached"
    assert pushed(tmp_path, "mine") == ["1"]
    answer = json.loads(vitpipe(tmp_path, "predict", "images/test/blue/3.jpg", "--json").stdout)[0]
    assert answer["class"] == "blue" and len(answer["probabilities"]) == 3


@pytest.mark.slow
def test_a_slice_of_the_real_cifar10(cifar10_archive, tmp_path):
    """Run the whole graph on 40 training and 10 test images per class, with bounds that every model satisfies."""
    counts = {}
    with tarfile.open(cifar10_archive) as archive:
        for member in archive:
            split, _, rest = member.name.removeprefix("./").partition("/")
            name = rest.partition("/")[0]
            wanted = {"train": 40, "test": 10}.get(split, 0)
            if member.isfile() and counts.setdefault((split, name), 0) < wanted:
                counts[split, name] += 1
                target = tmp_path / "images" / split / name / Path(member.name).name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())
    assert sorted(counts.values()) == [10] * 10 + [40] * 10
    prepared = vitpipe(tmp_path, "data", "prepare", "cifar10", "--source", "images")
    assert prepared.returncode == 0, prepared.stderr

    settings = {
        "gate.accuracy": 0,
        "gate.calibration": 1,
        "training.epochs": 1,
        "training.batch_size": 32,
        "model.depth": 1,
    }
    done = vitpipe(tmp_path, "run", "-c", "cifar10-cpu", *with_settings(settings))
    assert done.returncode == 0, done.stdout + done.stderr
    assert pushed(tmp_path, "cifar10-cpu") == ["1"]
    some = next((tmp_path / "images" / "test").rglob("*.jpg"))
    answer = json.loads(vitpipe(tmp_path, "predict", str(some), "--json").stdout)[0]
    assert Image.open(io.BytesIO(some.read_bytes())).size == (32, 32)
    assert answer["class"] in {name for _, name in counts}
