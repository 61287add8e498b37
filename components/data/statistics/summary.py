"""Beam steps that compute the statistics of a table of images. Imports neither TFX nor TensorFlow."""

import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, NamedTuple

import apache_beam as beam
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from apache_beam.pvalue import AsDict, AsSingleton, PCollection, TaggedOutput
from apache_beam.transforms import combiners

from components.data.ingest.source import SPLITS
from components.data.statistics.exhibits import COLUMNS, MAX_EXHIBITS, Exhibit, first, select, to_rows
from components.data.statistics.figures import ImageFigures, Totals
from components.data.statistics.findings import Findings
from components.data.statistics.leaks import list_leaks
from components.data.statistics.twins import Image

_ROWS = 2**14  # rows of the table that are read at a time
_PARTS = 256  # parts into which ids are divided
_MEASURES = ("bytes", "format", "mean", "mean_square", "brightness", "sharpness")


class Summary(NamedTuple):
    """Statistics of a table of images."""

    figures: PCollection[str]  # one `ImageFigures`, as JSON
    exhibits: PCollection[dict[str, Any]]  # rows of EXHIBITS_SCHEMA


def total(files: PCollection[str], found: Findings, names: list[str], context: dict[str, Any]) -> Summary:
    """Compute the statistics and select the exhibits of a table of images.

    Args:
        files: paths of the Parquet files of the table.
        found: the equal and nearly equal images.
        names: class names in index order.
        context: the fields of ImageFigures that do not depend on the images.
    """
    rows = files | "DivideFiles" >> beam.Reshuffle() | "ReadRows" >> beam.FlatMap(_read)
    totals = rows | "Total" >> beam.FlatMap(_totals, len(names)) | "AddTotals" >> beam.CombinePerKey(Totals.add)
    repeated = (
        rows
        | "DivideIds" >> beam.FlatMap(_divide_by_id)
        | "GroupIds" >> beam.GroupByKey()
        | "FindRepeatedIds" >> beam.FlatMap(_repeated_ids).with_outputs("exhibits", main="counts")
    )
    exhibits = (
        (rows | "Select" >> beam.FlatMap(select, len(names)), repeated.exhibits, found.exhibits)
        | "AllExhibits" >> beam.Flatten()
        | "FirstExhibits" >> beam.CombinePerKey(first)
        | "ExhibitRows" >> beam.FlatMap(to_rows)
    )
    twins = (
        found.twins
        | "Kinds" >> beam.Map(lambda row: (row["split"], row["twin_split"], row["exact"]))
        | "CountTwins" >> combiners.Count.PerElement()
    )
    figures = (
        files.pipeline
        | "Once" >> beam.Create([context])
        | "Figures"
        >> beam.Map(
            _figures,
            names,
            AsDict(totals),
            AsDict(found.duplicates | "AddDuplicates" >> beam.CombinePerKey(sum)),
            AsSingleton(repeated.counts | "AddRepeatedIds" >> beam.CombineGlobally(sum)),
            AsDict(twins),
        )
    )
    return Summary(figures, exhibits)


def _read(file: str) -> Iterator[pd.DataFrame]:
    for batch in pa.parquet.ParquetFile(file).iter_batches(_ROWS, columns=[*COLUMNS, *_MEASURES]):
        yield batch.to_pandas()


def _totals(rows: pd.DataFrame, classes: int) -> Iterator[tuple[str, Totals]]:
    for split in SPLITS:
        yield split, Totals.of(rows[rows.split == split], classes)


def _divide_by_id(rows: pd.DataFrame) -> Iterator[tuple[int, list[tuple[Any, ...]]]]:
    """Divide the fields of `Image` of all rows. Beam encodes plain tuples much faster than named ones."""
    parts = defaultdict(list)
    for row in rows[[*Image._fields]].itertuples(index=False, name=None):
        parts[zlib.crc32(row[1]) % _PARTS].append(row)
    yield from parts.items()


def _repeated_ids(part: tuple[int, Iterable[list[tuple[Any, ...]]]]) -> Iterator[Any]:
    """Count the images whose id an earlier image has.

    Test images are compared only with each other: the test set may come from another span, which may use the same ids.
    """
    seen = set()
    repeating = []
    for row in sorted(chain.from_iterable(part[1])):
        image = Image(*row)
        key = image.id, image.split == "test"
        if key in seen:
            repeating.append(image)
        seen.add(key)
    yield len(repeating)
    if repeating:
        yield TaggedOutput("exhibits", (("repeated_ids", 0), sorted(map(Exhibit.of, repeating))[:MAX_EXHIBITS]))


def _figures(
    context: dict[str, Any],
    names: list[str],
    totals: dict[str, Totals],
    duplicates: dict[str, int],
    repeated_ids: int,
    twins: dict[tuple[str, str, bool], int],
) -> str:
    usable = [split for split, totals_of_split in totals.items() if totals_of_split.usable]
    figures = ImageFigures(
        **context,
        splits={split: totals[split].figures(names, duplicates.get(split, 0)) for split in SPLITS},
        repeated_ids=repeated_ids,
        leaks=list_leaks(twins, usable),
    )
    return figures.model_dump_json(indent=1) + "\n"
