import pandas as pd
import pytest

from components.data.ingest.source import Record, no_progress
from components.data.ingest.sources.images import open_source
from components.errors import DataRefused


def write(path, image):
    """Write a table of paths, or a Parquet file that holds the image itself."""
    row = {"path": "1.jpg", "label": "cat"} if image is None else {"image": {"bytes": image}, "label": "cat"}
    table = pd.DataFrame([row])
    if path.suffix == ".parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False)


@pytest.mark.parametrize("name, image", [("x.csv", None), ("x.parquet", None), ("x.parquet", b"1")])
def test_source_that_is_a_link_to_a_file(tmp_path, name, image):
    for folder in ("photos", "links"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "photos" / name, image)
    (tmp_path / "photos" / "1.jpg").write_bytes(b"1")
    link = tmp_path / "links" / name
    link.symlink_to(tmp_path / "photos" / name)
    source = open_source(str(link), tmp_path, no_progress)
    id = b"1.jpg" if image is None else b"x.parquet:0"
    assert list(source.records()) == [Record(None, "cat", id, b"1")]
    assert source.description == str(link)


def test_source_that_is_a_link_to_a_file_without_its_ending(tmp_path):
    write(tmp_path / "x.parquet", b"1")
    (tmp_path / "x.parquet").rename(tmp_path / "blob")
    (tmp_path / "x.parquet").symlink_to(tmp_path / "blob")
    with pytest.raises(DataRefused, match="a link or special file"):
        open_source(str(tmp_path / "x.parquet"), tmp_path, no_progress)
