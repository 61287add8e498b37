"""Every example of examples/, run as its user runs it."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import tensorflow as tf
from PIL import Image

import vitpipe
from pipeline.result.run_result import RunState
from tests.helpers import model_server
from tests.helpers.command import ROOT, pushed
from tests.helpers.spans import encoded, picture

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]
EXAMPLES = ROOT / "examples"
NOTEBOOK = "python_interface.ipynb"
# Runs a script, then prints the packages that it imported.
WITH_MODULES = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def run(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in `folder`, with the programs of this environment and the code of this checkout."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    variables = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)


@pytest.fixture
def checkout(tmp_path):
    """Folder with a copy of examples/, like a fresh checkout."""
    shutil.copytree(EXAMPLES, tmp_path / "examples")
    return tmp_path


@pytest.fixture
def images(tmp_path):
    """Folder with an image, and a file that is not an image."""
    (tmp_path / "a.png").write_bytes(encoded(picture(1, 32)))
    (tmp_path / "b.png").write_bytes(b"no image")
    return tmp_path


@pytest.fixture(scope="module")
def serving(pushed_sample):
    """Folder of a pushed version."""
    return pushed_sample[0] / "runs" / "sample" / "serving" / "1"


def check_predictions(done, signatures, images):
    """Check what a client printed for the files of `images` against the answers of the model itself."""
    assert done.returncode == 0, done.stderr
    files = [images / "a.png", images / "b.png"]
    answer = signatures["serving_bytes"](image_bytes=tf.constant([file.read_bytes() for file in files]))
    name, probability = answer["class"].numpy()[0].decode(), answer["probabilities"].numpy()[0].max()
    first, second = done.stdout.splitlines()
    assert first == f"{files[0]} {name} {probability:.3f}"
    assert second.startswith(f"{files[1]} is not")


def test_saved_model(serving, images):
    files = [f"{images}/a.png", f"{images}/b.png"]
    done = run(images, sys.executable, "-c", WITH_MODULES, str(EXAMPLES / "saved_model.py"), str(serving), *files)
    check_predictions(done, tf.saved_model.load(str(serving)).signatures, images)
    assert not {"vitpipe", "kubeflow", "pipeline", "components", "trainer", "tfx"} & {*done.stderr.split()}


def test_model_server(serving, images):
    signatures = tf.saved_model.load(str(serving)).signatures
    with model_server.rest(model_server.Served(signatures)) as address:
        # Without site-packages, so that the standard library is all that there is.
        client = [sys.executable, "-I", "-S", str(EXAMPLES / "model_server.py"), address]
        done = run(images, *client, f"{images}/a.png", f"{images}/b.png", no_proxy="127.0.0.1")
    check_predictions(done, signatures, images)
    assert run(images, *client, f"{images}/a.png", no_proxy="127.0.0.1").returncode == 1  # the server has ended


def test_generated_images_are_the_same_each_time_and_differ_from_each_other(checkout):
    for folder in ("first", "second"):
        done = run(checkout, sys.executable, "examples/generate_images.py", folder)
        assert done.returncode == 0, done.stderr
    first, second = (
        {file.relative_to(checkout / folder): file.read_bytes() for file in (checkout / folder).rglob("*.jpg")}
        for folder in ("first", "second")
    )
    assert first == second and len(first) == len(set(first.values())) == 600
    for file in list(first)[::100]:
        with Image.open(checkout / "first" / file) as image:
            assert image.format == "JPEG" and min(image.size) >= 48


@pytest.mark.slow
def test_own_images(checkout):
    done = run(checkout, "examples/own_images.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert pushed(checkout, "patterns") == ["1"]
    predictions = [line.split() for line in done.stdout.splitlines() if line.startswith("data/patterns-images/")]
    assert len(predictions) == 5
    assert {name for _, name, _ in predictions} <= {"checks", "dots", "stripes"}


@pytest.mark.slow
def test_own_images_of_a_user(checkout):
    folder = checkout / "my pictures"
    assert run(checkout, sys.executable, "examples/generate_images.py", str(folder)).returncode == 0
    (folder / "notes.txt").write_text("of last summer")
    done = run(checkout, "examples/own_images.sh", "summer", str(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert pushed(checkout, "summer") == ["1"]
    assert len([line for line in done.stdout.splitlines() if line.startswith(str(folder))]) == 5


def test_own_images_without_a_folder_is_a_usage_error(checkout):
    assert run(checkout, "examples/own_images.sh", "summer").returncode == 2
    assert {*checkout.iterdir()} == {checkout / "examples"}


@pytest.mark.slow
def test_fine_tuning(checkout):
    done = run(checkout, "examples/fine_tuning.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    assert pushed(checkout, "digits-0-4") == pushed(checkout, "digits-5-9") == ["1"]
    result = vitpipe.read_run("last", checkout / "runs")
    assert (result.pipeline, result.state) == ("digits-5-9", RunState.DONE)
    pretrained = vitpipe.list_runs(checkout / "runs", pipeline="digits-0-4").runs
    assert result.backbone.run == pretrained[0].run


@pytest.mark.slow
def test_notebook(checkout):
    done = run(checkout, "jupyter", "execute", "--inplace", f"examples/{NOTEBOOK}")
    assert done.returncode == 0, done.stderr
    result = vitpipe.read_run("last", checkout / "runs")
    assert (result.pipeline, result.state, result.pushed) == ("notebook", RunState.DONE, "1")
    cells = nbformat.read(checkout / "examples" / NOTEBOOK, as_version=4).cells
    printed = "".join(out.text for cell in cells for out in cell.get("outputs", ()) if out.output_type == "stream")
    assert f"accuracy on the test images: {result.accuracy}" in printed
    [name] = re.findall(r"^(\w+) with probability [01]\.\d{3}$", printed, re.MULTILINE)
    assert name in result.judgement.candidate.classes
    for noise in ("WARNING", "oneDNN", "absl", "Traceback"):
        assert noise not in printed


def test_the_notebook_is_committed_without_outputs():
    notebook = nbformat.read(EXAMPLES / NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code and not any(cell.outputs or cell.execution_count for cell in code)


def test_the_readme_lists_every_example():
    text = (EXAMPLES / "README.md").read_text()
    files = [file for file in EXAMPLES.iterdir() if file.is_file() and file.name != "README.md"]
    assert files and [file.name for file in files if f"]({file.name})" not in text] == []
