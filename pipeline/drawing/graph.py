"""Graphs as SVG, in layers from top to bottom. Their links work without a script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pipeline.drawing.graph_layout import HEIGHT, MARGIN, WIDTH, place_boxes
from pipeline.metadata.records import COMPARED, RESOLVER, Execution, Lineage, Run

# Returns the target of the link on an artifact or execution, for its kind ("artifact" or "execution") and id.
Href = Callable[[str, int], str | None]

_LETTERS = 20  # number that fits into a box

# For the <style> of a page that embeds these pictures. The page can set the properties to use its own colours.
STYLE = """
.picture { overflow-x: auto; }
.picture svg { display: block; font: 12px system-ui, sans-serif; }
.picture rect { fill: var(--box, light-dark(#fff, #1c1f24)); stroke: var(--soft, light-dark(#666, #aaa)); stroke-width: 1.25; }
.picture text { fill: currentColor; text-anchor: middle; }
.picture .note { font-size: 11px; fill: var(--soft, light-dark(#666, #aaa)); }
.picture path { fill: none; stroke: var(--soft, light-dark(#666, #aaa)); stroke-width: 1.25; }
.picture path.dashed { stroke-dasharray: 5 4; }
.picture marker path { fill: var(--soft, light-dark(#666, #aaa)); stroke: none; }
.picture .execution rect { fill: var(--step, light-dark(#eef2f7, #272c34)); }
.picture .start rect { stroke: var(--accent, light-dark(#0b57d0, #8ab4f8)); stroke-width: 3; }
.picture .complete rect, .picture .complete .note { stroke: var(--ok, light-dark(#1b6e3c, #7ddb9c)); }
.picture .cached rect { stroke: var(--cached, light-dark(#4c5fb0, #aab6ff)); }
.picture .running rect { stroke: var(--warning, light-dark(#8a5a00, #ffc46b)); stroke-width: 2.5; }
.picture .failed rect { stroke: var(--stop, light-dark(#b3261e, #ff8a80)); stroke-width: 2.5; }
.picture .complete .note { fill: var(--ok, light-dark(#1b6e3c, #7ddb9c)); stroke: none; }
.picture .cached .note { fill: var(--cached, light-dark(#4c5fb0, #aab6ff)); }
.picture .running .note { fill: var(--warning, light-dark(#8a5a00, #ffc46b)); }
.picture .failed .note { fill: var(--stop, light-dark(#b3261e, #ff8a80)); }
.picture a:hover rect, .picture a:focus rect { stroke: var(--accent, light-dark(#0b57d0, #8ab4f8)); stroke-width: 3; }
.picture a:focus { outline: none; }
""".strip()  # noqa: E501

_COLOURS = {"new": "running", "died": "failed", "canceled": "failed"}  # states that are drawn like another state


@dataclass(frozen=True)
class Box:
    """Vertex of a graph."""

    label: str  # first line
    note: str  # second line
    title: str  # tooltip
    classes: str  # CSS classes of `STYLE`
    href: str | None = None


@dataclass(frozen=True)
class Arrow:
    """Edge of a graph, between two boxes by their positions."""

    source: int
    target: int
    title: str  # tooltip
    dashed: bool = False


def lineage_svg(lineage: Lineage, href: Href = lambda kind, id: None) -> str:
    """Return a picture of a lineage. Dashed arrows lead to steps that used an artifact only for a comparison.

    Args:
        lineage: the artifacts and the executions between them.
        href: target of the link on an artifact or execution; None for no link.
    """
    places: dict[tuple[str, int], int] = {}
    boxes: list[Box] = []
    for artifact in lineage.artifacts.values():
        places["artifact", artifact.id] = len(boxes)
        classes = "artifact start" if artifact.id == lineage.start else "artifact"
        title = f"{artifact.type} {artifact.id}, {artifact.state}, {artifact.uri}"
        boxes.append(Box(artifact.type, f"artifact {artifact.id}", title, classes, href("artifact", artifact.id)))
    for execution in lineage.executions.values():
        places["execution", execution.id] = len(boxes)
        run = lineage.runs.get(execution.id, "")
        title = f"{execution.node}, {execution.state}, execution {execution.id} in run {run}"
        boxes.append(Box(execution.node, run, title, "execution", href("execution", execution.id)))
    arrows = []
    for edge in lineage.edges:
        ends = places["artifact", edge.artifact], places["execution", edge.execution]
        arrows.append(Arrow(*(ends if edge.into else ends[::-1]), title=edge.name, dashed=edge.compared))
    return layered_svg(boxes, arrows, f"lineage of artifact {lineage.start}")


def run_svg(run: Run, states: Mapping[str, str], href: Href = lambda kind, id: None) -> str:
    """Return a picture of the nodes of a run with their states.

    Args:
        run: the run.
        states: states by node, for nodes whose state differs from the one in the store.
        href: target of the link on an execution; None for no link.
    """
    newest = {execution.node: execution for execution in run.executions}  # in order of their ids
    executions = list(newest.values())
    boxes = []
    for execution in executions:
        state = states.get(execution.node, execution.state)
        note = f"{state}, {execution.seconds:.1f} s" if state == "complete" else state
        title = f"{execution.node}, {state}, {execution.seconds:.1f} s, execution {execution.id}"
        classes = f"execution {_COLOURS.get(state, state)}"
        boxes.append(Box(execution.node, note, title, classes, href("execution", execution.id)))
    return layered_svg(boxes, _arrows_of(executions), f"graph of run {run.name}")


def layered_svg(boxes: Sequence[Box], arrows: Sequence[Arrow], label: str) -> str:
    """Return a picture of boxes in layers, with arrows that point down.

    Args:
        boxes: the boxes.
        arrows: the arrows between them.
        label: description of the picture for screen readers.
    """
    centres, routes = place_boxes(len(boxes), [(arrow.source, arrow.target) for arrow in arrows])
    right = max((x for x, _ in [*centres, *(point for route in routes for point in route)]), default=0)
    bottom = max((y for _, y in centres), default=0)
    width, height = right + WIDTH / 2 + MARGIN, bottom + HEIGHT / 2 + MARGIN
    return "\n".join(
        [
            f'<div class="picture" tabindex="0" role="region" aria-label="{escape(label)}">',
            f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">',
            '<marker id="arrow" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" orient="auto">'
            '<path d="M0 0 L8 4 L0 8 z"/></marker>',
            *(
                _path(arrow, [centres[arrow.source], *route, centres[arrow.target]])
                for arrow, route in zip(arrows, routes, strict=True)
            ),
            *(_rectangle(box, *centre) for box, centre in zip(boxes, centres, strict=True)),
            "</svg></div>",
        ]
    )


def _arrows_of(executions: Sequence[Execution]) -> list[Arrow]:
    makers = defaultdict(list)
    for place, execution in enumerate(executions):
        for artifacts in execution.outputs.values():
            for artifact in artifacts:
                makers[artifact.id].append(place)
    arrows = {}
    for place, execution in enumerate(executions):
        for channel, artifacts in execution.inputs.items():
            for artifact in artifacts:
                sources = [maker for maker in makers[artifact.id] if maker != place]
                # A cached model that serves is an output of the trainer and of a resolver. The resolver is the source
                # if the step only compares with the model.
                preferred = [
                    source for source in sources if (executions[source].type == RESOLVER) == (channel in COMPARED)
                ]
                for maker in preferred or sources:
                    arrows[maker, place, channel in COMPARED] = Arrow(maker, place, channel, channel in COMPARED)
    return list(arrows.values())


def _path(arrow: Arrow, points: Sequence[Sequence[float]]) -> str:
    """Return an arrow from the bottom of a box to the top of another, vertical where it passes between other boxes."""
    (x, y), *rest = points
    half = HEIGHT / 2
    path = f"M{x:g} {y + half:g}"
    for place, (next_x, next_y) in enumerate(rest, 1):
        middle = (y + next_y) / 2
        path += f" C{x:g} {middle:g} {next_x:g} {middle:g} {next_x:g} {next_y - half:g}"
        if place < len(rest):
            path += f" V{next_y + half:g}"
        x, y = next_x, next_y
    dashed = ' class="dashed"' if arrow.dashed else ""
    return f'<path{dashed} d="{path}" marker-end="url(#arrow)"><title>{escape(arrow.title)}</title></path>'


def _rectangle(box: Box, x: float, y: float) -> str:
    radius = HEIGHT / 2 if "execution" in box.classes else 3
    svg = (
        f'<g class="{escape(box.classes)}"><title>{escape(box.title)}</title>'
        f'<rect x="{x - WIDTH / 2:g}" y="{y - HEIGHT / 2:g}" width="{WIDTH}" height="{HEIGHT}" rx="{radius:g}"/>'
        f'<text x="{x:g}" y="{y - 3:g}">{escape(_short(box.label))}</text>'
        f'<text x="{x:g}" y="{y + 13:g}" class="note">{escape(_short(box.note))}</text></g>'
    )
    return f'<a href="{escape(box.href)}">{svg}</a>' if box.href else svg


def _short(text: str) -> str:
    return text if len(text) <= _LETTERS else text[: _LETTERS - 1] + "…"
