"""Run folders that were moved, copied or partly removed, with their stores."""

import contextlib
import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.data import ingest
from components.data.ingest import manifest
from components.errors import StoreError
from pipeline.metadata import relocation
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.metadata.writer import first_places
from tests.helpers.mariadb import PASSWORD
from tests.helpers.stores import make_store


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Create a data folder with one span."""
    folder = tmp_path_factory.mktemp("data") / "sample"
    ingest.prepare("sample", folder)
    return folder


@pytest.fixture
def work(tmp_path, data):
    """Create a working folder with data and the run folder of three runs, with artifacts on the disk."""
    folder = tmp_path / "work"
    shutil.copytree(data, folder / "data" / "sample")
    file = folder / "runs" / "sample" / "metadata.db"
    make_store(file, runs=3)
    span = folder / "data" / "sample" / "span-1"
    for one in raw_artifacts(file):
        Path(one.uri).mkdir(parents=True)
        extra = {"Examples": {"span_folder": str(span), "span_digest": manifest.read(span).digest()}}
        extra |= {"DataVerdict": {"data_folder": str(span.parent)}}
        extra |= {"PushedModel": {"pushed_destination": str(folder / "runs" / "sample" / "serving" / "1")}}
        with contextlib.closing(sqlite3.connect(file)) as database, database:
            for name, text in extra.get(one.type, {}).items():
                database.execute(
                    "REPLACE INTO ArtifactProperty (artifact_id, name, is_custom_property, string_value) "
                    "VALUES (?, ?, 1, ?)",
                    (one.id, name, text),
                )
    return folder


def raw_artifacts(file):
    """Return the recorded paths, which a reader would translate."""
    store = MetadataStore(Address(file=file).connection_config())
    return sorted(store.get_artifacts(), key=lambda one: one.id)


def settle(work):
    folder = work / "runs" / "sample"
    return relocation.record_places(Address(file=folder / "metadata.db"), folder, work / "data" / "sample")


def texts(artifacts, name):
    found = (one.custom_properties[name].string_value for one in artifacts if name in one.custom_properties)
    return {text for text in found if text}


def test_nothing_is_written_if_nothing_was_moved(work):
    file = work / "runs" / "sample" / "metadata.db"
    before = file.read_bytes()
    assert settle(work) == []
    assert file.read_bytes() == before


def test_a_missing_store_is_not_created(tmp_path):
    address = Address(file=tmp_path / "metadata.db")
    assert relocation.record_places(address, tmp_path, tmp_path / "data") == []
    assert not address.file.exists()


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_paths_that_a_run_reads_are_updated(work, how):
    old_store = raw_artifacts(work / "runs" / "sample" / "metadata.db")
    new = work.with_name("elsewhere")
    work.rename(new) if how == "moved" else shutil.copytree(work, new)
    assert settle(new) == []
    found = raw_artifacts(new / "runs" / "sample" / "metadata.db")
    assert all(Path(one.uri).is_relative_to(new) and Path(one.uri).is_dir() for one in found)
    assert texts(found, "span_folder") == {str(new / "data" / "sample" / "span-1")}
    assert texts(found, "data_folder") == {str(new / "data" / "sample")}
    assert texts(found, "pushed_destination") == {str(new / "runs" / "sample" / "serving" / "1")}
    # TFX includes the times of artifacts in its cache keys.
    times = [(one.create_time_since_epoch, one.last_update_time_since_epoch) for one in old_store]
    assert [(one.create_time_since_epoch, one.last_update_time_since_epoch) for one in found] == times
    if how == "copied":
        assert raw_artifacts(work / "runs" / "sample" / "metadata.db") == old_store


def test_the_first_paths_are_remembered_after_two_moves(work):
    first = work
    for name in "second", "third":
        work = work.rename(work.with_name(name))
        settle(work)
    store = MetadataStore(Address(file=work / "runs" / "sample" / "metadata.db").connection_config())
    places = first_places(store, "sample")
    assert places[str(work / "runs" / "sample")] == str(first / "runs" / "sample")
    assert places[str(work / "data" / "sample")] == str(first / "data" / "sample")


def test_different_data_are_not_mistaken_for_moved_data(work, tmp_path):
    new = work.rename(tmp_path / "elsewhere")
    changed = new / "data" / "sample" / "span-1" / manifest.NAME
    found = json.loads(changed.read_text())
    shard = next(iter(found["shards"].values()))
    shard["sha256"] = "0" * 64
    changed.write_text(json.dumps(found))
    settle(new)
    artifacts = raw_artifacts(new / "runs" / "sample" / "metadata.db")
    assert texts(artifacts, "span_folder") == {str(work / "data" / "sample" / "span-1")}


def test_missing_artifacts_are_reported_once_and_marked_as_deleted(work):
    folder = work / "runs" / "sample"
    shutil.rmtree(folder / "root" / "Trainer")
    [line] = settle(work)
    assert "3 artifact(s)" in line and str(folder / "root") in line and "nothing to compare with" in line
    states = {one.type: one.state for one in raw_artifacts(folder / "metadata.db")}
    assert states["Model"] == 4 and states["Examples"] == 2  # deleted, live
    assert settle(work) == []


def test_readers_find_moved_artifacts_before_the_next_run(work):
    new = work.rename(work.with_name("elsewhere"))
    with reader(Address(file=new / "runs" / "sample" / "metadata.db")) as store:
        found = store.artifacts()
        assert all(Path(one.uri).is_relative_to(new) and Path(one.uri).is_dir() for one in found)
        [pushed] = [one for one in found if one.type == "PushedModel"][:1]
        assert pushed.properties["pushed_destination"] == str(new / "runs" / "sample" / "serving" / "1")


def test_problems_lists_the_effects_of_a_move(work):
    new = work.rename(work.with_name("elsewhere"))
    folder = new / "runs" / "sample"
    address = Address(file=folder / "metadata.db")
    [line] = relocation.problems(address, folder)
    assert f"{folder} was moved or copied from {work / 'runs' / 'sample'}" in line
    settle(new)
    assert relocation.problems(address, folder) == []
    shutil.rmtree(folder / "root" / "DataGate")
    [line] = relocation.problems(address, folder)
    assert "3 artifact(s)" in line and "are gone" in line


@pytest.mark.parametrize(
    "uri",
    ["/a/root/b/c", "/a/root/b/c/../d", "/a/root/../b/c", "/a/root", "relative", "", "/a/root/b/c/7/value"],
)
def test_a_path_that_no_run_records_is_left_alone(uri):
    assert relocation.current_uri(uri, Path("/new")) == uri


def test_a_server_is_not_written_to(mariadb, tmp_path):
    """A server may know a run folder of another machine under the same name."""
    address = Address.parse(mariadb.database("moved"), PASSWORD)
    store = MetadataStore(address.connection_config())
    [kind] = [store.put_artifact_type(mlmd.ArtifactType(name="Model"))]
    uri = "/elsewhere/runs/sample/root/Trainer/model/7"
    store.put_artifacts([mlmd.Artifact(type_id=kind, uri=uri, state=mlmd.Artifact.LIVE)])
    before = store.get_artifacts()
    assert relocation.record_places(address, tmp_path, tmp_path / "data") == []
    assert store.get_artifacts() == before
    with reader(address) as known:
        assert [one.uri for one in known.artifacts()] == [uri]


def test_a_disk_that_is_not_mounted_does_not_delete_artifacts(tmp_path):
    folder = tmp_path / "runs" / "sample"
    make_store(folder / "metadata.db", runs=1)
    (folder / "root").symlink_to(tmp_path / "unmounted")
    with pytest.raises(StoreError, match="which does not exist: mount it"):
        relocation.record_places(Address(file=folder / "metadata.db"), folder, tmp_path / "data")
