"""Messages about foreign packages that Python finds before ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def vitpipe(module, path, cwd, *arguments):
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(map(str, path))}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], capture_output=True, text=True, cwd=cwd, env=environment
    )


@pytest.mark.parametrize(
    ("file", "module"),
    [
        ("trainer/__init__.py", "vitpipe"),
        ("trainer.py", "vitpipe"),
        ("components/__init__.py", "vitpipe"),
        ("pipeline/__init__.py", "vitpipe"),
    ],
)
def test_a_package_on_pythonpath_that_hides_ours_is_named(tmp_path, file, module):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("raise RuntimeError('another project')\n" if "pipeline" not in file else "")
    if module == "vitpipe":  # in the checkout nothing is hidden, because the current folder is first on the path
        assert vitpipe(module, [tmp_path, ROOT], ROOT, "--help").returncode == 0
    done = vitpipe(module, [tmp_path, ROOT], tmp_path.parent, "models", "list")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    name = file.removesuffix("/__init__.py")
    assert f"{tmp_path / name}" in done.stderr and "shadows" in done.stderr and "PYTHONPATH" in done.stderr


def test_a_module_in_the_current_folder_that_hides_ours_is_named(tmp_path):
    """`python -m` searches the current folder before an editable installation."""
    (tmp_path / "trainer.py").write_text("")
    done = vitpipe("vitpipe", [ROOT], tmp_path, "doctor")
    assert done.returncode == 2 and "run from another folder" in done.stderr


def test_a_foreign_kubeflow_package_affects_only_the_kfp_commands(tmp_path):
    (tmp_path / "kubeflow").mkdir()
    (tmp_path / "kubeflow" / "__init__.py").write_text("raise RuntimeError('another project')\n")
    done = vitpipe("vitpipe", [tmp_path, ROOT], tmp_path.parent, "models", "list")
    assert "no pushed model below runs" in done.stderr
    done = vitpipe("vitpipe", [tmp_path, ROOT], tmp_path.parent, "kfp", "status")
    assert done.returncode == 2 and f"{tmp_path / 'kubeflow' / '__init__.py'} shadows" in done.stderr
