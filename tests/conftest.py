import json
import os
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import filelock
import hypothesis
import pytest

from tests.helpers import mariadb as servers
from tests.helpers.command import SHORT, prepare_sample, vitpipe, with_settings

os.environ["KERAS_BACKEND"] = "tensorflow"
# If the suite is started in the background, Ctrl-C is ignored. The commands that tests interrupt would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Compiling a tiny model takes longer than running it, so XLA optimizes less.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

if "PYTEST_XDIST_WORKER" in os.environ:  # there is one worker for each core
    for threads in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
        os.environ.setdefault(threads, "1")

# Property tests draw the same examples every time, so that no run fails by chance. The profile `thorough` draws many
# other examples: choose it with HYPOTHESIS_PROFILE=thorough or --hypothesis-profile=thorough.
hypothesis.settings.register_profile(
    "ci",
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("ci"), max_examples=5_000, derandomize=False
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


# Test files that take minutes, the longest first.
LONGEST = (
    "test_containers.py",
    "test_commands.py",
    "test_chaos.py",
    "test_walk.py",
    "test_end_to_end.py",
    "test_watch.py",
    "test_new_class.py",
    "test_finetune.py",
)


def pytest_collection_modifyitems(items):
    """Run the longest files first. A long file that starts last would keep a single worker busy."""
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


CIFAR10 = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10-images.tar.xz"


@pytest.fixture
def in_this_process(monkeypatch, capfd):
    """Function that runs the command in this process, which saves the time in which a new process imports TFX."""

    def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["vitpipe", *map(str, arguments)])
        capfd.readouterr()
        try:
            runpy.run_module("vitpipe", run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        else:
            code = 0
        return subprocess.CompletedProcess([*arguments], code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def cifar10_archive() -> Path:
    """Archive with the real images. Tests that need it are skipped if it is missing."""
    if not CIFAR10.is_file():
        pytest.skip(f"no CIFAR-10 at {CIFAR10}")
    return CIFAR10


@pytest.fixture(scope="session")
def built_once(tmp_path_factory):
    """Function that builds a folder in the first worker that needs it, for all workers."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def build_once(name: str, build: Callable[[Path], None]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with filelock.FileLock(shared / f"{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)  # left by a worker that failed
                folder.mkdir()
                build(folder)
                done.touch()
        return folder

    return build_once


@pytest.fixture(scope="session")
def sample_data(built_once):
    """Folder with the first span of the sample in data/sample."""
    return built_once("sample-data", prepare_sample)


@pytest.fixture(scope="session")
def run_once(built_once):
    """Function that runs a command in a copy of a folder, once for all workers. Returns the copy and the process."""

    def run(name: str, begin: Path, *arguments: str) -> tuple[Path, subprocess.CompletedProcess[str]]:
        def build(folder: Path) -> None:
            shutil.copytree(begin, folder, dirs_exist_ok=True)
            done = vitpipe(folder, *arguments)
            (folder / "done.json").write_text(json.dumps([done.returncode, done.stdout, done.stderr]))

        folder = built_once(name, build)
        return folder, subprocess.CompletedProcess([], *json.loads((folder / "done.json").read_text()))

    return run


@pytest.fixture(scope="session")
def pushed_sample(run_once, sample_data):
    """Folder in which the sample was run and its model pushed, and the process of the run."""
    return run_once("sample", sample_data, "run", "-c", "sample")


@pytest.fixture(scope="session")
def short_run(run_once, sample_data):
    """Folder in which a small model was trained for a short time and pushed, and the process of the run."""
    folder, done = run_once("short", sample_data, "run", "-c", "sample", *with_settings(SHORT))
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done


@pytest.fixture(scope="session")
def mariadb():
    """MariaDB server for the tests."""
    if reason := servers.missing():
        pytest.skip(reason)
    server = servers.Server()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def chromium():
    """Headless browser."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
