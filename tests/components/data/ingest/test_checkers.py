import os
import signal
import threading
from pathlib import Path

import pytest

from components.data.ingest.checkers import check_images
from components.data.ingest.images import check
from components.data.ingest.source import Record, RejectedRecord
from components.errors import DataRefused


def children() -> list[int]:
    return [int(pid) for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()]


def test_order_and_answers(image):
    records = [Record("train", "cat", b"%d" % row, image(row, size=(row % 7 + 1, 3))) for row in range(1000)]
    records[10:10] = [RejectedRecord(b"x", "known before")]
    records[20:20] = [Record("train", "cat", b"y", b"no image")]
    results = list(check_images(records))
    assert results[10] == RejectedRecord(b"x", "known before")
    assert results[20] == RejectedRecord(b"y", "not a PNG or JPEG image", "cat")
    good = results[:10] + results[11:20] + results[21:]
    assert [record.id for record, _ in good] == [b"%d" % row for row in range(1000)]
    assert [answer for _, answer in good] == [check(record.image) for record, _ in good]
    assert [answer.shape for _, answer in good] == [(3, row % 7 + 1, 3) for row in range(1000)]


def test_reading_ahead_is_limited(image):
    read = 0

    def records():
        nonlocal read
        for row in range(100_000):
            read = row
            yield RejectedRecord(b"%d" % row, "nothing to check")

    others = children()  # of earlier tests in this process
    results = check_images(records())
    next(results)
    assert read < 256 * 3 * (os.cpu_count() or 1) + 256
    results.close()
    assert children() == others


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the children in /proc")
def test_crashed_decoder(image):
    others = children()

    def records():
        for row in range(100_000):
            if row == 300:
                for pid in {*children()} - {*others}:
                    os.kill(pid, signal.SIGSEGV)
            yield Record("train", "cat", b"%d" % row, image(1))

    with pytest.raises(DataRefused, match=r"a decoder crashed on an image between '\d+' and '\d+'"):
        list(check_images(records()))
