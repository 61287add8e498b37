"""Checks of images in child processes on every core, because decoding is most of the work of preparing a data set.

The child processes read images from their standard input and write the results to their standard output. They end when
the parent process ends, even if it is killed. An image that crashes a decoder ends a child process, not the parent.

Process pools of libraries were tried and do not meet these needs. When one of two workers crashed,
`concurrent.futures` failed all five pending batches, so that no message could name the image. When the parent was
killed, one of its workers kept running. Pebble 5.2 fails only the batch of the crash and leaves no worker behind. But
like every pool that does not fork, it imports the caller's script again in each worker, so that a script without a
`__main__` guard would start over.
"""

import json
import os
import queue
import struct
import subprocess
import sys
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from components.data.ingest.images import BadImage, CheckedImage, check
from components.data.ingest.source import Record, RejectedRecord
from components.errors import DataRefused

_MAX_CHECKERS = 8  # child processes of about 35 MB each; the parent cannot read fast enough to keep more of them busy
_BATCH_IMAGES = 256
_BATCH_BYTES = 2**20  # a batch ends with the image that reaches it
_LENGTH = struct.Struct("<I")

_Answers = list[CheckedImage | str]  # for each image of a batch: the result of `check`, or the reason for rejection


def check_images(
    records: Iterable[Record | RejectedRecord], processes: int | None = None
) -> Generator[tuple[Record, CheckedImage] | RejectedRecord, None, None]:
    """Check the images of records in child processes.

    At most three batches for each process are in memory. A batch ends after 256 records, or with the image that brings
    its size to 1 MiB.

    Args:
        records: the records.
        processes: number of child processes; None for one on each core.

    Yields:
        For each record, in order: the record with the result of `components.data.ingest.images.check`, or a rejected
        record. Nothing for a dropped image that cannot be decoded.

    Raises:
        DataRefused: if a decoder crashes.
    """
    processes = processes or min(os.cpu_count() or 1, _MAX_CHECKERS)
    idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    pending: deque[tuple[list[Record | RejectedRecord], Future[_Answers]]] = deque()
    with ExitStack() as stack:
        for _ in range(processes):
            idle.put(stack.enter_context(_checker()))
        pool = stack.enter_context(ThreadPoolExecutor(processes))  # the threads only wait for the children
        for batch in _batches(records):
            pending.append((batch, pool.submit(_ask, idle, [record for record in batch if isinstance(record, Record)])))
            if len(pending) > 2 * processes:
                yield from _join(*pending.popleft())
        while pending:
            yield from _join(*pending.popleft())


def _batches(records: Iterable[Record | RejectedRecord]) -> Iterator[list[Record | RejectedRecord]]:
    batch: list[Record | RejectedRecord] = []
    size = 0
    for record in records:
        batch.append(record)
        size += len(record.image) if isinstance(record, Record) else 0
        if len(batch) == _BATCH_IMAGES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _join(
    batch: list[Record | RejectedRecord], answers: Future[_Answers]
) -> Iterator[tuple[Record, CheckedImage] | RejectedRecord]:
    remaining = iter(answers.result())
    for record in batch:
        if isinstance(record, RejectedRecord):
            yield record
        elif isinstance(answer := next(remaining), str):
            if not record.dropped:
                yield RejectedRecord(record.id, answer, record.class_name)
        else:
            yield record, answer


@contextmanager
def _checker() -> Iterator[subprocess.Popen[bytes]]:
    root = Path(__file__).parents[3]  # the folder from which `components` is imported
    command = [sys.executable, "-m", "components.data.ingest.checkers"]
    # The child has its own process group, so that Ctrl-C reaches only the parent.
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root, process_group=0)
    try:
        yield child
    finally:
        child.communicate()  # closes the input, which ends the child, and waits for its end


def _ask(idle: queue.SimpleQueue[subprocess.Popen[bytes]], records: list[Record]) -> _Answers:
    if not records:
        return []
    child = idle.get()
    assert child.stdin and child.stdout
    try:
        child.stdin.write(_LENGTH.pack(len(records)))
        for record in records:
            child.stdin.write(_LENGTH.pack(len(record.image)))
            child.stdin.write(record.image)
        child.stdin.flush()
    except BrokenPipeError:
        reply = b""
    else:
        reply = child.stdout.readline()
    idle.put(child)
    if not reply:
        between = " and ".join(repr(records[at].id.decode("utf-8", "backslashreplace")) for at in (0, -1))
        raise DataRefused(f"a decoder crashed on an image between {between}: find and remove it")
    return [answer if isinstance(answer, str) else _to_checked_image(*answer) for answer in json.loads(reply)]


def _serve(requests: BinaryIO, replies: BinaryIO) -> None:
    """Answer requests in a child process. Raises EOFError when the parent closes the pipe or dies."""

    def read(size: int) -> bytes:
        data = requests.read(size)
        if len(data) < size:
            raise EOFError
        return data

    while True:
        (count,) = _LENGTH.unpack(read(_LENGTH.size))
        answers = [_answer(read(*_LENGTH.unpack(read(_LENGTH.size)))) for _ in range(count)]
        replies.write(json.dumps(answers).encode() + b"\n")


def _to_checked_image(shape: list[int], digest: str, remarks: list[str]) -> CheckedImage:
    """Rebuild a result from JSON, which turns its tuples into lists."""
    height, width, channels = shape
    return CheckedImage((height, width, channels), digest, tuple(remarks))


def _answer(image: bytes) -> CheckedImage | str:
    try:
        return check(image)
    except BadImage as error:
        return str(error)


if __name__ == "__main__":
    with suppress(EOFError, BrokenPipeError), open(1, "wb", buffering=0) as replies:  # standard output
        _serve(sys.stdin.buffer, replies)
