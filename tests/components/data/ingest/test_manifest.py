import json

import pytest

from components.data.ingest import manifest, prepare
from components.errors import DataRefused


@pytest.fixture(scope="module")
def span(tmp_path_factory):
    out = tmp_path_factory.mktemp("data")
    prepare("sample", out)
    return out / "span-1"


@pytest.fixture
def altered(span, tmp_path):
    def alter(**changes):
        (tmp_path / manifest.NAME).write_text(json.dumps(json.loads((span / manifest.NAME).read_text()) | changes))
        return tmp_path

    return alter


def test_reads_back(span):
    read = manifest.read(span)
    assert sum(read.counts[split]["zero"] for split in read.counts) == 178
    assert sum(read.examples(split) for split in read.counts) == 1797
    assert read.history.spans == {}
    assert read.image_shape == (32, 32, 3)
    assert len(read.source_sha256) == 64


def test_a_manifest_without_remarks_from_an_earlier_version_is_read(span, tmp_path):
    fields = json.loads((span / manifest.NAME).read_text())
    del fields["remarked"]
    (tmp_path / manifest.NAME).write_text(json.dumps(fields))
    assert manifest.read(tmp_path) == manifest.read(span)


def test_is_frozen(span):
    with pytest.raises(ValueError, match="frozen"):
        manifest.read(span).kind = "other"


def test_missing(tmp_path):
    with pytest.raises(DataRefused, match=r"manifest\.json: missing"):
        manifest.read(tmp_path)


def test_invalid_json(tmp_path):
    (tmp_path / manifest.NAME).write_text("{")
    with pytest.raises(DataRefused, match=r"manifest\.json: the file: Invalid JSON"):
        manifest.read(tmp_path)


@pytest.mark.parametrize(
    "name", ["../part-0.tfrecord", "/etc/passwd", "train/../part-0.tfrecord", "other/part-0.tfrecord"]
)
def test_shard_outside_the_span(altered, name):
    with pytest.raises(DataRefused, match=r"manifest\.json: shards"):
        manifest.read(altered(shards={name: {"examples": 1, "sha256": "0" * 64}}))


def test_unknown_key(altered):
    with pytest.raises(DataRefused, match=r"manifest\.json: surprise: Extra inputs"):
        manifest.read(altered(surprise=1))
