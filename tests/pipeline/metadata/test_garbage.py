"""`vitpipe gc` on a store of thirty runs whose artifacts lie on the disk."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import filelock
import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.errors import NotFound
from components.model import tuning_record
from pipeline.garbage_collection import collect_garbage
from pipeline.metadata.garbage import remove_folder
from pipeline.metadata.reader import reader
from pipeline.metadata.stores import stores
from tests.helpers.stores import make_store
from vitpipe.cli import main

RUNS = 30


@pytest.fixture
def folder(tmp_path):
    """Folder of run folders, in which every artifact has a folder with a few files."""
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


def test_the_newest_tuning_of_each_search_space_is_kept(folder):
    store = MetadataStore(stores(folder)["sample"].connection_config())
    kind = store.put_artifact_type(mlmd.ArtifactType(name=tuning_record.ARTIFACT))
    uris = []
    for number, space in enumerate(["one", "one", "other"]):
        uris.append(str(folder.resolve() / "sample/root/Tuner/best_hyperparameters" / str(900 + number)))
        Path(uris[-1]).mkdir(parents=True)
        artifact = mlmd.Artifact(type_id=kind, uri=uris[-1], state=mlmd.Artifact.LIVE)
        artifact.custom_properties[tuning_record.SPACE].string_value = space
        store.put_artifacts([artifact])
        time.sleep(0.01)  # times of creation are in milliseconds
    [collection] = collect_garbage(1, runs=folder)
    assert [one.uri for one in collection.removed if one.type == tuning_record.ARTIFACT] == uris[:1]
    assert [Path(uri).exists() for uri in uris] == [False, True, True]


def test_tables_of_measured_shards_stay_while_an_artifact_contains_them(folder):
    used, unused = (folder / "sample" / "measured" / f"{name}.parquet" for name in ("used", "unused"))
    used.parent.mkdir()
    for table in used, unused:
        table.touch()
    newest = max(Path(artifact.uri) for artifact in artifacts(folder) if artifact.id in needed_by(folder, 1))
    (newest / "part.parquet").hardlink_to(used)
    collect_garbage(1, runs=folder, dry_run=True)
    assert unused.exists()
    collect_garbage(1, runs=folder)
    assert used.exists() and not unused.exists()


def test_temporary_folders_of_killed_monitors_are_removed_after_a_week(folder):
    used, abandoned, link = (folder / "sample" / f".monitor-{name}" for name in ("used", "abandoned", "link"))
    for scratch in used, abandoned, folder / "other":
        scratch.mkdir()
        (scratch / "0").touch()
    link.symlink_to(folder / "other")
    for scratch, days in (used, 6), (abandoned, 8), (link, 8):
        os.utime(scratch, (time.time() - days * 86_400,) * 2, follow_symlinks=False)
    collect_garbage(1, runs=folder, dry_run=True)
    assert abandoned.exists()
    collect_garbage(1, runs=folder)
    assert (used / "0").exists() and not abandoned.exists() and (folder / "other" / "0").exists()


def test_artifacts_that_no_kept_run_needs_are_removed_and_marked_as_deleted(folder, monkeypatch, capsys):
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


def test_a_killed_collection_can_be_repeated(folder):
    kept, before = needed_by(folder, 1), artifacts(folder)
    line = [sys.executable, "-c", SLOWLY, "gc", "--keep", "1", "--runs", str(folder)]
    killed = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])
    assert "removed one\n" in iter(killed.stdout.readline, "")
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    halfway = artifacts(folder)
    states = {one.state for one in halfway}
    assert "marked for deletion" in states and "deleted" not in states
    # Nothing that lost its files can be found in the cache.
    assert all(Path(one.uri).is_dir() for one in halfway if one.state == "live")

    done = subprocess.run([sys.executable, "-m", "vitpipe", *line[3:]], cwd=Path(__file__).parents[3])
    assert done.returncode == 0
    after = {one.id: one for one in artifacts(folder)}
    assert {one.state for one in after.values()} == {"live", "deleted"}
    assert all(Path(one.uri).is_dir() is (one.state == "live") for one in after.values())
    assert all(after[number].state == "live" for number in kept) and len(after) == len(before)


# The command, with a pause after the first folder, so that it can be killed there.
SLOWLY = """
import shutil, time
from vitpipe.cli import main
from vitpipe.cli.gc import gc
remove = shutil.rmtree
def rmtree(*arguments, **options):
    remove(*arguments, **options)
    print("removed one", flush=True)
    time.sleep(60)
shutil.rmtree = rmtree
main()
"""


@pytest.mark.parametrize(
    "uri",
    [
        "{root}/../../../victim/precious",
        "{root}",
        "{root}/",
        "{root}/Trainer",
        "{root}/Trainer/model",
        "{root}/Trainer/model/1/deeper",
        "{root}/./Trainer/model",
        "{root}/Trainer/../../serving",
        "{root}/Trainer/link/7",
        "{root}/linked/model/7",
        "{root}/../root/DataGate/1/dataverdict",
    ],
)
def test_only_folders_of_executions_are_removed(uri, folder, monkeypatch, capsys, tmp_path):
    root = folder / "sample" / "root"
    precious = tmp_path / "victim" / "precious" / "file"
    elsewhere = tmp_path / "elsewhere" / "model" / "7"
    precious.parent.mkdir(parents=True)
    elsewhere.mkdir(parents=True)
    (folder / "sample" / "serving").mkdir()
    for file in precious, elsewhere / "file", folder / "sample" / "serving" / "file":
        file.write_text("keep me")
    (root / "Trainer" / "link").symlink_to(elsewhere.parent)
    (root / "linked").symlink_to(elsewhere.parents[1])
    (root / "Trainer" / "model" / "1" / "deeper").mkdir(parents=True)
    kept = needed_by(folder, 1)
    before = artifacts(folder)
    forged = next(one for one in before if one.type == "Model" and one.id not in kept)
    with contextlib.closing(sqlite3.connect(folder / "sample" / "metadata.db")) as database, database:
        database.execute("UPDATE Artifact SET uri = ? WHERE id = ?", (uri.format(root=root), forged.id))
    assert vitpipe(monkeypatch, "gc", "--keep", 1, "--runs", folder) == 0
    told = capsys.readouterr()
    assert f"Model {forged.id}: " in told.err and "1 artifact(s) not removed" in told.err
    assert precious.exists() and (elsewhere / "file").exists() and (folder / "sample" / "serving" / "file").exists()
    assert (root / "Trainer" / "model" / "1" / "deeper").exists()
    after = {one.id: one for one in artifacts(folder)}
    assert after[forged.id].state == "live" and "deleted" in {one.state for one in after.values()}
    assert all(Path(after[number].uri).is_dir() for number in kept)


def test_a_link_that_appears_at_the_last_moment_is_not_followed(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    (elsewhere / "7").mkdir(parents=True)
    (root / "Trainer").mkdir(parents=True)
    (root / "Trainer" / "model").symlink_to(elsewhere)
    remove_folder(root, "Trainer", "model", "7")
    assert (elsewhere / "7").is_dir()


def test_artifacts_on_another_disk_are_removed_there(folder, monkeypatch, tmp_path, capsys):
    (folder / "sample" / "root").rename(tmp_path / "disk")
    (folder / "sample" / "root").symlink_to(tmp_path / "disk")
    assert vitpipe(monkeypatch, "gc", "--keep", 1, "--runs", folder) == 0
    after = artifacts(folder)
    gone = [one for one in after if one.state == "deleted"]
    assert len(gone) > len(after) / 2 and not any(Path(one.uri).exists() for one in gone)
    assert "warning" not in capsys.readouterr().err


def test_the_artifacts_of_a_moved_folder_are_removed_where_they_are_now(folder, monkeypatch, tmp_path):
    (tmp_path / "moved").mkdir()
    folder = folder.rename(tmp_path / "moved" / "runs")
    kept = needed_by(folder, 2)
    assert vitpipe(monkeypatch, "gc", "--keep", 2, "--runs", folder) == 0
    after = artifacts(folder)
    assert {one.state for one in after} == {"live", "deleted"}
    assert all(Path(one.uri).is_relative_to(folder) for one in after)
    assert all(Path(one.uri).is_dir() is (one.state == "live") for one in after)
    assert all(one.state == "live" for one in after if one.id in kept)


def test_nothing_is_removed_while_a_run_is_running(folder, monkeypatch, capsys):
    with filelock.FileLock(folder / "sample" / ".lock"):
        assert vitpipe(monkeypatch, "gc", "--keep", 1, "--runs", folder) == 2
    assert "a run of sample is running" in capsys.readouterr().err
    assert all(one.state == "live" for one in artifacts(folder))


@pytest.mark.parametrize("runs", ["file", "empty", "missing"])
def test_a_folder_without_run_folders_is_reported(tmp_path, runs):
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    with pytest.raises(NotFound, match="no run folder with artifacts there"):
        collect_garbage(1, runs=tmp_path / runs)
