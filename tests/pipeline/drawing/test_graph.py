from itertools import combinations
from xml.etree import ElementTree

import pytest

from pipeline.drawing.graph import lineage_svg, run_svg
from pipeline.drawing.graph_layout import HEIGHT, WIDTH, place_boxes
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


@pytest.mark.parametrize("graph", GRAPHS)
def test_boxes_do_not_overlap_and_arrows_point_down(graph):
    count, edges = GRAPHS[graph]
    centres, routes = place_boxes(count, edges)
    assert len(centres) == count and len(routes) == len(edges)
    for (x, y), (other_x, other_y) in combinations(centres, 2):
        assert abs(x - other_x) >= WIDTH or abs(y - other_y) >= HEIGHT
    for (source, target), route in zip(edges, routes, strict=True):
        ys = [centres[source][1], *(y for _, y in route), centres[target][1]]
        assert ys == sorted(ys) or graph == "a cycle"


def test_a_run_shows_states_and_comparisons():
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
