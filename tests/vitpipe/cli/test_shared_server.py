"""Names of artifacts on a server that holds two pipelines, which both have pushed a version 1."""

import json
import sys

import pytest

from pipeline.metadata.address import ADDRESS, PASSWORD, Address
from tests.helpers import mariadb as helper
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
