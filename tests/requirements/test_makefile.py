"""The Makefile finds a Python, and a way to install uv, in every environment."""

import shlex
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAKE = shutil.which("make")

pytestmark = pytest.mark.skipif(MAKE is None, reason="no make")


@pytest.fixture
def checkout(tmp_path):
    """A checkout that was never set up."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    shutil.copytree(ROOT / "requirements", tmp_path / "requirements")
    return tmp_path


def commands(checkout, path, *arguments):
    """Return the commands that would install uv, without running them."""
    environment = {"PATH": ":".join(map(str, path))}
    done = subprocess.run(
        [MAKE, "--dry-run", ".uv/.ready", *arguments], cwd=checkout, env=environment, capture_output=True, text=True
    )
    return done.returncode, done.stdout + done.stderr


def pip_of(output):
    """Return the Python whose pip would install uv."""
    [line] = [line for line in output.splitlines() if " -m pip install " in line]
    return shlex.split(line)[0]


def has_pip(python):
    return subprocess.run([python, "-c", "import pip"], capture_output=True).returncode == 0


@pytest.fixture
def without_pip(tmp_path):
    """Environment without pip, such as uv creates, of a Python that has pip."""
    if not has_pip(sys._base_executable):
        pytest.skip("this Python has no pip")
    venv.create(tmp_path / "environment", with_pip=False, symlinks=True)
    return tmp_path / "environment" / "bin"


def test_in_an_environment_without_pip_its_own_base_installs_uv(checkout, without_pip):
    code, output = commands(checkout, [without_pip])
    assert code == 0, output
    assert Path(pip_of(output)).parent != without_pip and has_pip(pip_of(output))


def test_a_python_further_down_the_path_installs_uv(checkout, tmp_path):
    """The first python3.11 on the path does not run, like pyenv's scripts for inactive versions."""
    if not has_pip(sys._base_executable):
        pytest.skip("this Python has no pip")
    for folder, text in ("first", "exit 127"), ("second", f'exec {sys._base_executable} "$@"'):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "python3.11").write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / folder / "python3.11").chmod(0o755)
    code, output = commands(checkout, [tmp_path / "first", tmp_path / "second"])
    assert code == 0, output
    assert pip_of(output) == str(tmp_path / "second" / "python3.11")


def test_without_any_pip_a_uv_on_the_path_installs_uv(checkout, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "uv").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "uv").chmod(0o755)
    code, output = commands(checkout, [tmp_path / "bin"])
    assert code == 0, output
    assert f"{tmp_path}/bin/uv pip install --quiet --target .uv --require-hashes" in output


@pytest.mark.parametrize("arguments, tried", [([], "python3.11 "), (["PYTHON=/nowhere/python"], "/nowhere/python")])
def test_without_pip_and_uv_the_message_names_what_was_tried(checkout, tmp_path, arguments, tried):
    code, output = commands(checkout, [tmp_path / "nothing"], *arguments)
    assert code == 2
    assert "No Python 3.11 to 3.13 with pip runs here" in output and f"(tried {tried}" in output
