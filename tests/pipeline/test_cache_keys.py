"""TFX's cache keys of a run folder before and after it was moved, and of a step on another engine of Beam."""

import pytest
from tfx.components.statistics_gen.executor import Executor
from tfx.dsl.components.base.executor_spec import BeamExecutorSpec, ExecutorClassSpec
from tfx.orchestration import metadata
from tfx.orchestration.portable import cache_utils
from tfx.proto.orchestration import pipeline_pb2
from tfx.types.standard_artifacts import Examples, Model

from pipeline.beam import IN_CACHE_KEYS, IN_MEMORY
from pipeline.cache_keys import lasting_keys
from pipeline.metadata.address import Address


@pytest.fixture
def key(tmp_path):
    """Return the cache key of a training in a run folder, on data in a data folder."""
    connection = Address(file=tmp_path / "metadata.db").connection_config()

    def compute(work, span=1, executor_spec=None):
        examples = Examples()
        examples.uri, examples.id = f"{work}/runs/sample/root/ImportExampleGen/examples/2", 1
        examples.set_string_custom_property("span_folder", f"{work}/data/sample/span-{span}")
        with metadata.Metadata(connection) as handle:
            return cache_utils.get_cache_context(
                metadata_handle=handle,
                pipeline_node=pipeline_pb2.PipelineNode(),
                pipeline_info=pipeline_pb2.PipelineInfo(id="sample"),
                executor_spec=executor_spec,
                input_artifacts={"examples": [examples]},
                output_artifacts={"model": [Model()]},
                parameters={"custom_config": f'{{"checkpoints": "{work}/runs/sample/checkpoints"}}', "steps": 7},
            ).name

    return compute


def test_a_key_stays_the_same_after_a_move_and_differs_for_other_data(key):
    places = {"/new/runs/sample": "/old/runs/sample", "/new/data/sample": "/old/data/sample"}
    before = key("/old")
    assert key("/new") != before
    with lasting_keys(places):
        assert key("/new") == before
        assert key("/new", span=2) != before
        assert key("/newer") not in (before, key("/new"))
    assert key("/new") != before


def test_keys_are_those_of_tfx_if_nothing_was_moved(key):
    before, function = key("/old"), cache_utils.get_cache_context
    with lasting_keys({}):
        assert key("/old") == before
    assert cache_utils.get_cache_context is function


def test_a_key_does_not_depend_on_the_engine(key):
    def encoded(*argv, kind=BeamExecutorSpec):
        spec = kind(Executor)
        if argv:
            spec.add_beam_pipeline_args(argv)
        return spec.encode()

    in_memory = encoded(*IN_MEMORY)
    before = key("/old", executor_spec=encoded(*IN_CACHE_KEYS))  # as earlier versions computed it
    engine = encoded("--runner=PortableRunner", "--job_endpoint=flink:8099")
    assert key("/old", executor_spec=engine) != before
    with lasting_keys({}):
        assert key("/old", executor_spec=in_memory) == key("/old", executor_spec=engine) == before
        assert key("/old", executor_spec=encoded(kind=ExecutorClassSpec)) != before
