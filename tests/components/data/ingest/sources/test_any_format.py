"""Property tests: a damaged source of another tool is refused with the name of the file, or read without an error."""

import io
import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.data.ingest.source import Record, no_progress
from components.data.ingest.sources import huggingface, table, webdataset
from components.errors import DataRefused
from tests.helpers.damage import damaged

LABELS = ("cat", "dog", "fox")


def parquet(columns, metadata=None):
    out = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), out)
    return out.getvalue()


def texts():
    rows = pd.DataFrame({"path": [f"{name}.jpg" for name in LABELS], "label": LABELS, "split": "train"})
    json_lines = rows.to_json(orient="records", lines=True).encode()
    return {"x.csv": rows.to_csv(index=False).encode(), "x.jsonl": json_lines, "x.parquet": parquet(dict(rows))}


def images():
    struct = [{"bytes": name.encode(), "path": None} for name in LABELS]
    features = {"label": {"_type": "ClassLabel", "names": LABELS}}
    return parquet({"image": struct, "label": [0, 1, 2]}, {"huggingface": json.dumps({"info": {"features": features}})})


@pytest.fixture(scope="module")
def folder(in_folder, tmp_path_factory):
    return in_folder(tmp_path_factory.mktemp("any"), {f"{name}.jpg": name.encode() for name in LABELS})


def check(open_source, path, data):
    path.write_bytes(data)
    try:
        source = open_source(path, "any", no_progress)
        found = [] if source is None else list(source.records())
    except DataRefused as error:
        assert path.name in str(error)
        return
    assert all(record.split in (None, "train", "val", "test") for record in found if isinstance(record, Record))


@pytest.mark.parametrize("name", texts())
@given(data=st.data())
@settings(max_examples=60)
def test_damaged_table(folder, name, data):
    check(table.open_source, folder / name, data.draw(damaged(texts()[name])))


@given(data=damaged(images()))
@settings(max_examples=60)
def test_damaged_parquet_file_of_images(folder, data):
    check(huggingface.open_source, folder / "images.parquet", data)


@given(data=st.data())
@settings(max_examples=60)
def test_damaged_webdataset(folder, in_archive, data):
    files = {}
    for number, name in enumerate(LABELS):
        files |= {f"{number}.jpg": name.encode(), f"{number}.cls": b"%d" % number}
    archive = in_archive(folder / "x.tar", files).read_bytes()
    check(webdataset.open_source, folder / "x.tar", data.draw(damaged(archive)))


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
@given(
    data=st.binary(max_size=200) | st.text(max_size=80).map(lambda text: f"path,label\n{text}".encode(errors="replace"))
)
@settings(max_examples=60)
def test_any_bytes_as_a_table(folder, ending, data):
    check(table.open_source, folder / f"any.{ending}", data)
