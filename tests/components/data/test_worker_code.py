"""Workers of an engine that run other code than the process that sent their job."""

import shutil
import subprocess
import sys
from pathlib import Path

import apache_beam as beam

from components.data.worker_code import with_same_code
from components.errors import EngineError

ROOT = Path(__file__).parents[3]


def double(number):
    return 2 * number


def test_a_worker_with_the_same_code_calls_the_function():
    assert with_same_code(double)(4) == 8


def test_a_worker_with_other_code_is_refused(tmp_path):
    for package in "components", "pipeline", "trainer":
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    pickled = beam.internal.pickler.dumps(with_same_code(len))
    script = f"from apache_beam.internal import pickler; print(pickler.loads({pickled!r})('abc'))"

    def call():
        return subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)

    assert call().stdout == "3\n"
    with (tmp_path / "trainer" / "augment.py").open("a") as file:
        file.write("\n# changed\n")
    done = call()
    assert done.returncode == 1 and EngineError.__name__ in done.stderr
    assert "restart the pools with the vitpipe of that process" in done.stderr
