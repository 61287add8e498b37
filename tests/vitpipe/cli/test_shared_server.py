"""Names of artifacts on a server that holds two pipelines, which both have pushed a version 1."""

import json
import sys

import pytest

from components.model.serving_folder import RECORD, ModelId
from pipeline.metadata.address import ADDRESS, PASSWORD, Address
from pipeline.metadata.reader import reader
from tests.helpers import mariadb as helper
from tests.helpers.model_records import record
from tests.helpers.stores import put_push
from vitpipe.cli import main

pytestmark = pytest.mark.mysql


@pytest.fixture(scope="module")
def address(mariadb):
    address = mariadb.database("shared")
    for pipeline in "cats", "dogs":  # the newest push is that of the dogs
        put_push(Address.parse(address, helper.PASSWORD), pipeline, "1")
    return address


@pytest.fixture
def vitpipe(address, monkeypatch, capsys):
    monkeypatch.setenv(ADDRESS, address)
    monkeypatch.setenv(PASSWORD, helper.PASSWORD)

    def command(*arguments):
        monkeypatch.setattr(sys, "argv", ["vitpipe", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    return command


@pytest.mark.parametrize("pipeline", ["cats", "dogs"])
def test_the_lineage_of_a_version_is_that_of_the_named_pipeline(vitpipe, pipeline):
    code, out, _ = vitpipe("lineage", "v1", "--pipeline", pipeline, "--json")
    assert code == 0
    uris = [artifact["uri"] for artifact in json.loads(out)["artifacts"]]
    assert len(uris) == 3 and all(uri.startswith(f"/runs/{pipeline}/") for uri in uris)
    code, out, _ = vitpipe("artifacts", "show", "span-1", "--pipeline", pipeline, "--json")
    assert code == 0 and json.loads(out)["uri"].startswith(f"/runs/{pipeline}/")


@pytest.mark.parametrize("name", ["v1", "span-1"])
def test_a_name_that_two_pipelines_have_needs_the_pipeline(vitpipe, name):
    code, _, errors = vitpipe("lineage", name)
    assert code == 2 and f"{name} may belong to several pipelines" in errors and "--pipeline cats|dogs" in errors


def test_artifacts_are_listed_by_pipeline(vitpipe):
    assert len(json.loads(vitpipe("artifacts", "list", "--json")[1])) == 6
    assert len(json.loads(vitpipe("artifacts", "list", "--json", "--pipeline", "cats")[1])) == 3
    code, _, errors = vitpipe("artifacts", "list", "--pipeline", "birds")
    assert code == 2 and "--pipeline birds: no such pipeline; there are cats, dogs" in errors


def test_a_version_that_a_person_pushed_is_found_in_the_run_folder(vitpipe, address, tmp_path):
    with reader(Address.parse(address, helper.PASSWORD)) as store:
        [model] = store.artifacts("Model", pipeline="cats")
    folder = tmp_path / "cats" / "serving" / "2"
    folder.mkdir(parents=True)
    written = record(version=2, model=ModelId(uri=model.uri, created_ms=model.created_ms))
    (folder / RECORD).write_text(written.model_dump_json())
    code, out, errors = vitpipe("artifacts", "show", "v2", "--pipeline", "cats", "--runs", str(tmp_path), "--json")
    assert code == 0, errors
    assert json.loads(out)["id"] == model.id
    code, _, errors = vitpipe("artifacts", "show", "v2", "--pipeline", "dogs", "--runs", str(tmp_path))
    assert code == 2 and "no version 2 was pushed; the pushed versions are: 1" in errors
