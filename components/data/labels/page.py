"""HTML page on which a person looks through the images whose label is probably wrong, and decides about them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from components.data.labels.suspects import LabelFigures
from components.data.pictures import ExamplePicture, Exhibit, read_pictures, readable_id, shorten
from components.data.span_properties import WINDOW_SHARD

_MOST_SHOWN = 300  # suspects on the page, of which each takes a few kB


def render(span: int, figures: LabelFigures, suspects: pd.DataFrame, folders: Mapping[str, Path]) -> str:
    """Return the page as one HTML file that needs no network.

    Args:
        span: number of the span.
        figures: figures of the check.
        suspects: rows of SUSPECTS_SCHEMA.
        folders: folder of the examples of each split, from which the images are read.
    """
    rows = list(suspects.head(_MOST_SHOWN).itertuples())
    exhibits = [
        Exhibit(
            ExamplePicture(row.split, row.id, row.shard, row.offset),
            twin=None
            if pd.isna(row.twin_offset)
            else ExamplePicture(row.twin_split, row.twin_id, row.twin_shard, row.twin_offset),
        )
        for row in rows
    ]
    read_pictures(folders, exhibits)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["shorten"] = shorten
    return environment.get_template("page.html").render(
        span=span,
        figures=figures,
        entries=[(row, exhibit, _source_id(row, span)) for row, exhibit in zip(rows, exhibits, strict=True)],
        total=len(suspects),
    )


def _source_id(row: Any, span: int) -> str:
    """Return the id that the image of a row has in the source of the newest span, or "" if it is from another span.

    The source of another span need not be that of the newest: an equal id may belong to another image.
    """
    if row.span != span:
        return ""
    # In a window, ids begin with the name of their span.
    return readable_id(row.id).removeprefix(f"span-{span}/" if row.shard.startswith(WINDOW_SHARD) else "")
