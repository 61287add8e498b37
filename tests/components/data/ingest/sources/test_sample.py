import io

from PIL import Image

from components.data.ingest.source import no_progress
from components.data.ingest.sources.sample import CLASS_NAMES, open_source


def test_sample(tmp_path):
    source = open_source(None, tmp_path, no_progress)
    records = list(source.records())
    assert len(records) == source.total == 1797
    assert len({record.id for record in records}) == 1797
    assert {record.class_name for record in records} == set(CLASS_NAMES)
    with Image.open(io.BytesIO(records[0].image)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (32, 32))
        assert image.getextrema()[0][1] > 200  # 16 of 16 is white
    assert records[0].class_name == "zero"
    assert open_source(None, tmp_path, no_progress).sha256 == source.sha256
