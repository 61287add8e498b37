"""ML Metadata on a server: whole runs, and error messages while the server is unavailable."""

import json
import shutil
import subprocess
import time

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd

from components.errors import StoreError
from pipeline.metadata.address import PASSWORD as VARIABLE
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.result.run_result import RunResult, RunState
from pipeline.result.summary import summarise
from tests.helpers.command import SHORT, command, vitpipe, with_settings
from tests.helpers.mariadb import PASSWORD
from tests.helpers.stores import questions

pytestmark = pytest.mark.mysql
RUN = ["run", "-c", "sample", *with_settings(SHORT)]
LOGIN = {VARIABLE: PASSWORD}


@pytest.fixture(scope="module")
def served(mariadb, sample_data, tmp_path_factory):
    """A folder with the sample, a run that records on the server, and its address."""
    folder = shutil.copytree(sample_data, tmp_path_factory.mktemp("served"), dirs_exist_ok=True)
    address = mariadb.database("run")
    line, options = command(folder, *RUN, "--set", f"metadata.address={address}", **LOGIN)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)
    seen, states = [], set()
    for text in process.stderr:
        seen.append(text)
        if " complete " in text:  # other processes can read the store while the run continues
            with reader(Address.parse(address, PASSWORD)) as store:
                [run] = store.runs()
            states.add(summarise(RunResult(run)).state)
            assert any(one.state == "complete" for one in run.executions)
    assert RunState.RUNNING in states
    output, _ = process.communicate()
    assert process.returncode == 0, output + "".join(seen)
    return folder, address, output + "".join(seen)


@pytest.mark.e2e
@pytest.mark.slow
def test_a_run_on_a_server_pushes_a_model_and_answers_as_one_in_a_file(served, short_run):
    folder, address, output = served
    assert "pushed version 1" in output
    assert not (folder / "runs" / "sample" / "metadata.db").exists()
    in_a_file = Address(short_run[0] / "runs/sample/metadata.db")
    assert questions(Address.parse(address, PASSWORD)) == questions(in_a_file)


@pytest.mark.e2e
@pytest.mark.slow
def test_no_file_or_record_of_a_run_contains_the_password(served):
    folder, address, output = served
    needles = [PASSWORD, PASSWORD.split()[0], repr(PASSWORD), json.dumps(PASSWORD)]
    texts = [output.encode()] + [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    with reader(Address.parse(address, PASSWORD)) as store:
        texts.append(repr((store.runs(), store.artifacts())).encode())
    assert len(list((folder / "runs" / "sample" / "logs").rglob("*.log"))) > 10
    for needle in needles:
        assert not any(needle.encode() in text for text in texts)
    dry = vitpipe(folder, *RUN, "--dry-run", "--set", f"metadata.address={address}", **LOGIN)
    assert dry.returncode == 0 and f"store: {address}" in dry.stdout
    assert not any(needle in dry.stdout + dry.stderr for needle in needles)


@pytest.fixture
def empty(mariadb, request):
    """The address of a store without runs."""
    text = mariadb.database(request.node.name.split("[")[0][-40:])
    MetadataStore(Address.parse(text, PASSWORD).connection_config())
    return Address.parse(text, PASSWORD)


def test_names_beyond_ascii_are_read_as_they_were_written(empty):
    store = MetadataStore(empty.connection_config())
    type_id = store.put_artifact_type(mlmd.ArtifactType(name="Model"))
    artifact = mlmd.Artifact(type_id=type_id, uri="/models/1")
    artifact.custom_properties["classes"].string_value = "žába, 蛙, 🐸" + "." * 100_000
    store.put_artifacts([artifact])
    with reader(empty) as found:
        [read] = found.artifacts()
    assert read.properties["classes"] == artifact.custom_properties["classes"].string_value


def test_a_wrong_password_is_refused_at_once_and_not_shown(empty):
    started = time.monotonic()
    with (
        pytest.raises(StoreError, match=f"Access denied.*{VARIABLE}") as refused,
        reader(Address.parse(str(empty), "wr0ng")),
    ):
        pass
    assert time.monotonic() - started < 1  # without a second attempt
    assert str(empty) in str(refused.value) and "wr0ng" not in str(refused.value)


def test_an_unreachable_server_is_named_after_several_attempts(mariadb, empty, sample_data, tmp_path):
    folder = shutil.copytree(sample_data, tmp_path / "folder")
    with reader(empty) as store:
        assert store.runs() == []
        mariadb.stop()
        try:
            with pytest.raises(StoreError) as gone:
                started = time.monotonic()
                with reader(empty):
                    pass
            waited = time.monotonic() - started
            done = vitpipe(folder, *RUN, "--set", f"metadata.address={empty}", **LOGIN)
        finally:
            mariadb.start()
    assert str(empty) in str(gone.value) and PASSWORD not in str(gone.value)
    assert 1 < waited < 5
    assert done.returncode == 1 and str(empty) in done.stderr and "Traceback" not in done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_a_connection_that_breaks_between_two_questions_is_a_store_error(mariadb, empty):
    try:
        with pytest.raises(StoreError, match="mysql://vitpipe@"), reader(empty) as store:
            mariadb.stop()
            store.runs()
    finally:
        mariadb.start()


def test_an_empty_database_is_not_a_store(mariadb):
    address = Address.parse(mariadb.database("bare"), PASSWORD)
    with pytest.raises(StoreError, match="is not a store of ML Metadata: it has no table MLMDEnv"), reader(address):
        pass
