"""Property tests: any TFRecord file is read up to its first damage, or refused."""

from pathlib import Path

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from components.data.ingest import tfrecord
from components.data.ingest.tfrecord import RawExample
from components.errors import DataRefused
from tests.helpers.damage import damaged, mostly

examples = st.builds(
    RawExample,
    id=st.binary(max_size=30),
    image=st.binary(max_size=200),
    label=mostly(st.integers(0, 10), st.integers(-(2**63), 2**63 - 1)),
)


@pytest.fixture(scope="module")
def shard(tmp_path_factory) -> Path:
    """Path to which each example is written."""
    return tmp_path_factory.mktemp("any") / "part.tfrecord"


def serialized(one: RawExample) -> bytes:
    return tfrecord.example(one.image, one.label, one.id)


@given(written=st.lists(examples, max_size=5))
def test_reads_what_was_written(shard, written):
    shard.write_bytes(b"".join(tfrecord.frame(serialized(one)) for one in written))
    assert [tfrecord.parse(record) for record in tfrecord.read(shard)] == written


@st.composite
def damaged_shards(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Records, and the bytes of a damaged file of these records."""
    records = draw(st.lists(examples.map(serialized) | st.binary(max_size=60), min_size=1, max_size=4))
    return records, draw(damaged(b"".join(map(tfrecord.frame, records))))


@given(of=damaged_shards())
def test_damaged_shard(shard, of):
    """Every record that is read was written, and the order is kept unless a record was repeated."""
    records, data = of
    shard.write_bytes(data)
    found = []
    try:
        for record in tfrecord.read(shard):
            found.append(record)
        event("read")
        assert b"".join(map(tfrecord.frame, found)) == data
    except DataRefused as error:
        event("refused")
        assert str(error).startswith(f"{shard}: ")
    assert set(found) <= {*records, b""}  # zeros are no empty record, but a repeated one may be


@given(data=st.binary(max_size=300))
def test_any_bytes(shard, data):
    shard.write_bytes(data)
    try:
        assert b"".join(map(tfrecord.frame, tfrecord.read(shard))) == data
    except DataRefused as error:
        assert str(error).startswith(f"{shard}: ")


@given(data=st.binary(max_size=200) | examples.map(serialized).flatmap(damaged))
def test_a_record_is_a_complete_example_or_an_error(data):
    try:
        found = tfrecord.parse(data)
        event("parsed")
        assert isinstance(found.id, bytes) and isinstance(found.image, bytes) and isinstance(found.label, int)
    except ValueError as error:
        event("refused")
        assert "feature" in str(error) or "not a tf.Example" in str(error)
