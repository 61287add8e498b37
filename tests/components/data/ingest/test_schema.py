import pytest
from tensorflow_metadata.proto.v0 import schema_pb2

from components.data.ingest import schema
from components.errors import DataRefused
from trainer.examples import class_names

NAMES = ("caf\xe9", "dog", 'quo"te')


def test_reads_back(tmp_path):
    (tmp_path / schema.NAME).write_text(schema.text(schema.build(NAMES)))
    read = schema.read(tmp_path)
    assert class_names(read) == list(NAMES)
    assert read == schema.build(NAMES)


def test_features():
    image, label, id = schema.build(NAMES).feature
    assert (image.name, image.type, image.WhichOneof("domain_info")) == ("image", schema_pb2.BYTES, "image_domain")
    assert (label.name, label.type, id.name, id.type) == ("label", schema_pb2.INT, "id", schema_pb2.BYTES)
    assert (label.int_domain.min, label.int_domain.max, label.int_domain.is_categorical) == (0, 2, True)
    for feature in (image, label, id):
        assert feature.presence.min_fraction == 1
        assert [dim.size for dim in feature.shape.dim] == [1]


@pytest.mark.parametrize("text, problem", [(None, "missing"), ("feature {", "Expected"), ("", "no string_domain")])
def test_missing_or_invalid_schema(tmp_path, text, problem):
    if text is not None:
        (tmp_path / schema.NAME).write_text(text)
    with pytest.raises(DataRefused, match=rf"schema\.pbtxt: .*{problem}"):
        schema.read(tmp_path)
