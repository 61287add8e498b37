import os
import shutil
import signal
from pathlib import Path

import hypothesis
import pytest

from tests.helpers import mariadb as servers

os.environ["KERAS_BACKEND"] = "tensorflow"
# A suite started in the background inherits an ignored Ctrl-C, and so would the commands that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Tiny models are compiled for longer than they run: let XLA spend less on each program.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

# Property tests draw the same examples every time, so that no run fails by chance. `thorough` draws many others: choose
# it with HYPOTHESIS_PROFILE=thorough or --hypothesis-profile=thorough.
hypothesis.settings.register_profile(
    "ci", max_examples=100, derandomize=True, deadline=None, database=None, print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)  # fmt: skip
hypothesis.settings.register_profile(
    "thorough", hypothesis.settings.get_profile("ci"), max_examples=5_000, derandomize=False
)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

CIFAR10 = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10-images.tar.xz"


@pytest.fixture(scope="session")
def cifar10_archive() -> Path:
    """The real images, where they are at hand."""
    if not CIFAR10.is_file():
        pytest.skip(f"no CIFAR-10 at {CIFAR10}")
    return CIFAR10


@pytest.fixture(scope="session")
def mariadb():
    """A server of the tests' own."""
    if reason := servers.missing():
        pytest.skip(reason)
    server = servers.Server()
    yield server
    server.remove()


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no Chromium on the PATH")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()
