"""TFX's cache keys of a run folder before and after it was moved."""

import pytest
from tfx.orchestration import metadata
from tfx.orchestration.portable import cache_utils
from tfx.proto.orchestration import pipeline_pb2
from tfx.types.standard_artifacts import Examples, Model

from pipeline.cache_keys import location_independent_keys
from pipeline.metadata.address import Address


@pytest.fixture
def key(tmp_path):
    """Return the cache key of a training in a run folder, on data in a data folder."""
    connection = Address(file=tmp_path / "metadata.db").connection_config()

    def compute(work, span=1):
        examples = Examples()
        examples.uri, examples.id = f"{work}/runs/sample/root/ImportExampleGen/examples/2", 1
        examples.set_string_custom_property("span_folder", f"{work}/data/sample/span-{span}")
        with metadata.Metadata(connection) as handle:
            return cache_utils.get_cache_context(
                metadata_handle=handle,
                pipeline_node=pipeline_pb2.PipelineNode(),
                pipeline_info=pipeline_pb2.PipelineInfo(id="sample"),
                input_artifacts={"examples": [examples]},
                output_artifacts={"model": [Model()]},
                parameters={"custom_config": f'{{"checkpoints": "{work}/runs/sample/checkpoints"}}', "steps": 7},
            ).name

    return compute


def test_a_key_stays_the_same_after_a_move_and_differs_for_other_data(key):
    places = {"/new/runs/sample": "/old/runs/sample", "/new/data/sample": "/old/data/sample"}
    before = key("/old")
    assert key("/new") != before
    with location_independent_keys(places):
        assert key("/new") == before
        assert key("/new", span=2) != before
        assert key("/newer") not in (before, key("/new"))
    assert key("/new") != before


def test_nothing_is_replaced_if_nothing_was_moved(key):
    before, function = key("/old"), cache_utils.get_cache_context
    with location_independent_keys({}):
        assert cache_utils.get_cache_context is function
        assert key("/old") == before
