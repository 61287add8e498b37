"""Run `vitpipe` in a separate process, as a user does, and read the results of its runs."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Settings of a small model that is trained for a short time, and blessed with any accuracy.
SHORT = {
    "model.depth": 1,
    "training.epochs": 6,
    "training.warmup_epochs": 1,
    "training.checkpoint_seconds": 0,
    "gate.accuracy": 0,
    "gate.class_accuracy": 0,
    "gate.calibration": 1,
}


def command(folder: Path, *arguments: object, **environment: str) -> tuple[list[str], dict]:
    """Return the command line, and the options for `subprocess` to run it in `folder`."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "XLA_FLAGS": "", **environment}
    return [sys.executable, "-m", "vitpipe", *map(str, arguments)], {"cwd": folder, "env": variables, "text": True}


def vitpipe(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command in `folder` to its end."""
    line, options = command(folder, *arguments, **environment)
    return subprocess.run(line, capture_output=True, **options)


def on_terminal(folder: Path, *arguments: object, columns: int = 100) -> tuple[subprocess.CompletedProcess[str], str]:
    """Run the command in `folder` to its end. Returns it, and what it wrote to stderr, which is a terminal."""
    line, options = command(folder, *arguments, TERM="xterm", COLUMNS=str(columns))
    terminal, end = pty.openpty()
    with subprocess.Popen(line, stdin=end, stdout=subprocess.PIPE, stderr=end, **options) as process:
        os.close(end)
        output = b""
        while True:
            try:
                output += os.read(terminal, 4096)
            except OSError:  # the other end of the terminal was closed
                break
        stdout = process.communicate()[0]
    os.close(terminal)
    return subprocess.CompletedProcess(line, process.returncode, stdout), output.decode()


def with_settings(settings: Mapping[str, object]) -> list[str]:
    """Return the settings as `--set` options."""
    return [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]


def prepare_sample(folder: Path) -> None:
    """Write the first span of the sample to data/sample."""
    done = vitpipe(folder, "data", "prepare", "sample", "--out", "data/sample")
    assert done.returncode == 0, done.stderr


def states(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """Return the state of each node, from the output of a run."""
    words = [line.split() for line in done.stderr.splitlines() if line.endswith(" s") and not line.startswith(" ")]
    return {line[0]: line[1] for line in words}


def run_id(done: subprocess.CompletedProcess[str]) -> str:
    """Return the id of a run, from its output."""
    return re.search(r"^run (\S+) of ", done.stderr, re.MULTILINE)[1]


def report_page(folder: Path, done: subprocess.CompletedProcess[str]) -> Path:
    """Return the page of a run's report, from its output."""
    return folder / re.search(r"^the report: (\S+)$", done.stdout, re.MULTILINE)[1]


def read_report(folder: Path, done: subprocess.CompletedProcess[str]) -> dict:
    """Return the content of a run's report, and check that its page is below 8 MiB."""
    page = report_page(folder, done)
    assert page.stat().st_size < 8 << 20
    return json.loads((page.parent / "report.json").read_text())


def pushed(folder: Path, name: str) -> list[str]:
    """Return the versions of the models that a pipeline pushed."""
    serving = folder / "runs" / name / "serving"
    return sorted(entry.name for entry in serving.iterdir()) if serving.exists() else []
