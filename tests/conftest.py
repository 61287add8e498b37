import os
from pathlib import Path

import pytest

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

CIFAR10 = Path(__file__).resolve().parents[2] / "shared" / "data" / "cifar10-images.tar.xz"


@pytest.fixture(scope="session")
def cifar10_archive() -> Path:
    """The real images, where they are at hand."""
    if not CIFAR10.is_file():
        pytest.skip(f"no CIFAR-10 at {CIFAR10}")
    return CIFAR10
