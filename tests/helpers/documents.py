"""Hypothesis strategies for changed JSON documents."""

import json
from typing import Any

from hypothesis import strategies as st

from tests.helpers.damage import damaged

_MARK = "the value that is replaced"
_HOSTILE = [
    "NaN",
    "Infinity",
    "-Infinity",
    "1e999",
    "-0",
    "0.1",
    "9" * 5000,
    "-1",
    str(2**63),
    str(2**64),
    "tru",
    "",
    "[" * 100_000,
    '{"a":' * 100_000,
    "[" * 300 + "]" * 300,
    '"\\ud800"',
    '"\\u0000"',
    '"\x1b[31m"',
    '"' + "x" * 70_000 + '"',
    '"2026-13-45T99:00:00Z"',
    '"../../etc/passwd"',
    '"train/../../part-0.tfrecord"',
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)

_ALIKE: dict[type, st.SearchStrategy] = {
    str: st.text(max_size=12),
    int: st.integers(-3, 5000) | st.integers(),
    float: st.floats(0, 1) | st.floats(),
    bool: st.booleans(),
}


def _places(value: Any, place: tuple = ()) -> list[tuple]:
    """Return the path of each value of a document, as a tuple of keys and indices."""
    found = [place]
    if isinstance(value, dict):
        found += [deeper for key, child in value.items() for deeper in _places(child, (*place, key))]
    elif isinstance(value, list):
        found += [deeper for at, child in enumerate(value) for deeper in _places(child, (*place, at))]
    return found


@st.composite
def changed(draw: st.DrawFn, document: Any) -> str:
    """Draw a document with one value replaced, removed, renamed or duplicated."""
    place = draw(st.sampled_from(_places(document)))
    document = json.loads(json.dumps(document))
    parent, value = None, document
    for key in place:
        parent, value = value, value[key]
    alike = _ALIKE.get(type(value), json_values)
    fragment = draw(st.sampled_from(_HOSTILE) | st.one_of(alike, alike, json_values).map(json.dumps))
    if parent is None:
        return fragment
    last = place[-1]
    how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
    if how == "remove":
        del parent[last]
    elif how == "replace":
        parent[last] = _MARK
    elif isinstance(parent, dict):
        parent[draw(st.text(max_size=8) | st.just("duplicate"))] = _MARK
    else:
        parent.insert(last, _MARK)
    text = json.dumps(document, ensure_ascii=draw(st.booleans()))
    text = text.replace(json.dumps(_MARK), fragment)
    return text.replace('"duplicate"', json.dumps(last))


def any_document(document: Any) -> st.SearchStrategy[bytes]:
    """Draw a document with a changed value, a damaged document, or arbitrary bytes.

    Args:
        document: a valid document of dictionaries and lists.
    """
    whole = json.dumps(document)
    return st.one_of(
        changed(document).map(lambda text: text.encode("utf-8", "surrogatepass")),
        changed(document).map(lambda text: text.encode("utf-8", "surrogatepass")),
        damaged(whole.encode()),
        st.sampled_from(["utf-16", "utf-8-sig", "utf-8"]).map(whole.encode),
        st.binary(max_size=40),
    )
