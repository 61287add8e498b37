"""The commands of the guide run as they stand, page by page, in a folder with the sample and a pushed model.

A block of commands begins with ```bash or ```python, or with ```console if output follows the lines that begin with
"$". `<!-- not run: REASON -->` above a block says why it cannot run here; then only its options are checked.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import typer
from PIL import Image
from typer.core import TyperGroup

from components.data.ingest.sources.cifar10 import CLASS_NAMES
from vitpipe.cli import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("**/*.md"))]
QUICK = ("metadata.md",)  # its commands train nothing
# Settings that a page does not give itself: a model that is trained for a moment and blessed whatever its accuracy.
SMALL = {
    "VITPIPE_MODEL__DEPTH": "1",
    "VITPIPE_TRAINING__EPOCHS": "2",
    "VITPIPE_TRAINING__WARMUP_EPOCHS": "1",
    "VITPIPE_FINETUNE__HEAD_EPOCHS": "1",
    "VITPIPE_FINETUNE__EPOCHS": "1",
    "VITPIPE_GATE__ACCURACY": "0",
    "VITPIPE_GATE__CLASS_ACCURACY": "0",
    "VITPIPE_GATE__CALIBRATION": "1",
    "VITPIPE_GATE__TOLERANCE": "1",
}
_FENCE = re.compile(
    r"^(?:<!-- not run: (?P<reason>[^\n]+) -->\n)?```(?P<kind>[^\n]*)\n(?P<text>.*?)^```$", re.DOTALL | re.M
)


class Block(NamedTuple):
    """One fenced block of a page; `reason` says why it is not run."""

    reason: str | None
    kind: str
    text: str

    def script(self) -> str:
        """Return the commands without the output that a console shows."""
        if self.kind == "python":
            return f"python - <<'PYTHON'\n{self.text}PYTHON\n"
        if self.kind == "console":
            return "".join(f"{line[2:]}\n" for line in self.text.splitlines() if line.startswith(("$ ", "> ")))
        return self.text


def blocks(page: Path) -> list[Block]:
    return [Block(*fence.group("reason", "kind", "text")) for fence in _FENCE.finditer(page.read_text())]


def to_run(page: Path) -> list[Block]:
    return [block for block in blocks(page) if block.kind in ("bash", "console", "python") and not block.reason]


def execute(script: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a person would in an activated environment."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, **SMALL, "PATH": path, "NO_COLOR": "1"}
    command = ["bash", "-euo", "pipefail", "-c", script]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def draw_images(folder: Path, count: int, generator: np.random.Generator) -> None:
    """Write PNG images of noise, which resemble no other image."""
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        pixels = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def workplace(tmp_path, short_run):
    """Folder in which the guide's reader is: the sample and its pushed model, own photos, an archive like CIFAR-10."""
    folder = tmp_path / "workplace"
    shutil.copytree(short_run[0], folder)
    generator = np.random.default_rng(0)
    for name in ("cat", "dog"):
        draw_images(folder / "photos" / name, 40, generator)
    shutil.copy(folder / "photos" / "cat" / "1.png", folder / "photo.png")
    for name in CLASS_NAMES:
        draw_images(tmp_path / "images" / "train" / name, 40, generator)
        draw_images(tmp_path / "images" / "test" / name, 10, generator)
    shutil.make_archive(str(folder / "cifar10-images"), "xztar", tmp_path / "images")
    return folder


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(
            page, id=page.name, marks=() if page.name in QUICK else (pytest.mark.slow, pytest.mark.timeout(1800))
        )
        for page in PAGES
        if to_run(page)
    ],
)
def test_commands_of_the_page_run_in_order(page, workplace):
    for block in to_run(page):
        done = execute(block.script(), workplace)
        assert done.returncode == 0, f"{block.script()}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


def test_mistyped_command_fails(tmp_path):
    assert execute("vitpipe settings trainign\n", tmp_path).returncode == 2
    assert execute("vitpipe rnus list\n", tmp_path).returncode == 2
    assert execute("vitpipe settings --jsn | cat\n", tmp_path).returncode == 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_what_it_is(page):
    kinds = {block.kind for block in blocks(page) if not block.kind.startswith("{")}  # "{": a directive of Sphinx
    assert kinds <= {"bash", "console", "python", "text", "yaml", "mermaid"}


COMMANDS = {
    line: page.name
    for page in PAGES
    for block in blocks(page)
    if block.kind in ("bash", "console")
    for line in block.script().replace("\\\n", " ").splitlines()
    if line.startswith("vitpipe ")
}


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_have_known_options(line):
    _, *words = shlex.split(line, comments=True)
    command = typer.main.get_command(app)
    while isinstance(command, TyperGroup):
        command = command.commands[words.pop(0)]
    command.make_context(line, words)
