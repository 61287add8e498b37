import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.provenance import code_version

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(tmp_path):
    for package in ("pipeline", "components", "trainer", "requirements"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def digests(folder):
    script = (
        "from pipeline.provenance import digest;"
        "print(digest('trainer.run'), digest('trainer.preprocessing'), digest('components.model.pusher'))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_the_digest_of_a_step_changes_only_with_code_that_it_imports(copy):
    train, preprocessing, pusher = digests(copy)
    (copy / "README.md").write_text("changed")
    (copy / "trainer" / "unrelated.py").write_text("x = 1\n")
    assert digests(copy) == [train, preprocessing, pusher]

    with (copy / "trainer" / "vit.py").open("a") as file:  # reached by train.py alone
        file.write("\n# changed\n")
    edited = digests(copy)
    assert edited[0] != train
    assert edited[1:] == [preprocessing, pusher]

    with (copy / "components" / "model" / "model_card.md").open("a") as file:  # a template of the pusher
        file.write("changed\n")
    assert digests(copy)[:2] == edited[:2] and digests(copy)[2] != pusher


def version_in(folder):
    done = subprocess.run(
        [sys.executable, "-c", "from pipeline.provenance import code_version; print(code_version())"],
        cwd=folder,
        capture_output=True,
        text=True,
        env={"GIT_CEILING_DIRECTORIES": str(folder.parent), "PATH": "/usr/bin"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_outside_a_checkout_the_code_version_is_a_digest_of_the_sources(copy):
    assert version_in(copy).startswith("sources-")


def test_an_image_records_its_code_version(copy):
    (copy / "CODE_VERSION").write_text("0123456789ab-dirty\n")
    assert version_in(copy) == "0123456789ab-dirty"


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a git checkout")
def test_in_a_checkout_the_code_version_is_the_commit():
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    assert head.startswith(code_version().removesuffix("-dirty"))
