"""Graphs as SVG, in layers. Their links work without a script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from html import escape

from pipeline.drawing.graph_layout import HEIGHT, MARGIN, NARROW, WIDTH, place_boxes
from pipeline.drawing.graph_steps import STEPS, WITHOUT_TUNING
from pipeline.metadata.records import COMPARED, RESOLVER, Execution, Lineage, Run
from pipeline.result.run_result import RunResult

# Returns the target of the link on an artifact or execution, for its kind ("artifact" or "execution") and id.
Href = Callable[[str, int], str | None]

# For the <style> of a page that embeds these pictures. The page can set the properties to use its own colours.
STYLE = """
.picture { overflow-x: auto; }
.picture svg { display: block; font: 12px system-ui, sans-serif; }
.picture rect { fill: var(--box, light-dark(#fff, #1c1f24)); stroke: var(--soft, light-dark(#666, #aaa)); stroke-width: 1.25; }
.picture text { fill: currentColor; text-anchor: middle; }
.picture .note { font-size: 11px; fill: var(--soft, light-dark(#666, #aaa)); }
.picture path { fill: none; stroke: var(--soft, light-dark(#666, #aaa)); stroke-width: 1.25; }
.picture path.dashed { stroke-dasharray: 5 4; }
.picture path.after { stroke-dasharray: 1 4; }
.picture path.condition { stroke-width: 3; }
.picture path.passed { stroke: var(--ok, light-dark(#1b6e3c, #7ddb9c)); }
.picture path.stopped { stroke: var(--stop, light-dark(#b3261e, #ff8a80)); }
.picture marker path { fill: var(--soft, light-dark(#666, #aaa)); stroke: none; }
.picture marker .passed { fill: var(--ok, light-dark(#1b6e3c, #7ddb9c)); }
.picture marker .stopped { fill: var(--stop, light-dark(#b3261e, #ff8a80)); }
.picture .absent rect { stroke-dasharray: 3 3; }
.picture .absent text { fill: var(--soft, light-dark(#666, #aaa)); }
.picture.rightwards svg { max-width: 100%; min-width: 1150px; height: auto; }
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

# States that are drawn like another state.
_COLOURS = {
    "new": "running",
    "died": "failed",
    "canceled": "failed",
    "data refused": "failed",
    "not blessed": "failed",
    "not servable": "failed",
}


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
    classes: str = ""  # CSS classes of `STYLE`


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
        title = f"{execution.node}, {execution.state}, execution {execution.id}" + (f" in run {run}" if run else "")
        boxes.append(Box(execution.node, run, title, "execution", href("execution", execution.id)))
    arrows = []
    for edge in lineage.edges:
        ends = places["artifact", edge.artifact], places["execution", edge.execution]
        arrows.append(
            Arrow(*(ends if edge.into else ends[::-1]), title=edge.name, classes="dashed" if edge.compared else "")
        )
    return layered_svg(boxes, arrows, f"lineage of artifact {lineage.start}")


def run_svg(run: Run, states: Mapping[str, str], href: Href = lambda kind, id: None, absent: str | None = None) -> str:
    """Return a picture of the nodes of a run with their states, and of the conditions between them.

    An arrow is left out if other arrows connect the same nodes by a longer way.

    Args:
        run: the run.
        states: states by node, for nodes whose state differs from the one in the store.
        href: target of the link on an execution; None for no link.
        absent: state of steps of our graph that have no execution. None draws the executed nodes alone, as is right
            for the run of another pipeline.
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
    arrows = _arrows_of(executions)
    if absent is not None:
        wanted = [name for name, step in STEPS.items() if not step.optional]
        if RunResult(run).is_tuning:
            wanted = [*(name for name in wanted if name not in WITHOUT_TUNING), "Tuner"]
        missing = [name for name in wanted if name not in newest]
        boxes += [Box(name, absent, f"{name}, {absent}", "execution absent") for name in missing]
        arrows = _with_steps(arrows, [box.label for box in boxes], newest, states)
    return layered_svg(boxes, _reduced(arrows), f"graph of run {run.name}", rightwards=True)


def layered_svg(boxes: Sequence[Box], arrows: Sequence[Arrow], label: str, rightwards: bool = False) -> str:
    """Return a picture of boxes in layers.

    Args:
        boxes: the boxes.
        arrows: the arrows between them.
        label: description of the picture for screen readers.
        rightwards: whether the arrows point right; they point down otherwise.
    """
    centres, routes = place_boxes(len(boxes), [(arrow.source, arrow.target) for arrow in arrows], rightwards)
    box_width = NARROW if rightwards else WIDTH
    points = [*centres, *(point for route in routes for point in route)]
    right = max((x for x, _ in points), default=0)
    bottom = max((y for _, y in points), default=0)
    width, height = right + box_width / 2 + MARGIN, bottom + HEIGHT / 2 + MARGIN
    classes = "picture rightwards" if rightwards else "picture"
    return "\n".join(
        [
            f'<div class="{classes}" tabindex="0" role="region" aria-label="{escape(label)}">',
            f'<svg viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}">',
            *(_marker(name) for name in ("", "passed", "stopped")),
            *(
                _path(arrow, [centres[arrow.source], *route, centres[arrow.target]], rightwards)
                for arrow, route in zip(arrows, routes, strict=True)
            ),
            *(_rectangle(box, *centre, box_width) for box, centre in zip(boxes, centres, strict=True)),
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
                    classes = "dashed" if channel in COMPARED else ""
                    arrows[maker, place, classes] = Arrow(maker, place, channel, classes)
    return list(arrows.values())


def _with_steps(
    arrows: Sequence[Arrow], names: Sequence[str], executions: Collection[str], states: Mapping[str, str]
) -> list[Arrow]:
    """Add the arrows of our graph that no execution has recorded, and the conditions.

    Args:
        arrows: arrows between executed nodes.
        names: names of all nodes, in order of their positions.
        executions: names of the executed nodes.
        states: see `run_svg`.
    """
    place = {name: number for number, name in enumerate(names)}
    drawn = {(arrow.source, arrow.target): arrow for arrow in arrows}
    for name, step in STEPS.items():
        for channel, source in {**step.inputs, "": step.after}.items():
            compared = channel in COMPARED
            # A node that ran has recorded its inputs, except those of a resolver that found nothing.
            if name in place and source in place and (name not in executions or compared or not channel):
                classes = "dashed" if compared else "" if channel else "after"
                title = channel or f"after {source}"
                drawn.setdefault((place[source], place[name]), Arrow(place[source], place[name], title, classes))
    for source in [name for name in STEPS if name in place]:
        held = [name for name, step in STEPS.items() if source in step.conditions and name in place]
        state = _COLOURS.get(states.get(source, ""), "")
        for name in held:
            ends = place[source], place[name]
            # A step that follows another step with the same condition needs no arrow from the gate.
            if not any((place[other], place[name]) in drawn for other in held):
                classes = "stopped" if state == "failed" else "passed" if name in executions else ""
                drawn[ends] = Arrow(*ends, title=f"{name} runs only if {source} passes", classes=f"condition {classes}")
    return list(drawn.values())


def _reduced(arrows: Sequence[Arrow]) -> list[Arrow]:
    """Leave out each plain arrow whose ends other arrows connect, so that a graph with many inputs stays readable."""
    kept = list(arrows)
    for arrow in arrows:
        others = [other for other in kept if other is not arrow and other.classes != "dashed"]
        if not arrow.classes and _connected(arrow.source, arrow.target, others):
            kept.remove(arrow)
    return kept


def _connected(source: int, target: int, arrows: Sequence[Arrow]) -> bool:
    reached, waiting = {source}, [source]
    while waiting:
        place = waiting.pop()
        new = {arrow.target for arrow in arrows if arrow.source == place} - reached
        reached |= new
        waiting += new
    return target in reached


def _marker(name: str) -> str:
    return (
        f'<marker id="arrow{name}" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="8" markerHeight="8" '
        f'markerUnits="userSpaceOnUse" orient="auto"><path class="{name}" d="M0 0 L8 4 L0 8 z"/></marker>'
    )


def _path(arrow: Arrow, points: Sequence[Sequence[float]], rightwards: bool) -> str:
    """Return an arrow from one side of a box to the facing side of another, straight past the boxes in between."""
    half = (NARROW if rightwards else HEIGHT) / 2
    (x, y), *rest = points
    path = f"M{x + half:g} {y:g}" if rightwards else f"M{x:g} {y + half:g}"
    for place, (next_x, next_y) in enumerate(rest, 1):
        if rightwards:
            middle = (x + next_x) / 2
            path += f" C{middle:g} {y:g} {middle:g} {next_y:g} {next_x - half:g} {next_y:g}"
        else:
            middle = (y + next_y) / 2
            path += f" C{x:g} {middle:g} {next_x:g} {middle:g} {next_x:g} {next_y - half:g}"
        if place < len(rest):
            path += f" H{next_x + half:g}" if rightwards else f" V{next_y + half:g}"
        x, y = next_x, next_y
    classes = f' class="{arrow.classes.strip()}"' if arrow.classes else ""
    marker = next((name for name in ("passed", "stopped") if name in arrow.classes), "")
    return f'<path{classes} d="{path}" marker-end="url(#arrow{marker})"><title>{escape(arrow.title)}</title></path>'


def _rectangle(box: Box, x: float, y: float, width: float) -> str:
    radius = 12 if "execution" in box.classes else 3
    drawn = (
        f'<g class="{escape(box.classes)}"><title>{escape(box.title)}</title>'
        f'<rect x="{x - width / 2:g}" y="{y - HEIGHT / 2:g}" width="{width}" height="{HEIGHT}" rx="{radius:g}"/>'
        f'<text x="{x:g}" y="{y - 3:g}">{escape(_short(box.label, width / 7.4))}</text>'
        f'<text x="{x:g}" y="{y + 13:g}" class="note">{escape(_short(box.note, width / 6.1))}</text></g>'
    )
    return f'<a href="{escape(box.href)}">{drawn}</a>' if box.href else drawn


def _short(text: str, letters: float) -> str:
    return text if len(text) <= letters else text[: int(letters) - 1] + "…"
