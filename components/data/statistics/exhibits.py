"""Images that the page of the data gate shows. Imports neither TFX nor TensorFlow."""

from collections.abc import Iterable, Iterator
from heapq import nsmallest
from itertools import chain
from typing import Any, NamedTuple

import pandas as pd
import pyarrow as pa

from components.data.ingest.images import REMARKS
from components.data.ingest.source import SPLITS
from components.data.statistics.twins import Image

MAX_EXHIBITS = 24  # images for each check and for each class

# Table with the first images of each check and of each class. `in_order` sorts it.
EXHIBITS_SCHEMA = pa.schema(
    {
        "check": pa.string(),  # check of the data gate, or `SAMPLES`
        "split": pa.string(),
        "id": pa.binary(),
        "label": pa.int64(),
        "shard": pa.string(),
        "offset": pa.int64(),
        "reason": pa.string(),  # why the image cannot be used, or empty
        "width": pa.int32(),
        "height": pa.int32(),
    }
)
SAMPLES = "samples"  # usable training images of each class
COLUMNS = [*EXHIBITS_SCHEMA.names[1:], "remarks"]  # columns of the table of images that are read


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    """Sort a table of EXHIBITS_SCHEMA as its images are shown. An engine of Beam may write its rows in any order."""
    side = table[["width", "height"]].min(axis=1).where(table.check == "image_side", 0)
    ranks = {"side": side, "order": table.split.map(SPLITS.index)}
    return table.assign(**ranks).sort_values(["side", "order", "id"]).drop(columns=[*ranks])


class Exhibit(NamedTuple):
    """Image that is shown. Exhibits sort in the order in which they are shown."""

    rank: int  # smaller ranks are shown first
    split: int  # place in SPLITS
    image: Image
    reason: str = ""
    width: int | None = None
    height: int | None = None

    @classmethod
    def of(cls, image: Image) -> "Exhibit":
        """Return an exhibit of an image whose size is not shown."""
        return cls(0, SPLITS.index(image.split), image)


def select(rows: pd.DataFrame, classes: int) -> Iterator[tuple[tuple[str, int], list[Exhibit]]]:
    """Select the first images of each check and class from rows of the table of images.

    Args:
        rows: rows with the columns COLUMNS.
        classes: number of classes.

    Yields:
        Keys, which consist of a check and a label (0 unless the check is SAMPLES), and exhibits.
    """
    rows = rows.assign(order=rows.split.map(SPLITS.index)).sort_values(["order", "id"])
    good = rows[rows.reason == ""]
    train = good[good.split == "train"]
    found = {
        "undecodable": rows[rows.reason != ""],
        "outside_labels": rows[~rows.label.between(0, classes - 1)],
        "image_side": good.assign(rank=good[["width", "height"]].min(axis=1)).sort_values("rank", kind="stable"),
        **{check: good[[check in remarks for remarks in good.remarks]] for check in REMARKS},
    }
    for check, table in found.items():
        if len(table):
            yield (check, 0), _exhibits(table.head(MAX_EXHIBITS))
    for label, table in train.groupby("label"):
        yield (SAMPLES, label), _exhibits(table.head(MAX_EXHIBITS))


def _exhibits(table: pd.DataFrame) -> list[Exhibit]:
    return [
        Exhibit(
            int(getattr(row, "rank", 0)),
            row.order,
            Image(row.split, row.id, row.label, row.shard, row.offset),
            row.reason,
            *(None if pd.isna(side) else int(side) for side in (row.width, row.height)),
        )
        for row in table.itertuples()
    ]


def first(exhibits: Iterable[list[Exhibit]]) -> list[Exhibit]:
    """Merge lists of exhibits to the first ones of all."""
    return nsmallest(MAX_EXHIBITS, chain.from_iterable(exhibits), key=lambda exhibit: exhibit[:3])


def to_rows(group: tuple[tuple[str, int], list[Exhibit]]) -> list[dict[str, Any]]:
    """Return the exhibits of one key as rows of EXHIBITS_SCHEMA."""
    (check, _), exhibits = group
    return [
        {
            "check": check,
            **exhibit.image._asdict(),
            "reason": exhibit.reason,
            "width": exhibit.width,
            "height": exhibit.height,
        }
        for exhibit in exhibits
    ]
