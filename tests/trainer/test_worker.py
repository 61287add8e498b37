"""Where a worker gets its job and TF_CONFIG from."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainer.worker import read_job, tf_config

ROOT = Path(__file__).parents[2]
JOB = {
    "workers": ["a:1", "b:2"],
    "transform_output": "graph",
    "schema_path": "schema.pbtxt",
    "train_files": ["train/*"],
    "eval_files": ["val/*"],
    "serving_model_dir": "model",
    "model_run_dir": "run",
    "custom_config": {"mean": [1.0]},
}


def task(index=None, **environment):
    return json.loads(tf_config(JOB["workers"], index, environment))


def expected(index):
    return {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": index}}


def test_tf_config_is_made_from_the_addresses_and_the_index():
    assert task(1) == expected(1)
    assert task(0, JOB_COMPLETION_INDEX="1") == expected(0)


def test_tf_config_is_made_for_an_indexed_job_of_kubernetes():
    assert task(JOB_COMPLETION_INDEX="1") == expected(1)


def test_an_existing_tf_config_stays():
    other = {"cluster": {"chief": ["c:3"], "worker": ["d:4"]}, "task": {"type": "chief", "index": 0}}
    assert task(1, TF_CONFIG=json.dumps(other), JOB_COMPLETION_INDEX="1") == other


def test_tensorflow_is_not_imported_before_the_variable_is_set():
    code = "import sys, trainer.worker; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


@pytest.mark.parametrize(("index", "variable"), [(None, None), (2, None), (-1, None), (None, "2"), (None, "many")])
def test_an_unknown_index_is_an_error(index, variable):
    with pytest.raises(ValueError):
        task(index, **({"JOB_COMPLETION_INDEX": variable} if variable else {}))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"workers": []}, "workers: "),
        ({"workers": ["a"]}, "workers.0: "),
        ({"train_files": []}, "train_files: "),
        ({"custom_config": None}, "custom_config: "),
        ({"epochs": 3}, "epochs: "),
    ],
)
def test_a_wrong_job_is_an_error_that_names_the_field(tmp_path, change, named):
    file = tmp_path / "job.json"
    file.write_text(json.dumps(JOB | change))
    with pytest.raises(ValueError, match=named):
        read_job(file)


def test_a_file_that_is_no_job_or_missing_is_an_error(tmp_path):
    (tmp_path / "text").write_text("workers")
    with pytest.raises(ValueError, match="not a valid job"):
        read_job(tmp_path / "text")
    with pytest.raises(FileNotFoundError):
        read_job(tmp_path / "missing")


@pytest.mark.parametrize("arguments", [["missing.json", "--index=0"], ["job.json"], ["job.json", "--index=2"]])
def test_the_command_rejects_a_wrong_call(tmp_path, arguments):
    (tmp_path / "job.json").write_text(json.dumps(JOB))
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "trainer.worker", *arguments], cwd=tmp_path, env=environment, capture_output=True
    )
    assert done.returncode == 2 and done.stdout == b""
