"""Spans that the shards of examples were copied from."""

from components.data.span_properties import data_digest, shard_span


def test_the_span_of_a_shard():
    assert shard_span("part-span-12-00000-of-00003.tfrecord", default=3) == 12
    assert shard_span("part-00000-of-00003.tfrecord", default=3) == 3


def test_a_digest_depends_on_all_spans_that_decide_which_images_are_copied():
    assert data_digest("a", "", "") == "a"
    digests = [data_digest("a", '{"1": "b"}', dropping) for dropping in ("", '{"2": "c"}', '{"2": "d"}')]
    assert len({*digests, "a"}) == 4
