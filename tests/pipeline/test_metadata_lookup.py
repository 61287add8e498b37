"""Executions and input artifacts that TFX finds by our queries and by its own, which read the whole pipeline."""

import sys
from pathlib import Path

import ml_metadata
import pytest
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.orchestration import metadata
from tfx.orchestration.portable.input_resolution import channel_resolver
from tfx.orchestration.portable.mlmd import execution_lib
from tfx.proto.orchestration import pipeline_pb2

from pipeline.metadata.address import Address
from pipeline.metadata_lookup import direct_lookup
from tests.helpers.mariadb import PASSWORD

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from metadata import generate

PIPELINE, RUN, NODE = ("pipeline", "cifar10"), ("pipeline_run", "run-00011"), ("node", "cifar10.Trainer")
MISSING = ("pipeline_run", "run-99999")


@pytest.fixture(scope="module", params=["file", pytest.param("server", marks=pytest.mark.mysql)])
def connection(request, tmp_path_factory):
    """A store with 12 runs."""
    if request.param == "server":
        server = request.getfixturevalue("mariadb")
        address = Address.parse(server.database("lookup"), PASSWORD)
    else:
        address = Address(file=tmp_path_factory.mktemp("store") / "metadata.db")
    generate(address.connection_config(), 12)
    return address.connection_config()


@pytest.fixture
def handle(connection):
    with metadata.Metadata(connection) as handle:
        yield handle


def make_channel(contexts, type_name, key=""):
    channel = pipeline_pb2.InputSpec.Channel(output_key=key)
    for type_of_context, name in contexts:
        query = channel.context_queries.add()
        query.type.name, query.name.field_value.string_value = type_of_context, name
    channel.artifact_query.type.name = type_name
    return channel


def artifacts(handle, *query):
    return sorted(artifact.id for artifact in channel_resolver.resolve_single_channel(handle, make_channel(*query)))


def executions(handle, *contexts):
    known = [handle.store.get_context_by_type_and_name(*context) for context in contexts]
    executions = execution_lib.get_executions_associated_with_all_contexts(handle, known)
    return sorted((execution.id, execution.last_known_state) for execution in executions)


@pytest.mark.parametrize(
    "query, number",
    [
        (([PIPELINE], "Model"), 12),
        (([PIPELINE, NODE], "Model", "model"), 12),
        (([PIPELINE, RUN, NODE], "Model", "model"), 1),
        (([PIPELINE, RUN, NODE], "Model", "model_run"), 0),
        (([PIPELINE, RUN, ("node", "cifar10.ImportExampleGen")], "Examples", "examples"), 1),  # from the cache
        (([PIPELINE, RUN, NODE], "Examples"), 0),
        (([PIPELINE, MISSING], "Model"), 0),
        (([PIPELINE], "Unknown"), 0),
    ],
)
def test_input_artifacts_are_those_that_tfx_finds(handle, query, number):
    expected = artifacts(handle, *query)
    assert len(expected) == number
    with direct_lookup():
        assert artifacts(handle, *query) == expected
    assert artifacts(handle, *query) == expected


@pytest.mark.parametrize("state", [mlmd.Artifact.PENDING, mlmd.Artifact.DELETED])
def test_artifacts_that_are_not_there_are_not_found(handle, state):
    [newest] = handle.store.get_artifacts_by_id([artifacts(handle, [PIPELINE], "Model")[-1]])
    newest.state = state
    handle.store.put_artifacts([newest])
    try:
        expected = artifacts(handle, [PIPELINE], "Model")
        with direct_lookup():
            assert artifacts(handle, [PIPELINE], "Model") == expected
        assert newest.id not in expected
    finally:
        newest.state = mlmd.Artifact.LIVE
        handle.store.put_artifacts([newest])


def test_without_contexts_nothing_is_found(handle):
    with direct_lookup():
        assert executions(handle) == artifacts(handle, [], "Model") == []


@pytest.mark.parametrize(
    "contexts, number", [((PIPELINE, RUN, NODE), 1), ((PIPELINE, RUN), 14), ((PIPELINE, NODE), 12)]
)
def test_executions_are_those_that_tfx_finds(handle, contexts, number):
    expected = executions(handle, *contexts)
    assert len(expected) == number
    with direct_lookup():
        assert executions(handle, *contexts) == expected


def test_a_lookup_reads_only_what_it_returns(handle, monkeypatch):
    def forbidden(*_arguments, **_options):
        raise AssertionError("executions of a whole context were read")

    monkeypatch.setattr(ml_metadata.MetadataStore, "get_executions_by_context", forbidden)
    monkeypatch.setattr(ml_metadata.MetadataStore, "get_executions", forbidden)
    with direct_lookup():
        assert len(executions(handle, PIPELINE, RUN, NODE)) == 1
        assert len(artifacts(handle, [PIPELINE], "Model")) == 12
