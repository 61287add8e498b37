import json

import pytest

from pipeline.console.duration import duration
from pipeline.metadata.neighbours import nearest_part
from pipeline.metadata.records import Artifact, Edge, Execution, Lineage
from vitpipe.ui.formatting import pretty


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("text", "text"),
        (1, "1"),
        (None, ""),
        ("[not JSON", "[not JSON"),
        ("[1, 2]", "[1, 2]"),
        ('{"a": [[1, 2], [3]], "b": {"c": "é [x]"}}', None),
        ("mlmd-struct::CikKCV9fdmFsdWVfXxIcGhp7InRyYWluIjogMS4wLCAidmFsIjogMS4wfQ==", '{"train": 1.0, "val": 1.0}'),
        ("mlmd-struct::nothing", "nothing"),
    ],
)
def test_pretty(value, shown):
    if shown is None:
        assert json.loads(pretty(value)) == json.loads(value) and "[1, 2]," in pretty(value)
    else:
        assert pretty(value).strip('"').replace("\\", "") == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.04, "0.0 s"), (125, "2 min 5 s"), (7260, "2 h 1 min")])
def test_duration(seconds, shown):
    assert duration(seconds) == shown


def test_a_large_lineage_is_cut_to_the_nearest_boxes():
    chain = Lineage(
        0,
        {id: Artifact(id, "T", "", "live", "", 0, 0, {}) for id in range(100)},
        {id: Execution(id, "N", "N", "complete", 0, 0, {}, {}, {}) for id in range(99)},
        tuple(edge for id in range(99) for edge in (Edge(id, id, True, "in"), Edge(id + 1, id, False, "out"))),
        {},
    )
    part = nearest_part(chain, 11)
    assert sorted(part.artifacts) == [0, 1, 2, 3, 4, 5] and sorted(part.executions) == [0, 1, 2, 3, 4]
    assert len(part.edges) == 10
