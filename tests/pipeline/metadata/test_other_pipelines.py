"""A store that a pipeline of TFX's own components wrote, which knows nothing of ours."""

import pytest
from tfx.components import CsvExampleGen, SchemaGen, StatisticsGen
from tfx.orchestration.local.local_dag_runner import LocalDagRunner
from tfx.orchestration.pipeline import Pipeline

from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.result.run_result import RunResult, RunState
from pipeline.result.summary import summarise

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def test_runs_artifacts_and_lineage_of_a_plain_tfx_pipeline(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.csv").write_text("x,y\n" + "".join(f"{row},{row % 2}\n" for row in range(100)))
    address = Address(file=tmp_path / "metadata.db")
    for _ in range(2):
        examples = CsvExampleGen(input_base=str(tmp_path / "data"))
        statistics = StatisticsGen(examples=examples.outputs["examples"])
        schema = SchemaGen(statistics=statistics.outputs["statistics"])
        nodes = [examples, statistics, schema]
        LocalDagRunner().run(
            Pipeline("some.one's", str(tmp_path / "root"), address.connection_config(), nodes, enable_cache=True)
        )

    with reader(address) as store:
        newest, first = store.runs("some.one's")
        assert [one.node for one in first.executions] == ["CsvExampleGen", "StatisticsGen", "SchemaGen"]
        assert {one.state for one in first.executions} == {"complete"}
        assert {one.state for one in newest.executions} == {"cached"}
        summary = summarise(RunResult(newest))
        assert (summary.state, summary.pipeline) == (RunState.DONE, "some.one's")
        assert (summary.trigger, summary.span, summary.accuracy, summary.blessed, summary.pushed) == (None,) * 5

        assert store.artifact_types() == {"Examples": 1, "ExampleStatistics": 1, "Schema": 1}
        made = newest.output("SchemaGen", "schema")
        assert made == first.output("SchemaGen", "schema") == store.artifacts("Schema")[0]
        up = store.lineage(made.id)
        assert [one.type for one in up.artifacts.values()] == ["Examples", "ExampleStatistics", "Schema"]
        assert set(up.executions) == {one.id for one in first.executions} and set(up.runs.values()) == {first.name}
        down = store.lineage(first.output("CsvExampleGen", "examples").id, "down")
        assert down.artifacts.keys() == up.artifacts.keys()
