"""Window of several spans: chooses the earlier spans, and copies their images, each from the newest span that has it.

Beam reads and writes the shards. This process holds only hashes of the images, with about 40 bytes for each image of
the window while they are sorted.
"""

import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import apache_beam as beam
import numpy as np

from components.data import sorted_index
from components.data.ingest import manifest, safe_files, span_folder, spans, tfrecord
from components.data.ingest.images import BadImage, open_image, pixel_digest, to_rgb
from components.data.span_properties import WINDOW_SHARD
from components.data.worker_code import with_same_code
from components.data.worker_files import MakePipeline, appearing
from components.errors import DataRefused

_DECODED = 256  # images that are decoded at a time


def earlier_spans(data: Path, span: int, window: int, refused: Iterable[int]) -> list[int]:
    """Return the earlier spans of a window, the newest first.

    Args:
        data: the data folder.
        span: number of the window's newest span.
        window: largest number of spans in the window.
        refused: numbers of spans that the data gate refused. They do not belong to a window.
    """
    candidates = {number for number in spans(data) if number < span} - {*refused}
    return sorted(candidates, reverse=True)[: window - 1]


def dropping_spans(data: Path, span: int, oldest: int, refused: Iterable[int]) -> list[int]:
    """Return the refused spans between the oldest and the newest of a window whose decisions dropped images.

    A window leaves out refused spans, but the images that they dropped stay dropped.

    Args:
        data: the data folder.
        span: number of the window's newest span.
        oldest: number of its oldest span.
        refused: numbers of spans that the data gate refused.
    """
    between = {number for number in spans(data) if oldest < number < span} & {*refused}
    return sorted((number for number in between if manifest.read(span_folder(data, number)).dropped), reverse=True)


class _Shard(NamedTuple):
    """A shard of a window."""

    span: int
    split: str
    path: str
    sha256: str
    exchange: str  # beginning of the names of the files that the workers exchange with this process
    copy: str

    @property
    def keys(self) -> str:
        """File with the key of each image, uint64 [N]."""
        return f"{self.exchange}.keys.npy"

    @property
    def kept(self) -> str:
        """File that says which images are copied, bool [N]."""
        return f"{self.exchange}.kept.npy"


def copy_window(
    make_pipeline: MakePipeline,
    data: Path,
    numbers: list[int],
    dropping: list[int],
    folders: dict[str, Path],
    most: int | None,
    scratch: Path,
) -> dict[int, int]:
    """Copy the images of several spans into the folders of their splits.

    Images are equal if their pixels are. If several spans contain an image, that of the newest one is copied, because
    its label may have been corrected. An image that a decision dropped from a span is not copied from earlier ones.
    Images that one span contains several times stay repeated. The ids of the copies begin with the name of their span,
    for example `span-2/`, because an id is unique only within its span. Shards without such images have equal copies in
    all windows, so that ImageStatistics measures them only once.

    Args:
        make_pipeline: function that makes a Beam pipeline.
        data: the data folder.
        numbers: numbers of the spans, the newest first.
        dropping: result of `dropping_spans`. No images of these spans are copied.
        folders: folder of the copies by split.
        most: largest number of different images of `train` that each earlier span contributes; None for all. The
            choice does not depend on the other spans, except that images of newer spans are left out.
        scratch: folder for files that the workers exchange with this process.

    Returns:
        Number of copied images by span.

    Raises:
        DataRefused: if a shard changes while it is copied.
    """
    manifests = {number: manifest.read(span_folder(data, number)) for number in (*numbers, *dropping)}
    shards = [
        _Shard(
            number,
            split,
            str(span_folder(data, number) / name),
            shard.sha256,
            str(scratch / f"{number}-{name.replace('/', '-')}"),
            # Readers of a split expect names that begin with `part-`.
            str(folders[split] / Path(name).name.replace("part-", f"{WINDOW_SHARD}{number}-", 1)),
        )
        for number in numbers
        for name, shard in sorted(manifests[number].shards.items())
        if (split := name.partition("/")[0]) in folders
    ]
    with make_pipeline() as pipeline:
        _ = (
            pipeline
            | "shards" >> beam.Create(shards)
            | beam.Reshuffle()
            | "WriteKeys" >> beam.Map(with_same_code(_write_keys))
        )
    seen = sorted_index.merge([])
    copied = {}
    for number in sorted(manifests, reverse=True):
        of_span = [shard for shard in shards if shard.span == number]
        keys = [np.load(shard.keys) for shard in of_span]
        fresh = [~sorted_index.contains(seen, each) for each in keys]
        last = _last_key(of_span, keys, fresh, None if number == numbers[0] else most)
        for shard, each, new in zip(of_span, keys, fresh, strict=True):
            np.save(shard.kept, new & (each <= last) if shard.split == "train" else new)
        if number in numbers:
            copied[number] = sum(int(np.load(shard.kept).sum()) for shard in of_span)
        if number != numbers[-1]:
            seen = sorted_index.merge([seen, *keys, np.array(manifests[number].dropped, np.uint64)])
    with make_pipeline() as pipeline:
        _ = (
            pipeline
            | "shards to copy" >> beam.Create(shards)
            | beam.Reshuffle()
            | "CopyImages" >> beam.Map(with_same_code(_copy))
        )
    return copied


def _last_key(shards: list[_Shard], keys: list[np.ndarray], fresh: list[np.ndarray], most: int | None) -> np.uint64:
    """Return the largest key of the images of train to copy: keys are hashes, so those below it are a random sample."""
    of_train = [each[new] for shard, each, new in zip(shards, keys, fresh, strict=True) if shard.split == "train"]
    sample = sorted_index.merge(of_train)
    return np.uint64(2**64 - 1 if most is None or len(sample) <= most else sample[most - 1])


def _write_keys(shard: _Shard) -> None:
    examples, keys = tfrecord.read_examples(Path(shard.path)), list[int]()
    with ThreadPoolExecutor() as threads:  # decoding releases the lock of the interpreter
        while images := [example.image for example in islice(examples, _DECODED)]:
            keys += threads.map(_key, images)
    with appearing(Path(shard.keys), Path(shard.exchange).parent) as partial, partial.open("wb") as file:
        np.save(file, np.array(keys, np.uint64))


def _key(image: bytes) -> int:
    """Return a hash of an image's pixels, or of its bytes if it does not decode, which the data gate reports."""
    try:
        content = bytes.fromhex(pixel_digest(to_rgb(open_image(image))))
    except BadImage:
        content = image
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little")


def _copy(shard: _Shard) -> None:
    kept = np.load(shard.kept)
    if not kept.any():
        return
    with appearing(Path(shard.copy), Path(shard.exchange).parent) as partial:
        with partial.open("wb") as file:
            for keep, example in zip(kept, tfrecord.read_examples(Path(shard.path)), strict=False):
                if keep:
                    id = f"span-{shard.span}/".encode() + example.id
                    file.write(tfrecord.frame(tfrecord.example(example.image, example.label, id)))
        if safe_files.file_digest(Path(shard.path)) != shard.sha256:
            raise DataRefused(f"{shard.path} changed while it was read: wait until nothing writes to it, and run again")
