from itertools import combinations
from xml.etree import ElementTree

import pytest

from pipeline.drawing.graph import lineage_svg, run_svg
from pipeline.drawing.graph_layout import HEIGHT, NARROW, WIDTH, place_boxes
from pipeline.drawing.graph_steps import STEPS
from pipeline.metadata.records import RESOLVER, Artifact, Edge, Execution, Lineage, Run

GRAPHS = {
    "empty": (0, []),
    "one": (1, []),
    "no edges": (3, []),
    "long edges": (6, [(0, 1), (1, 2), (0, 2), (2, 3), (0, 3), (4, 3)]),
    "twice the same": (2, [(0, 1), (0, 1)]),
    "a cycle": (3, [(0, 1), (1, 2), (2, 0)]),
    "two parts": (7, [(0, 1), (2, 1), (3, 4), (3, 5)]),
}


@pytest.mark.parametrize("rightwards", [False, True])
@pytest.mark.parametrize("graph", GRAPHS)
def test_boxes_overlap_nowhere_and_arrows_point_one_way(graph, rightwards):
    count, edges = GRAPHS[graph]
    centres, routes = place_boxes(count, edges, rightwards)
    assert len(centres) == count and len(routes) == len(edges)
    width = NARROW if rightwards else WIDTH
    for (x, y), (other_x, other_y) in combinations(centres, 2):
        assert abs(x - other_x) >= width or abs(y - other_y) >= HEIGHT
    for (source, target), route in zip(edges, routes, strict=True):
        along = [point[not rightwards] for point in (centres[source], *route, centres[target])]
        assert along == sorted(along) or graph == "a cycle"


def test_a_run_shows_states_and_what_was_compared():
    model = artifact(7, "Model")
    run = Run(
        1,
        "r1",
        "p",
        0,
        {},
        (
            execution(1, "Baseline", RESOLVER, "complete", {}, {"model": (model,)}),
            execution(2, "Trainer", "Trainer", "cached", {}, {"model": (model,)}),
            execution(3, "Evaluator", "Evaluator", "running", {"model": (model,), "baseline_model": (model,)}, {}),
        ),
    )
    root = ElementTree.fromstring(run_svg(run, {"Evaluator": "died"}, lambda kind, id: f"#{kind}-{id}"))
    assert [link.get("href") for link in root.iter("a")] == ["#execution-1", "#execution-2", "#execution-3"]
    assert [text.text for text in root.iter("text")][1::2] == ["complete, 1.5 s", "cached", "died"]
    arrows = {
        path.find("title").text: path.get("class") for path in root.iter("path") if path.find("title") is not None
    }
    assert arrows == {"model": None, "baseline_model": "dashed"}


def titles(root, css_class):
    drawn = [path for path in root.iter("path") if path.find("title") is not None]  # others are arrow heads
    return {path.find("title").text for path in drawn if css_class in (path.get("class") or "").split()}


def test_a_graph_shows_the_gate_that_stopped_the_run_and_the_steps_that_did_not_run():
    verdict = artifact(1, "DataVerdict")
    executions = (execution(1, "DataGate", "DataGate", "complete", {}, {"verdict": (verdict,)}),)
    refused = run_svg(Run(1, "r1", "p", 0, {}, executions), {"DataGate": "data refused"}, absent="not run")
    root = ElementTree.fromstring(refused)
    assert titles(root, "stopped") == {"Transform runs only if DataGate passes"}
    assert titles(root, "condition") == titles(root, "stopped") | {
        "Pusher runs only if Evaluator passes",
        "Pusher runs only if ServingCheck passes",
    }
    notes = dict(zip(*[iter(text.text for text in root.iter("text"))] * 2, strict=True))
    assert notes.pop("DataGate") == "data refused"
    assert set(notes) == {name for name, step in STEPS.items() if not step.optional} - {"DataGate"}
    assert set(notes.values()) == {"not run"}


def test_a_graph_of_another_pipeline_has_its_own_nodes_only():
    executions = (execution(1, "Trainer", "Trainer", "complete", {}, {}),)
    root = ElementTree.fromstring(run_svg(Run(1, "r1", "p", 0, {}, executions), {}))
    assert [text.text for text in root.iter("text")] == ["Trainer", "complete, 1.5 s"]


def test_an_arrow_is_left_out_if_a_longer_path_connects_its_ends():
    one, two = artifact(1, "A"), artifact(2, "B")
    executions = (
        execution(1, "First", "T", "complete", {}, {"one": (one,)}),
        execution(2, "Second", "T", "complete", {"one": (one,)}, {"two": (two,)}),
        execution(3, "Third", "T", "complete", {"one": (one,), "two": (two,)}, {}),
    )
    root = ElementTree.fromstring(run_svg(Run(1, "r1", "p", 0, {}, executions), {}))
    arrows = [path.find("title").text for path in root.iter("path") if path.find("title") is not None]
    assert sorted(arrows) == ["one", "two"]


def test_a_lineage_escapes_text_from_the_store():
    lineage = Lineage(
        7,
        {7: artifact(7, "<b>&")},
        {1: execution(1, '"x"', "T", "complete", {}, {})},
        (Edge(7, 1, False, "<i>"),),
        {1: "<run>"},
    )
    root = ElementTree.fromstring(lineage_svg(lineage))
    assert "<b>&" in [text.text for text in root.iter("text")]
    assert root.find(".//g[@class='artifact start']") is not None and root.find(".//a") is None


def artifact(id, type_name):
    return Artifact(id, type_name, "/somewhere", "live", "", 0, 0, {})


def execution(id, node, type_name, state, inputs, outputs):
    return Execution(id, node, type_name, state, 0, 1500, {}, inputs, outputs)
