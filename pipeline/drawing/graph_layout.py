"""Layout of a graph: boxes in layers, with few crossings, and edges that are straight where they pass between boxes.

igraph determines the order of the boxes in each layer. Its own coordinates are not used, because they reserve as much
room for the bend of an edge as for a box, which makes the graph of a run three times as wide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

# Size of a box, and the margin of the picture, in pixels. In a graph from left to right a box has the width NARROW.
WIDTH, NARROW, HEIGHT, MARGIN = 156, 122, 44, 8
_BESIDE, _EDGE = 14, 6  # gap between boxes of a layer, width of an edge between boxes; in pixels
_BELOW, _RIGHT = 40, 30  # gap between layers from top to bottom, and from left to right; in pixels
_ROUNDS = 12  # number of times that all boxes are moved towards their neighbours

Point = tuple[float, float]


def place_boxes(
    count: int, edges: Sequence[tuple[int, int]], rightwards: bool = False
) -> tuple[list[Point], list[list[Point]]]:
    """Place boxes and edges.

    Args:
        count: number of boxes.
        edges: source and target of each edge, as numbers of boxes.
        rightwards: whether edges point right; they point down otherwise.

    Returns:
        The centre of each box; and for each edge, the points at which it passes between boxes. All are in pixels.
    """
    import igraph  # takes a tenth of a second, which other commands do not need

    graph = igraph.Graph(n=count, edges=edges, directed=True)
    backward = set(graph.feedback_arc_set(method="eades"))  # empty for a graph without cycles
    layers = _layers(count, [edge[::-1] if place in backward else edge for place, edge in enumerate(edges)])
    # An edge that spans several layers becomes a chain of edges that span one layer each.
    chains: list[list[int]] = []
    links: list[tuple[int, int]] = []
    for source, target in edges:
        step = 1 if layers[target] >= layers[source] else -1
        between = range(layers[source] + step, layers[target], step)
        chain = list(range(len(layers), len(layers) + len(between)))
        layers += between
        links += zip([source, *chain], [*chain, target], strict=True)
        chains.append(chain)
    down = [link if layers[link[0]] < layers[link[1]] else link[::-1] for link in links]
    layered = igraph.Graph(n=len(layers), edges=down, directed=True)
    order = [x for x, _ in layered.layout_sugiyama(layers=layers).coords]
    side, length, gap = (HEIGHT, NARROW, _RIGHT) if rightwards else (WIDTH, HEIGHT, _BELOW)
    across = _spread(layers, order, down, [side + _BESIDE] * count + [_EDGE + _BESIDE] * (len(layers) - count))
    points = [
        (place + MARGIN, layer * (length + gap) + length / 2 + MARGIN)
        for place, layer in zip(across, layers, strict=True)
    ]
    if rightwards:
        points = [(along, place) for place, along in points]
    return points[:count], [[points[vertex] for vertex in chain] for chain in chains]


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """Return the layer of each box: the highest that its edges allow; for a source the one above its first target."""
    import igraph

    graph = igraph.Graph(n=count, edges=edges, directed=True)
    layers = [0] * count
    for vertex in graph.topological_sorting():
        layers[vertex] = max((layers[other] + 1 for other in graph.predecessors(vertex)), default=0)
    for vertex in range(count):
        if not graph.predecessors(vertex) and graph.successors(vertex):
            layers[vertex] = min(layers[other] for other in graph.successors(vertex)) - 1
    return layers


def _spread(
    layers: Sequence[int], order: Sequence[float], edges: Sequence[tuple[int, int]], widths: Sequence[float]
) -> list[float]:
    """Return positions within the layers: near the middle of their neighbours, in order, without overlaps."""
    above, below = defaultdict(list), defaultdict(list)
    for source, target in edges:
        above[target].append(source)
        below[source].append(target)
    linked = {vertex for edge in edges for vertex in edge}
    rows: list[list[int]] = [[] for _ in range(max(layers, default=-1) + 1)]
    for vertex in sorted(linked, key=lambda vertex: order[vertex]):
        rows[layers[vertex]].append(vertex)
    xs = [0.0] * len(layers)
    for _ in range(_ROUNDS):
        for row, neighbours in [(row, above) for row in rows] + [(row, below) for row in rows[::-1]]:
            near = [neighbours[vertex] or [vertex] for vertex in row]
            wanted = [sum(xs[other] for other in others) / len(others) for others in near]
            for vertex, x in zip(row, _apart(wanted, [widths[vertex] for vertex in row]), strict=True):
                xs[vertex] = x
    # Boxes without edges are placed to the right of the first layer.
    end = max((xs[vertex] + widths[vertex] / 2 for vertex in rows[0]), default=0) if rows else 0
    for vertex in range(len(layers)):
        if vertex not in linked:
            xs[vertex], end = end + widths[vertex] / 2, end + widths[vertex]
    left = min((x - width / 2 for x, width in zip(xs, widths, strict=True)), default=0)
    return [x - left for x in xs]


def _apart(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """Return the positions nearest to the wanted ones, by least squares, that keep the order and do not overlap."""
    from scipy.optimize import isotonic_regression  # takes half a second, which other commands do not need

    # After subtraction of the widths of the boxes before it, a position must not be less than the one before.
    offsets = np.concatenate([[0.0], np.cumsum((np.array(widths[:-1]) + widths[1:]) / 2)])
    places: list[float] = (isotonic_regression(np.array(wanted) - offsets).x + offsets).tolist()
    return places
