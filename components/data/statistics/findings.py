"""Beam steps that find equal and nearly equal images in the table of images. Imports neither TFX nor TensorFlow.

The search moves a few numbers for each image. Ids and thumbnails are read only for images that may have a twin. A
sorted index of these images, with 8 bytes for each, is made by one worker and read by all.
"""

from collections.abc import Iterable, Iterator
from heapq import nsmallest
from itertools import chain
from typing import Any, NamedTuple

import apache_beam as beam
import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from apache_beam.pvalue import AsSingleton, PCollection, TaggedOutput

from components.data import sorted_index
from components.data.ingest.source import SPLITS
from components.data.statistics import conflicts
from components.data.statistics.candidates import IMAGE, divide_by_bands, similar_pairs
from components.data.statistics.conflicts import find_conflicts
from components.data.statistics.exhibits import MAX_EXHIBITS, Exhibit
from components.data.statistics.leaks import find_twins, leaks_into
from components.data.statistics.perceptual import CORRELATION, edge_correlation, stack_thumbnails
from components.data.statistics.twins import Image, Twin

_ROWS = 2**14  # rows of the table that are read at a time
_INDEXED = 2**16  # numbers that are sorted into an index at a time
_PAIRS = 4096  # pairs whose edges are compared at a time


class Findings(NamedTuple):
    """Equal and nearly equal images. The order of the elements is not defined."""

    twins: PCollection[dict[str, Any]]  # rows of TWINS_SCHEMA
    conflicts: PCollection[dict[str, Any]]  # rows of CONFLICTS_SCHEMA
    duplicates: PCollection[tuple[str, int]]  # splits, and numbers of images that repeat an earlier one of the split
    exhibits: PCollection[Any]  # the first duplicates in train, as `exhibits.select` yields them


def search(files: PCollection[str]) -> Findings:
    """Find equal and nearly equal images.

    Args:
        files: paths of Parquet files, which make up a table of images.
    """
    files = files | beam.Reshuffle()
    hashes = files | "ReadHashes" >> beam.FlatMap(_read_hashes)
    pairs = (
        hashes
        | "DivideByBands" >> beam.FlatMap(divide_by_bands)
        | "GroupByBand" >> beam.GroupByKey()
        | "FindCandidates" >> beam.FlatMap(_find_candidates)
        | "EachPairOnce" >> beam.Distinct()
    )
    candidates = _index(pairs | "Candidates" >> beam.Keys(), "Candidates")
    pictures = (
        files
        | "ReadPictures" >> beam.FlatMap(_read_pictures, candidates)
        | "DividePictures" >> beam.Reshuffle()  # Beam's in-memory runner cannot join directly what it reads by an index
    )
    # From here on, keys are the digests of pixels, and a group consists of equal images.
    halves = (pairs, pictures) | "JoinFirst" >> beam.CoGroupByKey() | "AddThumbnail" >> beam.FlatMap(_add_thumbnail)
    near = (halves, pictures) | "JoinSecond" >> beam.CoGroupByKey() | "CompareEdges" >> beam.FlatMap(_compare_edges)

    repeated = (
        hashes
        | "DivideByDigest" >> beam.FlatMap(_divide_by_digest)
        | "GroupByDigest" >> beam.GroupByKey()
        | "FindRepeated" >> beam.FlatMap(_find_repeated).with_outputs("duplicates", "shown", main="digests")
    )
    shown = repeated.shown | beam.CombineGlobally(_first_digests) | "EachShown" >> beam.FlatMap(lambda digests: digests)
    affected = _index(
        (repeated.digests, shown, near | "NearlyEqual" >> beam.Keys()) | "AllAffected" >> beam.Flatten(), "Affected"
    )
    images = files | "ReadImages" >> beam.FlatMap(_read_images, affected) | "DivideImages" >> beam.Reshuffle()
    twins = (
        (images, near)
        | "JoinTwins" >> beam.CoGroupByKey()
        | "FindTwins" >> beam.FlatMap(_find_twins).with_outputs("leaking", main="rows")
    )
    marked = (
        (near | "ByTwin" >> beam.FlatMap(_by_twin), twins.leaking)
        | "JoinLeaking" >> beam.CoGroupByKey()
        | "MarkLeaking" >> beam.FlatMap(_mark_leaking)
    )
    contradicting = (
        (images, twins.leaking, marked)
        | "JoinConflicts" >> beam.CoGroupByKey()
        | "FindConflicts" >> beam.FlatMap(lambda group: find_conflicts(*group[1]))
    )
    exhibits = images | "GroupEqual" >> beam.GroupByKey() | "ShowDuplicates" >> beam.FlatMap(_show_duplicates)
    return Findings(twins.rows, contradicting, repeated.duplicates, exhibits)


def _read(file: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """Yield the usable images of a file."""
    for batch in pa.parquet.ParquetFile(file).iter_batches(_ROWS, columns=[*columns, "digest", "reason"]):
        yield batch.filter(pa.compute.equal(batch["reason"], ""))


def _digests(batch: pa.RecordBatch) -> np.ndarray:
    return np.frombuffer(b"".join(batch["digest"].to_pylist()), "S16")


def _read_hashes(file: str) -> Iterator[np.ndarray]:
    """Yield the images of a file as IMAGE [N]."""
    for batch in _read(file, ["split", "label", "hash"]):
        images = np.zeros(len(batch), IMAGE)
        images["code"], images["label"], images["digest"] = batch["hash"], batch["label"], _digests(batch)
        images["split"] = pa.compute.index_in(batch["split"], pa.array(SPLITS))
        yield images


def _find_candidates(part: tuple[int, Iterable[np.ndarray]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield pairs of digests, in both directions."""
    for pairs in similar_pairs(np.concatenate(list(part[1]))):
        for first, second in pairs.view("V16").tolist():  # the strings of NumPy would lose zeros at their end
            yield first, second
            yield second, first


def _index(digests: PCollection[bytes], label: str) -> AsSingleton:
    """Return a sorted index of the first 8 bytes of digests, uint64 [N], as a side input."""
    return AsSingleton(
        digests
        | f"{label} starts" >> beam.Map(lambda digest: int.from_bytes(digest[:8]))
        | f"{label} batches" >> beam.BatchElements(_INDEXED, _INDEXED)
        | f"{label} arrays" >> beam.Map(lambda starts: np.array(starts, np.uint64))
        | f"{label} index" >> beam.CombineGlobally(sorted_index.merge)
    )


def _read_indexed(file: str, columns: list[str], index: np.ndarray) -> Iterator[list[dict[str, Any]]]:
    """Yield lists of rows, of the images whose digests are in an index."""
    for batch in _read(file, columns):
        starts = _digests(batch).view(">u8")[::2].astype(np.uint64)
        yield batch.filter(pa.array(sorted_index.contains(index, starts))).to_pylist()


def _read_images(file: str, index: np.ndarray) -> Iterator[tuple[bytes, Image]]:
    for rows in _read_indexed(file, [*Image._fields], index):
        yield from ((row["digest"], _image(row)) for row in rows)


def _read_pictures(file: str, index: np.ndarray) -> Iterator[tuple[bytes, tuple[tuple[Any, ...], bytes]]]:
    """Yield digests, and the first images of each split and label with their thumbnails.

    The images are plain tuples, which Beam encodes faster than named ones.
    """
    for rows in _read_indexed(file, [*Image._fields, "thumbnail"], index):
        first: dict[tuple[bytes, str, int], tuple[tuple[Any, ...], bytes]] = {}
        for row in rows:
            key, picture = (row["digest"], row["split"], row["label"]), (tuple(_image(row)), row["thumbnail"])
            first[key] = min(picture, first.get(key, picture))
        yield from ((digest, picture) for (digest, _, _), picture in first.items())


def _image(row: dict[str, Any]) -> Image:
    return Image(*(row[name] for name in Image._fields))


def _add_thumbnail(group: tuple[bytes, tuple[Any, ...]]) -> Iterator[tuple[bytes, tuple[bytes, bytes]]]:
    """Yield the digest of each twin, with digest and thumbnail of the group."""
    digest, (twins, pictures) = group
    if twins:
        _, thumbnail = min(pictures)
        for twin in twins:
            yield twin, (digest, thumbnail)


def _compare_edges(group: tuple[bytes, tuple[Any, ...]]) -> Iterator[tuple[bytes, tuple[bytes, Twin]]]:
    """Yield the digests that nearly equal the group's, with the group's digest and its first image of each kind."""
    digest, (others, pictures) = group
    if not others:
        return
    others, (_, thumbnail) = sorted(others), min(pictures)
    kinds: dict[tuple[str, int], Image] = {}
    for image in (Image(*fields) for fields, _ in pictures):
        kind = image.split, image.label
        kinds[kind] = min(image, kinds.get(kind, image))
    for start in range(0, len(others), _PAIRS):
        part = others[start : start + _PAIRS]
        correlations = edge_correlation(stack_thumbnails(other for _, other in part), stack_thumbnails([thumbnail]))
        for (other, _), correlation in zip(part, correlations.tolist(), strict=True):
            if correlation >= CORRELATION:
                for image in kinds.values():
                    yield other, (digest, Twin(image, correlation, exact=False))


def _divide_by_digest(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Divide IMAGE [N] by the first bytes of the digests."""
    firsts = images["digest"].copy().view(np.uint8)[::16]
    for first in np.unique(firsts).tolist():
        yield first, images[firsts == first]


def _find_repeated(part: tuple[int, Iterable[np.ndarray]]) -> Iterator[Any]:
    """Yield the digests of images that have several splits or labels, and count the duplicates of each split."""
    images = np.concatenate(list(part[1]))
    digests, counts = np.unique(np.unique(images)["digest"], return_counts=True)
    yield from digests[counts > 1].view("V16").tolist()
    for number, split in enumerate(SPLITS):
        of_split = images["digest"][images["split"] == number]
        digests, counts = np.unique(of_split, return_counts=True)
        yield TaggedOutput("duplicates", (split, len(of_split) - len(digests)))
        if split == "train":
            yield TaggedOutput("shown", digests[counts > 1][:MAX_EXHIBITS].view("V16").tolist())


def _first_digests(lists: Iterable[list[bytes]]) -> list[bytes]:
    return nsmallest(MAX_EXHIBITS, chain.from_iterable(lists))


def _show_duplicates(group: tuple[bytes, Iterable[Image]]) -> Iterator[tuple[tuple[str, int], list[Exhibit]]]:
    images = (image for image in group[1] if image.split == "train")
    if repeating := nsmallest(MAX_EXHIBITS + 1, images)[1:]:
        yield ("duplicates", 0), [Exhibit.of(image) for image in repeating]


def _find_twins(group: tuple[bytes, tuple[Any, ...]]) -> Iterator[Any]:
    digest, (images, near) = group
    leaking = set()
    for row in find_twins(images, (twin for _, twin in near)):
        yield row
        if leaks_into(row["split"], row["twin_split"]):
            leaking.add(row["split"])
    for split in sorted(leaking):
        yield TaggedOutput("leaking", (digest, split))


def _by_twin(pair: tuple[bytes, tuple[bytes, Twin]]) -> Iterator[tuple[bytes, tuple[bytes, Twin]]]:
    """Yield the pair by the digest of its twin, if the images are equal enough for a conflict."""
    digest, (other, twin) = pair
    if twin.correlation >= conflicts.CORRELATION:
        yield other, (digest, twin)


def _mark_leaking(group: tuple[bytes, tuple[Any, ...]]) -> Iterator[tuple[bytes, Twin]]:
    _, (pairs, leaking) = group
    leaking = set(leaking)
    for digest, twin in pairs:
        yield digest, twin._replace(leaks=twin.image.split in leaking)
