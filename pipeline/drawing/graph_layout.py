"""Layout of a graph's boxes: in layers, with few crossings, and edges that run straight between the boxes.

igraph decides the order of the boxes in a layer. Its own coordinates are not used: they reserve as much room for the
bend of an edge as for a box, which makes the graph of a run three times as wide.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

# Pixels: the sizes of a box, of which the narrow one is for graphs from left to right; the margin around the graph.
WIDTH, NARROW, HEIGHT, MARGIN = 156, 122, 44, 8
# Pixels: between the boxes of a layer, between layers, and the room for an edge that passes a layer.
_BESIDE, _BETWEEN, _EDGE = 14, {True: 30, False: 40}, 6
_ROUNDS = 12  # of moving boxes under and over their neighbours

Point = tuple[float, float]


def place_boxes(
    count: int, edges: Sequence[tuple[int, int]], rightwards: bool = False
) -> tuple[list[Point], list[list[Point]]]:
    """Return the centre of each box, and for each edge the points between boxes that it passes, in pixels.

    Args:
        count: Number of boxes.
        edges: Source and target of each edge, by their positions.
        rightwards: Whether edges point right; else they point down.
    """
    import igraph  # a tenth of a second that other commands need not wait for

    graph = igraph.Graph(n=count, edges=edges, directed=True)
    backward = set(graph.feedback_arc_set(method="eades"))  # empty but for a cycle
    layers = _layers(count, [edge[::-1] if place in backward else edge for place, edge in enumerate(edges)])
    # An edge over several layers becomes a chain of edges over one each.
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
    drawn = igraph.Graph(n=len(layers), edges=down, directed=True)
    order = [x for x, _ in drawn.layout_sugiyama(layers=layers).coords]
    side, length = (HEIGHT, NARROW) if rightwards else (WIDTH, HEIGHT)
    across = _spread(layers, order, down, [side + _BESIDE] * count + [_EDGE + _BESIDE] * (len(layers) - count))
    points = [
        (place + MARGIN, layer * (length + _BETWEEN[rightwards]) + length / 2 + MARGIN)
        for place, layer in zip(across, layers, strict=True)
    ]
    if rightwards:
        points = [(along, place) for place, along in points]
    return points[:count], [[points[one] for one in chain] for chain in chains]


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """As high as its edges allow; what nothing points to stands just above the first that it points to."""
    import igraph

    graph = igraph.Graph(n=count, edges=edges, directed=True)
    layers = [0] * count
    for vertex in graph.topological_sorting():
        layers[vertex] = max((layers[one] + 1 for one in graph.predecessors(vertex)), default=0)
    for vertex in range(count):
        if not graph.predecessors(vertex) and graph.successors(vertex):
            layers[vertex] = min(layers[one] for one in graph.successors(vertex)) - 1
    return layers


def _spread(
    layers: Sequence[int], order: Sequence[float], edges: Sequence[tuple[int, int]], widths: Sequence[float]
) -> list[float]:
    """Across, in the given order: each as near to the middle of its neighbours as the others of its layer let it."""
    above, below = defaultdict(list), defaultdict(list)
    for source, target in edges:
        above[target].append(source)
        below[source].append(target)
    linked = {one for edge in edges for one in edge}
    rows: list[list[int]] = [[] for _ in range(max(layers, default=-1) + 1)]
    for one in sorted(linked, key=lambda one: order[one]):
        rows[layers[one]].append(one)
    xs = [0.0] * len(layers)
    for _ in range(_ROUNDS):
        for row, neighbours in [(row, above) for row in rows] + [(row, below) for row in rows[::-1]]:
            near = [neighbours[one] or [one] for one in row]
            wanted = [sum(xs[other] for other in others) / len(others) for others in near]
            for one, x in zip(row, _apart(wanted, [widths[one] for one in row]), strict=True):
                xs[one] = x
    # What has no edge stands at the right of the first layer.
    end = max((xs[one] + widths[one] / 2 for one in rows[0]), default=0) if rows else 0
    for one in range(len(layers)):
        if one not in linked:
            xs[one], end = end + widths[one] / 2, end + widths[one]
    left = min((x - width / 2 for x, width in zip(xs, widths, strict=True)), default=0)
    return [x - left for x in xs]


def _apart(wanted: Sequence[float], widths: Sequence[float]) -> list[float]:
    """The places nearest to the wanted ones (least squares) that overlap nowhere and keep the order."""
    from scipy.optimize import isotonic_regression  # half a second that other commands need not wait for

    # Without the room that the boxes before it take, a place must only not be left of the one before.
    offsets = np.concatenate([[0.0], np.cumsum((np.array(widths[:-1]) + widths[1:]) / 2)])
    places: list[float] = (isotonic_regression(np.array(wanted) - offsets).x + offsets).tolist()
    return places
