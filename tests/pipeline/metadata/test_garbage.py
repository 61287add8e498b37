"""`vitpipe gc` on a store of thirty runs whose artifacts lie on the disk."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from pipeline.cli import main
from pipeline.metadata.reader import reader
from pipeline.metadata.stores import stores
from tests.stores import make_store

RUNS = 30


@pytest.fixture
def folder(tmp_path):
    """The run folders; every artifact is a folder with a few files, but for one that lies elsewhere."""
    make_store(tmp_path / "runs" / "sample" / "metadata.db", runs=RUNS)
    for artifact in artifacts(tmp_path / "runs"):
        Path(artifact.uri).mkdir(parents=True)
        for number in range(3):
            (Path(artifact.uri) / f"{number}.bin").write_bytes(b"x" * 1000)
    return tmp_path / "runs"


def artifacts(runs):
    with reader(stores(runs)["sample"]) as store:
        return store.artifacts()


def needed_by(runs, newest):
    with reader(stores(runs)["sample"]) as store:
        return {
            artifact.id
            for run in store.runs(limit=newest)
            for execution in run.executions
            for channels in (execution.inputs, execution.outputs)
            for of_channel in channels.values()
            for artifact in of_channel
        }


def vitpipe(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["vitpipe", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_what_no_kept_run_needs_goes_and_the_store_says_so(folder, monkeypatch, capsys):
    kept, before = needed_by(folder, 2), artifacts(folder)
    assert vitpipe(monkeypatch, "gc", "--keep", 2, "--dry-run", "--runs", folder) == 0
    assert "would be removed" in capsys.readouterr().out
    assert artifacts(folder) == before and all(Path(one.uri).is_dir() for one in before)

    assert vitpipe(monkeypatch, "gc", "--keep", 2, "--dry-run", "--json", "--runs", folder) == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["bytes"] for one in told} == {3000} and artifacts(folder) == before

    assert vitpipe(monkeypatch, "gc", "--keep", 2, "--runs", folder) == 0
    after = {one.id: one for one in artifacts(folder)}
    assert all(after[number].state == "live" and Path(after[number].uri).is_dir() for number in kept)
    gone = [one for one in after.values() if one.state == "deleted"]
    assert {one.id for one in gone} == {one["id"] for one in told}
    assert {"Model", "Examples", "PushedModel"} <= {one.type for one in gone} and len(gone) > len(before) / 2
    assert not any(Path(one.uri).exists() for one in gone)
    assert all(Path(one.uri).is_dir() for one in after.values() if one.type == "DataVerdict")  # newest of its span
    capsys.readouterr()
    assert vitpipe(monkeypatch, "gc", "--keep", 2, "--runs", folder) == 0
    assert capsys.readouterr().out == "sample: nothing to remove\n"


def test_a_collection_that_was_killed_ends_well_when_it_is_started_again(folder):
    kept, before = needed_by(folder, 1), artifacts(folder)
    line = [sys.executable, "-c", SLOWLY, "gc", "--keep", "1", "--runs", str(folder)]
    killed = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    assert "removed one\n" in iter(killed.stdout.readline, "")
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    halfway = artifacts(folder)
    states = {one.state for one in halfway}
    assert "marked for deletion" in states and "deleted" not in states
    # Nothing that lost its files can be found in the cache.
    assert all(Path(one.uri).is_dir() for one in halfway if one.state == "live")

    done = subprocess.run([sys.executable, "-m", "pipeline.cli", *line[3:]], cwd=Path(__file__).parents[3])
    assert done.returncode == 0
    after = {one.id: one for one in artifacts(folder)}
    assert {one.state for one in after.values()} == {"live", "deleted"}
    assert all(Path(one.uri).is_dir() is (one.state == "live") for one in after.values())
    assert all(after[number].state == "live" for number in kept) and len(after) == len(before)


# The command, with a pause after the first folder, so that it can be killed there.
SLOWLY = """
import shutil, time
from pipeline.cli import main
remove = shutil.rmtree
def rmtree(*arguments, **options):
    remove(*arguments, **options)
    print("removed one", flush=True)
    time.sleep(60)
shutil.rmtree = rmtree
main()
"""


def test_not_while_a_run_goes_on(folder, monkeypatch, capsys):
    with filelock.FileLock(folder / "sample" / ".lock"):
        assert vitpipe(monkeypatch, "gc", "--keep", 1, "--runs", folder) == 2
    assert "a run of sample is going on" in capsys.readouterr().err
    assert all(one.state == "live" for one in artifacts(folder))
