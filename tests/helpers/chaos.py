"""Kill the sample pipeline at random moments and check what must be true after each kill.

`tests/test_chaos.py` runs a dozen kills, `benchmarks/chaos.py` hundreds.
"""

import contextlib
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
NAME = "sample"
TIMEOUT_S = 300  # for any one command
OPEN_GATE = {"gate.accuracy": 0, "gate.class_accuracy": 0, "gate.calibration": 1, "gate.tolerance": 1}
SHORT = {"training.epochs": 2, "training.warmup_epochs": 0, "model.depth": 1, "training.checkpoint_seconds": 0}

# This code runs in a separate process, so that Python starts only once for all commands that read.
READ_EVERYTHING = """
import contextlib, io, json, sys, traceback
from pathlib import Path
from vitpipe.cli import main
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader

faults = []

def ask(*arguments, allowed=(0,)):
    sys.argv = ["vitpipe", *arguments]
    out, err = io.StringIO(), io.StringIO()
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code or 0
    except BaseException:
        code = traceback.format_exc()
    if code not in allowed:
        faults.append(f"vitpipe {' '.join(arguments)}: {code}: {err.getvalue()[-500:]}")
    return out.getvalue()

listed = ask("runs", "list", "--limit", "0", "--json")
runs = [run["run"] for run in json.loads(listed or "[]")]
ask("runs", "list")
for run in runs[:2]:
    ask("runs", "show", run)
    ask("why", run)
if len(runs) > 1:
    ask("runs", "diff", runs[0], runs[1])
ask("runs", "export")
ask("report", "last", "--no-open", allowed=(0, 2))  # a killed run may have no report
ask("artifacts", "list", "--limit", "0")
for artifact in json.loads(ask("artifacts", "list", "--limit", "2", "--json") or "[]"):
    ask("artifacts", "show", str(artifact["id"]))
ask("models", "list")
ask("models", "verify")
ask("data", "verify", "data/sample")
ask("gc", "--keep", "1", "--dry-run")
versions = json.loads(ask("models", "list", "--json") or "[]")
for version in versions:
    ask("lineage", f"v{version['version']}")
ask("predict", "image.png", "--json")
with reader(Address(file=Path("runs/sample/metadata.db"))) as store:
    for artifact in store.artifacts(state="live"):
        # A pushed model's own folder is empty: its files are a version below serving/, which `models verify` reads.
        empty = artifact.type != "PushedModel" and Path(artifact.uri).exists() and not any(Path(artifact.uri).iterdir())
        if empty or not Path(artifact.uri).exists():
            faults.append(f"artifact {artifact.id} ({artifact.type}) is live without files: {artifact.uri}")
credited = {run["pushed"] for run in json.loads(listed or "[]") if run.get("pushed")}
for version in versions:
    if version["restored_from"] is None and str(version["version"]) not in credited:
        faults.append(f"no run is credited with version {version['version']}")
print(json.dumps({"faults": faults, "versions": versions, "runs": len(runs)}))
"""


@dataclass(frozen=True)
class Moment:
    """Time of a kill: `seconds` after a line that starts with `line` was printed, or after the start."""

    line: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s after {self.line or 'the start'}"


@dataclass
class Counts:
    """Numbers of kills and checks, and the faults that they showed."""

    kills: Counter[str] = field(default_factory=Counter)  # by command and phase
    late: Counter[str] = field(default_factory=Counter)  # kills after the command had printed its result
    checks: int = 0
    faults: list[str] = field(default_factory=list)

    def table(self) -> str:
        rows = [
            f"{phase:40} {count:5} kills, {self.late[phase]} after the result" for phase, count in self.kills.items()
        ]
        return "\n".join(
            [
                *sorted(rows),
                f"{sum(self.kills.values())} kills, {self.checks} checks of everything that "
                f"reads, {len(self.faults)} faults",
                *self.faults,
            ]
        )


class Chaos:
    """A folder with two pushed models and a model that was not blessed. It is restored before every kill.

    Args:
        folder: an empty folder.
        seed: seed of the times of the kills.
    """

    def __init__(self, folder: Path, seed: int):
        self.work, self.snapshot, self.stdout = folder / "work", folder / "snapshot", folder / "stdout.txt"
        self.random = random.Random(seed)
        self.counts = Counts()
        self.work.mkdir(parents=True)
        Image.new("RGB", (32, 32), (200, 30, 30)).save(self.work / "image.png")
        self._must(0, "data", "prepare", NAME, "--out", f"data/{NAME}")
        self._must(0, *self.run_command(seed=0))
        self._must(0, *self.run_command(seed=1))
        refused = self._must(4, *self.run_command(seed=2, **{"gate.accuracy": 1}))
        [started] = [line for line in refused.splitlines() if line.startswith("run ")]
        self.refused_run = started.split()[1]
        self.work.rename(self.snapshot)

    def run_command(self, seed: int, **settings: object) -> list[str]:
        every = SHORT | OPEN_GATE | {"training.seed": seed} | settings
        return ["run", "-c", NAME, *(word for key, value in every.items() for word in ("--set", f"{key}={value}"))]

    def commands(self) -> dict[str, tuple[list[str], Callable[[list[dict]], bool]]]:
        """Return each command that changes something, with a check of the pushed models after it has ended."""

        def third(**expected: object) -> Callable[[list[dict]], bool]:
            return lambda versions: (
                [one["version"] for one in versions] == [1, 2, 3]
                and all(versions[2][key] == value for key, value in expected.items())
            )

        return {
            "run": (self.run_command(seed=3), third(restored_from=None)),
            "rollback": (["rollback"], third(restored_from=1)),
            "bless": (["bless", self.refused_run, "--reason", "chaos"], third(run_id=self.refused_run)),
            "gc": (["gc", "--keep", "1"], lambda versions: [one["version"] for one in versions] == [1, 2]),
        }

    def rehearse(self, name: str) -> list[Moment]:
        """Run a command without a kill. Returns the lines that it printed, each with the seconds until the next."""
        arguments, _ = self.commands()[name]
        self._reset()
        started = time.monotonic()
        marks = [("", started)]
        with self._start(arguments) as process:
            assert process.stderr
            for line in process.stderr:
                if line[:1].isalpha():  # a line of a node; those of the epochs are indented
                    marks.append((line.split()[0], time.monotonic()))
            assert process.wait(TIMEOUT_S) == 0
        marks.append(("the end", time.monotonic()))
        return [Moment(line, after - at) for (line, at), (_, after) in itertools.pairwise(marks)]

    def kill(self, name: str, moments: list[Moment]) -> None:
        """Kill a command in one of its phases, check everything, run it again, and check that it has ended well.

        A rollback that has printed its result is done. It is not run again, because it would go back one version
        further.
        """
        arguments, expected = self.commands()[name]
        chosen = self.random.choice(moments)
        # Short phases are extended, because a push takes only milliseconds.
        moment = Moment(chosen.line, self.random.uniform(0, max(chosen.seconds, 0.3) * 1.05))
        self._reset()
        phase = f"{name}: after {chosen.line or 'its start'}"
        printed = self._kill_at(arguments, moment)
        self.counts.kills[phase] += 1
        self.counts.late[phase] += bool(printed)
        after = f"{name} killed {moment}"
        versions = self._check(after)
        if name != "rollback" or not printed:
            after += ", then run again"
            done = self._finish(arguments)
            if done.returncode != 0:
                self._fault(f"{after}: exit {done.returncode}: {done.stderr[-800:]}")
            versions = self._check(after)
        if not expected(versions):
            shown = [(one["version"], one["restored_from"], one["run_id"]) for one in versions]
            self._fault(f"{after}: pushed versions {shown}")

    def _must(self, code: int, *arguments: str) -> str:
        done = self._finish(list(arguments))
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stderr

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}

    def _start(self, arguments: list[str]) -> subprocess.Popen[str]:
        with self.stdout.open("w") as stdout:
            return subprocess.Popen(
                [sys.executable, "-m", "vitpipe", *arguments],
                cwd=self.work,
                env=self._environment(),
                text=True,
                stdout=stdout,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )

    def _finish(self, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "vitpipe", *arguments],
            cwd=self.work,
            env=self._environment(),
            text=True,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def _kill_at(self, arguments: list[str], moment: Moment) -> str:
        """Kill the command's process group. Returns its output, which is empty until it prints its result."""
        process = self._start(arguments)
        assert process.stderr
        if moment.line:
            for line in process.stderr:
                if line.startswith(moment.line):
                    break
        time.sleep(moment.seconds)
        with contextlib.suppress(ProcessLookupError):  # all processes of the group have ended
            os.killpg(process.pid, signal.SIGKILL)
        process.stderr.close()
        if process.wait(TIMEOUT_S) not in (0, -signal.SIGKILL):
            self._fault(f"{arguments[0]} failed before it could be killed {moment}: exit {process.returncode}")
        return self.stdout.read_text()

    def _check(self, after: str) -> list[dict]:
        """Run every command that reads. Returns the pushed versions."""
        self.counts.checks += 1
        done = subprocess.run(
            [sys.executable, "-c", READ_EVERYTHING],
            cwd=self.work,
            env=self._environment(),
            text=True,
            capture_output=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            self._fault(f"{after}: reading crashed: {done.stderr[-800:]}")
            return []
        found = json.loads(done.stdout.splitlines()[-1])
        for fault in found["faults"]:
            self._fault(f"{after}: {fault}")
        folders = sorted(entry.name for entry in (self.work / "runs" / NAME / "serving").iterdir())
        listed = sorted(str(version["version"]) for version in found["versions"])
        if [name for name in folders if not name.startswith(".")] != listed:
            self._fault(f"{after}: {folders} in serving, {listed} are versions")
        return found["versions"]

    def _fault(self, text: str) -> None:
        self.counts.faults.append(text)

    def _reset(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.snapshot, self.work, symlinks=True)
