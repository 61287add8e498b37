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


def test_a_worker_with_other_code_names_both(tmp_path):
    for package in "components", "trainer":
        shutil.copytree(ROOT / package, tmp_path / package)
    with (tmp_path / "trainer" / "augment.py").open("a") as file:
        file.write("\n# changed\n")
    pickled = beam.internal.pickler.dumps(with_same_code(len))
    script = f"from apache_beam.internal import pickler; pickler.loads({pickled!r})('abc')"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and EngineError.__name__ in done.stderr
    assert "restart the pools with the vitpipe of that process" in done.stderr
    same = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert same.returncode == 0, same.stderr
