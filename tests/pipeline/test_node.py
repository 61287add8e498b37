"""The launcher of one node, on a small graph of its own."""

import sys

import pytest
from ml_metadata import MetadataStore
from ml_metadata.proto import metadata_store_pb2 as mlmd
from tfx.dsl.compiler.compiler import Compiler
from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.components.common.resolver import Resolver
from tfx.dsl.experimental.conditionals.conditional import Cond
from tfx.orchestration.pipeline import Pipeline
from tfx.orchestration.portable import runtime_parameter_utils
from tfx.types.channel import Channel
from tfx.types.standard_artifacts import Integer, Model

from components.model.baseline import Baseline
from pipeline.metadata.address import Address
from pipeline.metadata.reader import reader
from pipeline.node import launch
from pipeline.outcome import NodeState


@component
def Measure(value: Parameter[int], out: OutputArtifact[Integer]):
    out.set_int_custom_property("value", value)
    out.value = value


@component
def Consume(model: InputArtifact[Integer]):
    pass


@component
def Break(model: InputArtifact[Integer]):
    raise ZeroDivisionError("one over nothing")


@component
def Leave(model: InputArtifact[Integer]):
    sys.exit(143)


@pytest.fixture
def address(tmp_path):
    return Address(file=tmp_path / "metadata.db")


@pytest.fixture
def store(address):
    return address.connection_config()


@pytest.fixture
def graph(tmp_path):
    def compiled(run_id):
        measure = Measure(value=3)
        with Cond(measure.outputs["out"].future()[0].custom_property("value") > 5):
            guarded = Measure(value=4).with_id("Guarded")
            with Cond(guarded.outputs["out"].future()[0].custom_property("value") > 3):
                inner = Consume(model=guarded.outputs["out"]).with_id("Inner")
        broken = Break(model=measure.outputs["out"])
        leaving = Leave(model=measure.outputs["out"])
        baseline = Resolver(
            strategy_class=Baseline, config={"serving": str(tmp_path / "serving")}, model=Channel(type=Model)
        ).with_id("Baseline")
        last = Measure(value=5).with_id("Last")
        last.add_upstream_nodes([guarded, inner])
        pipeline = Pipeline(
            "tiny",
            str(tmp_path / "root"),
            components=[measure, guarded, inner, broken, leaving, baseline, last],
            enable_cache=True,
        )
        ir = Compiler().compile(pipeline)
        runtime_parameter_utils.substitute_runtime_parameter(ir, {"pipeline-run-id": run_id})
        return ir

    return compiled


def test_a_second_launch_is_cached(graph, store, address):
    first = launch(graph("run-1"), "Measure", store)
    assert (first.state, first.error) == (NodeState.COMPLETE, "")
    second = launch(graph("run-2"), "Measure", store)
    assert second.state is NodeState.CACHED
    assert second.execution_id != first.execution_id
    with reader(address) as read:
        one, two = (read.run(name).output("Measure", "out") for name in ("run-1", "run-2"))
    assert one == two
    assert one.properties["value"] == 3


def test_launching_a_finished_node_again_is_safe(graph, store):
    first = launch(graph("run-1"), "Measure", store)
    again = launch(graph("run-1"), "Measure", store)
    assert (again.state, again.execution_id) == (NodeState.COMPLETE, first.execution_id)


def test_a_condition_that_does_not_hold_is_skipped(graph, store):
    launch(graph("run-1"), "Measure", store)
    outcome = launch(graph("run-1"), "Guarded", store)
    assert (outcome.state, outcome.execution_id) == (NodeState.SKIPPED, None)


def test_nodes_with_an_input_from_a_skipped_node_are_skipped(graph, store):
    """TFX alone would fail these nodes, because it resolves the inputs before it evaluates the conditions."""
    launch(graph("run-1"), "Measure", store)
    launch(graph("run-1"), "Guarded", store)
    assert launch(graph("run-1"), "Inner", store).state is NodeState.SKIPPED
    assert len(MetadataStore(store).get_executions()) == 1


def test_a_node_that_only_runs_after_a_skipped_node_is_not_skipped(graph, store):
    launch(graph("run-1"), "Measure", store)
    launch(graph("run-1"), "Guarded", store)
    assert launch(graph("run-1"), "Last", store).state is NodeState.COMPLETE


def test_an_exception_of_an_executor_is_a_failed_outcome(graph, store):
    launch(graph("run-1"), "Measure", store)
    outcome = launch(graph("run-1"), "Break", store)
    assert outcome.state is NodeState.FAILED
    assert outcome.error == "ZeroDivisionError: one over nothing"


def test_inputs_that_do_not_resolve_are_a_failed_outcome(graph, store):
    outcome = launch(graph("run-1"), "Break", store)  # Measure has not run
    assert outcome.state is NodeState.FAILED
    assert "did not resolve" in outcome.error


def test_the_arguments_of_the_process_are_hidden_from_tfx_and_restored(graph, store):
    arguments = sys.argv
    launch(graph("run-1"), "Measure", store)
    assert sys.argv is arguments


def test_an_unknown_node_is_named(graph, store):
    with pytest.raises(ValueError, match="no node Trainer in the graph; it has Baseline, Measure"):
        launch(graph("run-1"), "Trainer", store)


def leftover(tmp_path, execution):
    """A file that an attempt left in the folder of its output."""
    file = tmp_path / "root" / "Measure" / "out" / str(execution) / "half-written"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("")
    return file


def state(store, execution):
    [found] = MetadataStore(store).get_executions_by_id([execution])
    return mlmd.Execution.State.Name(found.last_known_state)


def killed(store, execution_id):
    """Change an execution to the state in which SIGKILL leaves it."""
    [execution] = MetadataStore(store).get_executions_by_id([execution_id])
    execution.last_known_state = mlmd.Execution.RUNNING
    MetadataStore(store).put_executions([execution])


def test_a_killed_node_runs_again_in_the_same_run(graph, store, tmp_path):
    first = launch(graph("run-1"), "Measure", store)
    killed(store, first.execution_id)
    half = leftover(tmp_path, first.execution_id)
    again = launch(graph("run-1"), "Measure", store)
    assert (again.state, state(store, again.execution_id)) == (NodeState.COMPLETE, "COMPLETE")
    assert not half.exists()


def test_a_killed_resolver_is_marked_as_failed(graph, store):
    first = launch(graph("run-1"), "Baseline", store)
    killed(store, first.execution_id)
    again = launch(graph("run-1"), "Baseline", store)
    assert [state(store, one.execution_id) for one in (first, again)] == ["FAILED", "COMPLETE"]


def test_outputs_of_a_complete_node_are_left_alone(graph, store, tmp_path):
    first = launch(graph("run-1"), "Measure", store)
    made = leftover(tmp_path, first.execution_id)
    assert launch(graph("run-1"), "Measure", store).state is NodeState.COMPLETE
    assert made.exists()


def test_a_node_that_failed_can_be_launched_again(graph, store):
    assert launch(graph("run-1"), "Break", store).state is NodeState.FAILED  # Measure has not run
    launch(graph("run-1"), "Measure", store)
    again = launch(graph("run-1"), "Break", store)
    assert again.error == "ZeroDivisionError: one over nothing"
    assert state(store, again.execution_id) == "FAILED"


def test_a_node_that_is_asked_to_end_is_marked_as_failed(graph, store):
    launch(graph("run-1"), "Measure", store)
    with pytest.raises(SystemExit):
        launch(graph("run-1"), "Leave", store)
    assert [state(store, one.id) for one in MetadataStore(store).get_executions()] == ["COMPLETE", "FAILED"]
