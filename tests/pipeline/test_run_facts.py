"""Data that a run reads before its first node starts."""

import os

import pytest

from components.data.ingest import tfrecord
from components.errors import DataRefused
from pipeline.run_facts import choose_span
from pipeline.settings import Settings
from tests.helpers.spans import encoded, picture, write_span


@pytest.mark.parametrize("name", ["schema.pbtxt", "span-1/manifest.json", "span-2/manifest.json"])
@pytest.mark.parametrize("target", [None, "/dev/zero"])
def test_a_link_or_special_file_is_reported(name, target, tmp_path):
    """A pipe would block the run, and a device has no end. The gate reads span 1."""
    record = tfrecord.example(encoded(picture(0)), 0, b"0")
    for span in (1, 2):
        write_span(tmp_path, span, {split: [record] * 2 for split in ("train", "val", "test")})
    settings = Settings(name="cats", data={"dir": tmp_path}, training={"batch_size": 2})
    assert choose_span(settings) == 2
    path = tmp_path / name
    path.unlink()
    if target is None:
        os.mkfifo(path)
    else:
        path.symlink_to(target)
    with pytest.raises(DataRefused, match=f"{path}: a link or special file"):
        choose_span(settings)
