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
    found = [("artifact", lineage.start)]
    seen = set(found)
    for one in found:  # the loop appends to the list
        for other in neighbours[one]:
            if other not in seen and len(found) < most:
                seen.add(other)
                found.append(other)
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
