"""A lineage as a text tree, and in formats of other tools: Mermaid, Graphviz, JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from components.data.span_properties import EARLIER_SPANS, SPAN_DIGEST, SPAN_FOLDER
from components.model import tuning_record
from components.quantities import quantity
from pipeline.console.terminal import printable
from pipeline.metadata.garbage import EXPORTED, MONITORED
from pipeline.metadata.properties import UnreadableError, read
from pipeline.metadata.records import Artifact, Edge, Execution, Lineage, Run

Branch = tuple[str, list["Branch"]]  # a line and the branches below it


def tree(lineage: Lineage, up: bool) -> Branch:
    """Return a lineage as a tree. A vertex that appears again is shown without its branches.

    Args:
        lineage: the lineage of an artifact.
        up: True if it shows what the artifact was made from, False if it shows what was made from it.
    """
    by_artifact: dict[int, list[Edge]] = defaultdict(list)
    by_execution: dict[int, list[Edge]] = defaultdict(list)
    for edge in lineage.edges:
        if edge.into is not up:
            by_artifact[edge.artifact].append(edge)
        else:
            by_execution[edge.execution].append(edge)
    seen: set[int] = set()

    def of_artifact(artifact_id: int, before: str = "") -> Branch:
        line = before + describe(lineage.artifacts[artifact_id])
        edges = by_artifact[artifact_id]
        if artifact_id in seen and edges:
            return f"{line}, see above", []
        seen.add(artifact_id)
        return line, [of_execution(edge) for edge in edges]

    def of_execution(edge: Edge) -> Branch:
        execution = lineage.executions[edge.execution]
        name = "" if up else f" as {edge.name}"
        run = lineage.runs.get(execution.id)  # an export belongs to no run
        line = f"{execution.node}{name}" + (f", in run {run}" if run else "")
        if edge.compared:  # the artifact did not contribute to the outputs
            return f"{line} (to compare)", []
        if not up and execution.id in done:
            return f"{line}, see above", []
        done.add(execution.id)
        below: list[Branch] = []
        for far in by_execution[execution.id]:
            if far.compared:
                below.append((f"{far.name}: {describe(lineage.artifacts[far.artifact])} (to compare)", []))
            else:
                below.append(of_artifact(far.artifact, f"{far.name}: "))
        return line, below

    done: set[int] = set()
    return of_artifact(lineage.start)


def describe(artifact: Artifact) -> str:
    """Return an artifact's type, id and most important properties."""
    properties = artifact.properties
    words = [f"{artifact.type} {artifact.id}"]
    if SPAN_FOLDER in properties:
        words.append(f"{properties[SPAN_FOLDER]}, sha256 {str(properties.get(SPAN_DIGEST, ''))[:12]}")
        if EARLIER_SPANS in properties:
            try:
                earlier = ", ".join(read(properties, EARLIER_SPANS, dict[str, str]))
            except UnreadableError:  # anyone may write to a store
                earlier = str(properties[EARLIER_SPANS])
            words.append(f"with the earlier spans {earlier}")
    if artifact.type == "Backbone":
        words.append(f"{properties.get('source')}, sha256 {str(properties.get('content_digest', ''))[:12]}")
    if artifact.type == tuning_record.ARTIFACT and tuning_record.VALUES in properties:
        words.append(f"{properties[tuning_record.VALUES]}, {quantity(properties.get(tuning_record.TRIALS), 'trial')}")
    if artifact.type == EXPORTED:
        words.append(f"version {properties.get('version')} as {properties.get('format')}")
        words.append(f"sha256 {str(properties.get('sha256', ''))[:12]}")
    if artifact.type == MONITORED:
        words.append(f"{quantity(properties.get('windows'), 'window')} of version {properties.get('versions')}")
        words.append(quantity(properties.get("alerts"), "alert"))
    if properties.get("pushed_version"):
        words.append(
            f"version {properties['pushed_version']}" + (" (not pushed again)" * (not properties.get("pushed")))
        )
    if "blessed" in properties and artifact.type.endswith("Blessing"):
        words.append("blessed" if properties["blessed"] == 1 else "not blessed")
    if artifact.state != "live":
        words.append(artifact.state)
    return ", ".join(words)


def mermaid(lineage: Lineage) -> str:
    """Return a flow chart in the Mermaid language, for Markdown."""
    lines = ["flowchart LR"]
    lines += [f'  a{one.id}("{_quoted(describe(one))}")' for one in lineage.artifacts.values()]
    lines += [f'  e{one.id}["{_quoted(one.node)}"]' for one in lineage.executions.values()]
    for edge in lineage.edges:
        arrow = "-.->" if edge.compared else "-->"
        ends = (f"a{edge.artifact}", f"e{edge.execution}")
        left, right = ends if edge.into else ends[::-1]
        lines.append(f"  {left} {arrow}|{_quoted(edge.name)}| {right}")
    return "\n".join(lines)


def dot(lineage: Lineage) -> str:
    """Return a graph in the DOT language, for Graphviz."""
    lines = ["digraph lineage {", "  rankdir=LR;"]
    lines += [f"  a{one.id} [shape=ellipse, label={json.dumps(describe(one))}];" for one in lineage.artifacts.values()]
    lines += [f"  e{one.id} [shape=box, label={json.dumps(one.node)}];" for one in lineage.executions.values()]
    for edge in lineage.edges:
        ends = (f"a{edge.artifact}", f"e{edge.execution}")
        left, right = ends if edge.into else ends[::-1]
        style = ", style=dashed" if edge.compared else ""
        lines.append(f"  {left} -> {right} [label={json.dumps(edge.name)}{style}];")
    return "\n".join([*lines, "}"])


def as_json(lineage: Lineage, runs: list[Run]) -> dict[str, Any]:
    """Return a lineage as values for `json.dumps`.

    Args:
        lineage: the lineage.
        runs: the runs of its executions, whose facts are included.
    """
    return {
        "start": lineage.start,
        "artifacts": [{**one.__dict__, "properties": dict(one.properties)} for one in lineage.artifacts.values()],
        "executions": [_execution(one, lineage) for one in lineage.executions.values()],
        "edges": [{**edge.__dict__, "compared": edge.compared} for edge in lineage.edges],
        "runs": {run.name: dict(run.facts) for run in runs},
    }


def _execution(execution: Execution, lineage: Lineage) -> dict[str, Any]:
    return {
        "id": execution.id,
        "node": execution.node,
        "type": execution.type,
        "state": execution.state,
        "started_ms": execution.started_ms,
        "updated_ms": execution.updated_ms,
        "properties": dict(execution.properties),
        "run": lineage.runs.get(execution.id),
    }


def _quoted(text: str) -> str:
    return printable(text).replace('"', "#quot;")
