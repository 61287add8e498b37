import hashlib
import re

import pytest
from tfx.proto.orchestration import executable_spec_pb2, pipeline_pb2

from components.data.gate.bounds import Bound
from components.data.ingest import prepare
from pipeline import provenance
from pipeline.drawing.graph_steps import STEPS, WITHOUT_TUNING
from pipeline.graph import compile_graph
from pipeline.settings import load
from tests.helpers.graphs import nodes


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare("sample", folder)
    return load("sample", [f"data.dir={folder}", f"runs={folder / 'runs'}"], environment={})


@pytest.fixture(scope="module")
def graph(settings):
    return nodes(compile_graph(settings, span=1, uncached=["Transform"]))


def test_the_nodes_of_the_contract_with_names_a_cluster_accepts(graph):
    assert set(graph) == {
        "ImportExampleGen",
        "TestExampleGen",
        "ImportSchemaGen",
        "StatisticsGen",
        "ExampleValidator",
        "ImageStatistics",
        "PreviousSpan",
        "DataGate",
        "Transform",
        "Trainer",
        "Baseline",
        "Evaluator",
        "ServingCheck",
        "Pusher",
        "RunReport",
    }
    assert all(re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]*", name) for name in graph)


def test_every_step_that_runs_our_code_carries_its_digest(settings):
    finetune = settings.finetune.model_copy(update={"source": "sample"})
    ir = compile_graph(settings.model_copy(update={"finetune": finetune}), span=1)
    deployment = pipeline_pb2.IntermediateDeploymentConfig()
    assert ir.deployment_config.Unpack(deployment)
    steps = {name: node for name, node in nodes(ir).items() if name not in ("PreviousSpan", "Baseline")}  # resolvers
    assert steps.keys() == deployment.executor_specs.keys() and "Backbone" in steps
    stamped = {}
    for name, node in steps.items():
        runs = executor_module(deployment.executor_specs[name])
        digest = node.parameters.parameters["digest"].field_value.string_value
        if runs.partition(".")[0] in ("components", "pipeline", "trainer"):
            stamped[name] = digest
            assert digest == provenance.digest(runs)
        elif name not in ("Transform", "ImportSchemaGen"):
            assert digest == ""  # TFX's code alone
    assert len(stamped) == 10 and all(stamped.values())
    parameters = {name: steps[name].parameters.parameters for name in ("Transform", "Trainer", "ImportSchemaGen")}
    assert parameters["Transform"]["digest"].field_value.string_value == provenance.digest("trainer.preprocessing")
    assert stamped["Trainer"] == provenance.digest("components.model.trainer", "trainer.run")
    schema = (settings.data.dir / "schema.pbtxt").read_bytes()
    assert parameters["ImportSchemaGen"]["digest"].field_value.string_value == hashlib.sha256(schema).hexdigest()
    # The Trainer's checkpoints are named after it, too.
    config = parameters["Trainer"]["custom_config"].field_value.string_value
    assert f'"code": "{provenance.digest("trainer.run")}"' in config


def executor_module(spec):
    """Return the module of the class in a packed executor spec, of a Beam executor or another."""
    python = executable_spec_pb2.PythonClassExecutableSpec()
    if not spec.Unpack(python):
        beam = executable_spec_pb2.BeamExecutableSpec()
        assert spec.Unpack(beam)
        python = beam.python_executor_spec
    return python.class_path.rpartition(".")[0]


def test_nothing_is_transformed_or_trained_before_the_data_gate(graph):
    after = {name for name, node in graph.items() if "DataGate" in node.upstream_nodes}
    assert after - {"RunReport"} == {"Transform", "Trainer", "Evaluator", "ServingCheck", "Pusher"}


def test_leaks_are_left_out_of_training_if_the_settings_say_so(settings):
    asked = settings.model_copy(update={"data_gate": settings.data_gate.model_copy(update={"leave_out_leaks": True})})
    inputs = nodes(compile_graph(asked, 1))["Trainer"].inputs.inputs
    assert inputs["verdict"].channels[0].producer_node_query.id == "DataGate"
    assert "verdict" not in nodes(compile_graph(settings, 1))["Trainer"].inputs.inputs


def test_a_warm_start_takes_the_serving_model(settings):
    warm = settings.model_copy(update={"training": settings.training.model_copy(update={"warm_start": True})})
    inputs = nodes(compile_graph(warm, 1))["Trainer"].inputs.inputs
    assert inputs["base_model"].channels[0].producer_node_query.id == "Baseline"
    assert "base_model" not in nodes(compile_graph(settings, 1))["Trainer"].inputs.inputs


def test_pushes_and_forced_nodes_are_never_taken_from_the_cache(graph):
    cached = {name: node.execution_options.caching_options.enable_cache for name, node in graph.items()}
    assert {name for name, enabled in cached.items() if not enabled} == {"Pusher", "RunReport", "Transform"}


def test_a_changed_bound_only_affects_the_evaluator_and_the_record_of_a_push(graph, tmp_path):
    prepare("sample", tmp_path)
    flags = [f"data.dir={tmp_path}", f"runs={tmp_path / 'runs'}"]
    graphs = [
        {node.pipeline_node.node_info.id: node.pipeline_node.parameters for node in compile_graph(settings, 1).nodes}
        for settings in (load("sample", [*flags, *more], {}) for more in ([], ["gate.accuracy=0.5"]))
    ]
    assert [name for name in graphs[0] if graphs[0][name] != graphs[1][name]] == ["Evaluator", "Pusher"]


def test_a_tuning_searches_in_place_of_a_training(settings, graph):
    tuning = nodes(compile_graph(settings, 1, tune=True))
    assert set(tuning) == {*graph} - {*WITHOUT_TUNING} | {"Tuner"}
    tuner = tuning["Tuner"]
    makers = {
        name: channel.producer_node_query.id for name, spec in tuner.inputs.inputs.items() for channel in spec.channels
    }
    drawn = STEPS["Tuner"]
    assert {name: maker for name, maker in makers.items() if not name.startswith("_")} == drawn.inputs
    assert {maker for name, maker in makers.items() if name.startswith("_")} == {*drawn.conditions}
    digest = tuner.parameters.parameters["digest"].field_value.string_value
    assert digest == provenance.digest("components.model.tuner", "trainer.tune")
    assert (
        provenance.digest("trainer.trial_worker")
        in tuner.parameters.parameters["custom_config"].field_value.string_value
    )


def test_labels_are_checked_before_the_data_gate_if_the_settings_say_so(settings, graph):
    asked = settings.model_copy(update={"label_check": settings.label_check.model_copy(update={"epochs": 4})})
    checked = nodes(compile_graph(asked, 1))
    assert set(checked) - set(graph) == {"LabelCheck"}
    makers = {
        name: spec.channels[0].producer_node_query.id for name, spec in checked["LabelCheck"].inputs.inputs.items()
    }
    assert makers == STEPS["LabelCheck"].inputs
    assert checked["DataGate"] == graph["DataGate"]  # otherwise new suspects would lead to a new training
    digest = checked["LabelCheck"].parameters.parameters["digest"].field_value.string_value
    assert digest == provenance.digest("components.data.labels.component")


@pytest.mark.parametrize("bound", [Bound(warn=0.05), Bound(stop=0.1)])
def test_the_data_gate_reads_the_suspects_if_their_share_has_a_bound(settings, bound):
    asked = settings.model_copy(
        update={
            "label_check": settings.label_check.model_copy(update={"epochs": 4}),
            "data_gate": settings.data_gate.model_copy(update={"wrong_labels": bound}),
        }
    )
    gate = nodes(compile_graph(asked, 1))["DataGate"]
    assert gate.inputs.inputs["suspects"].channels[0].producer_node_query.id == "LabelCheck"


def test_the_label_check_has_the_resources_of_a_training_on_a_cluster():
    cluster = load("cifar10", environment={}).kubeflow
    assert cluster.step_of("LabelCheck") == cluster.step_of("Trainer") != cluster.step_of("DataGate")


def test_the_label_check_is_only_repeated_if_its_own_settings_change(settings):
    def parameters(**groups):
        changed = {name: getattr(settings, name).model_copy(update=values) for name, values in groups.items()}
        changed["label_check"] = settings.label_check.model_copy(update={"epochs": 4, **groups.get("label_check", {})})
        return nodes(compile_graph(settings.model_copy(update=changed), 1))["LabelCheck"].parameters

    same = parameters()
    assert parameters(training={"epochs": 3}, model={"depth": 2}, data_gate={"leave_out_leaks": True}) == same
    assert parameters(training={"seed": 3}) != same and parameters(label_check={"folds": 5}) != same


def test_a_tuned_training_takes_the_newest_tuning(settings):
    tuned = settings.model_copy(update={"training": settings.training.model_copy(update={"tuned": True})})
    graph = nodes(compile_graph(tuned, 1))
    channel = graph["Trainer"].inputs.inputs["hyperparameters"].channels[0]
    assert (channel.producer_node_query.id, channel.artifact_query.type.name) == ("NewestTuning", "HyperParameters")
    assert "hyperparameters" not in nodes(compile_graph(settings, 1))["Trainer"].inputs.inputs


def test_the_report_comes_last_and_has_no_inputs(graph):
    assert next(reversed(graph)) == "RunReport"
    report = graph["RunReport"]
    assert set(report.upstream_nodes) == set(graph) - {"RunReport"}
    assert not report.inputs.inputs and not report.inputs.conditionals


def test_pictures_of_a_run_have_the_inputs_and_conditions_of_the_graph(graph):
    drawn = {name: step for name, step in STEPS.items() if not step.optional}
    assert set(drawn) == set(graph)
    for name, step in drawn.items():
        # The inputs of a resolver come from the store, so no node makes them.
        makers = {
            channel: maker.producer_node_query.id
            for channel, spec in graph[name].inputs.inputs.items()
            for maker in spec.channels
            if maker.producer_node_query.id
        }
        assert {channel: maker for channel, maker in makers.items() if not channel.startswith("_")} == step.inputs
        assert {maker for channel, maker in makers.items() if channel.startswith("_")} == set(step.conditions)
