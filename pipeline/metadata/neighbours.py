"""Selection of the part of a lineage that fits in a picture."""

from __future__ import annotations

from collections import defaultdict

from pipeline.metadata.records import Lineage


def nearest_part(lineage: Lineage, most: int) -> Lineage:
    """Return the part of a lineage that is nearest to its start.

    Args:
        lineage: the whole lineage.
        most: number of artifacts and executions to return.
    """
    neighbours = defaultdict(list)
    for edge in lineage.edges:
        artifact, execution = ("artifact", edge.artifact), ("execution", edge.execution)
        neighbours[artifact].append(execution)
        neighbours[execution].append(artifact)
    vertices = [("artifact", lineage.start)]
    seen = set(vertices)
    for vertex in vertices:  # the loop appends to the list
        for neighbour in neighbours[vertex]:
            if neighbour not in seen and len(vertices) < most:
                seen.add(neighbour)
                vertices.append(neighbour)
    return Lineage(
        lineage.start,
        {id: artifact for id, artifact in lineage.artifacts.items() if ("artifact", id) in seen},
        {id: execution for id, execution in lineage.executions.items() if ("execution", id) in seen},
        tuple(
            edge
            for edge in lineage.edges
            if ("artifact", edge.artifact) in seen and ("execution", edge.execution) in seen
        ),
        lineage.runs,
    )
