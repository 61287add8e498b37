import re

import pytest

from components.ingest import prepare
from pipeline.build import compile_graph
from pipeline.config import load


@pytest.fixture(scope="module")
def graph(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare("sample", folder)
    settings = load("sample", [f"data.dir={folder}", f"runs={folder / 'runs'}"], environment={})
    ir = compile_graph(settings, span=1, uncached=["Transform"])
    return {node.pipeline_node.node_info.id: node.pipeline_node for node in ir.nodes}


def test_the_nodes_of_the_contract_with_names_a_cluster_accepts(graph):
    assert set(graph) == {
        "ImportExampleGen", "TestExampleGen", "ImportSchemaGen", "StatisticsGen", "ExampleValidator", "Transform",
        "Trainer", "Baseline", "Evaluator", "Pusher",
    }  # fmt: skip
    assert all(re.fullmatch(r"[a-zA-Z0-9][-a-zA-Z0-9]*", name) for name in graph)


def test_every_step_that_runs_our_code_carries_its_digest(graph):
    stamped = {name for name, node in graph.items() if "digest" in node.parameters.parameters}
    assert stamped == {"ImportSchemaGen", "Transform", "Trainer", "Evaluator", "Pusher"}


def test_a_push_is_never_taken_from_the_cache_nor_what_a_person_forces(graph):
    cached = {name: node.execution_options.caching_options.enable_cache for name, node in graph.items()}
    assert {name for name, enabled in cached.items() if not enabled} == {"Pusher", "Transform"}


def test_a_changed_bound_reaches_the_evaluator_alone(graph, tmp_path):
    prepare("sample", tmp_path)
    flags = [f"data.dir={tmp_path}", f"runs={tmp_path / 'runs'}"]
    graphs = [
        {node.pipeline_node.node_info.id: node.pipeline_node.parameters for node in compile_graph(settings, 1).nodes}
        for settings in (load("sample", [*flags, *more], {}) for more in ([], ["gate.accuracy=0.5"]))
    ]
    assert [name for name in graphs[0] if graphs[0][name] != graphs[1][name]] == ["Evaluator"]
