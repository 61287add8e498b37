"""Spans by the names of shards."""

from components.data.span_properties import shard_span


def test_the_span_of_a_shard():
    assert shard_span("part-span-12-00000-of-00003.tfrecord", default=3) == 12
    assert shard_span("part-00000-of-00003.tfrecord", default=3) == 3
