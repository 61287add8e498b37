"""Page of a span, for a person to read before trusting the data."""

import base64
import io
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jinja2
import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from components.data.gate.bounds import LEVELS
from components.data.gate.checks import DataVerdict
from components.data.ingest.images import BadImage, eight_bits, open_image
from components.data.ingest.source import SPLITS
from components.data.statistics.figures import BRIGHTNESS, SHARPNESS, SIDES, ImageFigures, SplitFigures

_MOST_PIXELS = 96  # a side of a picture on the page
MOST_SHOWN = 24  # examples of each check
_MOST_BARS = 100  # classes in the chart of labels
_MOST_CLASSES = 40  # classes with sample pictures
_MOST_CHARACTERS = 200  # of an id or of a line of text
_COLOURS = {"train": "#4c78a8", "val": "#f58518", "test": "#54a24b"}
_BEFORE = "#9d9da3"
_LINES = "rgba(128, 128, 128, 0.3)"  # to be seen on light and dark


def readable(id: bytes) -> str:
    return id.decode("utf-8", "backslashreplace")


def shorten(text: str) -> str:
    """Return the text, with its middle left out if it is too long for a page."""
    half = _MOST_CHARACTERS // 2
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


def outermost(labels: dict[str, int], most: int) -> list[str]:
    """Return the classes with the most and with the fewest images, at most `most` together, in index order."""
    if len(labels) <= most:
        return list(labels)
    by_count = sorted(labels, key=lambda name: labels[name])
    chosen = {*by_count[: most // 2], *by_count[-(most - most // 2) :]}
    return [name for name in labels if name in chosen]


def shown_classes(labels: dict[str, int]) -> list[str]:
    """Return the classes whose pictures a page shows."""
    return outermost(labels, _MOST_CLASSES)


@dataclass
class ExamplePicture:
    """An image of a span; `image`, its encoded bytes, is filled in when it is found."""

    split: str
    id: bytes
    image: bytes = b""

    @property
    def name(self) -> str:
        return readable(self.id)

    @cached_property
    def source(self) -> str:
        """A data URI, small; empty when the image does not decode."""
        try:
            image = eight_bits(open_image(self.image)).convert("RGB")
        except BadImage:
            return ""
        image.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
        kind = "PNG" if max(image.size) <= _MOST_PIXELS // 2 else "JPEG"  # small ones without loss
        out = io.BytesIO()
        image.save(out, kind)
        return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


@dataclass
class Exhibit:
    """An example that a check is about, and the one in another split that it equals."""

    picture: ExamplePicture
    note: str = ""
    twin: ExamplePicture | None = None

    @property
    def pictures(self) -> list[ExamplePicture]:
        return [self.picture, self.twin] if self.twin else [self.picture]


def render(
    verdict: DataVerdict,
    previous: ImageFigures | None,
    samples: dict[str, list[Exhibit]],
    exhibits: dict[str, list[Exhibit]],
) -> str:
    """One HTML file that needs no network. samples: of each class; exhibits: of each check."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shortened"] = shorten
    return environment.get_template("page.html").render(
        verdict=verdict,
        findings=[finding for level in LEVELS for finding in verdict.of_level(level)],
        figures=verdict.figures,
        previous=previous,
        samples=samples,
        exhibits=exhibits,
        most_shown=MOST_SHOWN,
        classes=len(verdict.figures.splits["train"].labels),
        charts=_charts(verdict.figures, previous),
        plotly=get_plotlyjs(),
    )


def _charts(figures: ImageFigures, previous: ImageFigures | None) -> list[str]:
    """Shares of each split, so that a small one can be compared with a large one; and of the span before."""
    splits = {split: figures.splits[split] for split in SPLITS if split in figures.splits}
    if previous is not None:
        splits |= {f"span {previous.span}, train": previous.splits["train"]}

    def chart(title: str, axis: str, labels: list[str], name: str, bars: Iterable[int]) -> str:
        figure = go.Figure(layout={"title": {"text": title}})
        bars = list(bars)
        for split, of in splits.items():
            counts = _counts(of, name)
            figure.add_bar(
                x=[shorten(labels[place]) for place in bars],
                y=(counts / max(counts.sum(), 1))[bars],
                name=split,
                marker_color=_COLOURS.get(split, _BEFORE),
                hovertemplate="%{x}: %{y:.1%}",
            )
        figure.update_layout(
            height=320,
            margin={"l": 50, "r": 10, "t": 40, "b": 40},
            xaxis_title=axis,
            xaxis_type="category",
            yaxis_tickformat=".0%",
            template="plotly_white",
            paper_bgcolor="rgba(0,0,0,0)",
            plot_bgcolor="rgba(0,0,0,0)",
            font_color="#808080",
            yaxis_gridcolor=_LINES,
            yaxis_zerolinecolor=_LINES,
            legend={"orientation": "h", "y": 1.15, "x": 1, "xanchor": "right"},
        )
        config = {"displayModeBar": False, "responsive": True}
        return str(figure.to_html(full_html=False, include_plotlyjs=False, config=config))

    def used(name: str) -> range:
        """Return the bins from the first to the last in which any split has images."""
        filled = np.flatnonzero(np.sum([_counts(of, name) for of in splits.values()], axis=0))
        return range(filled[0], filled[-1] + 1) if len(filled) else range(0)

    names = list(figures.splits["train"].labels)
    chosen = {*outermost(figures.splits["train"].labels, _MOST_BARS)}
    shown = [place for place, name in enumerate(names) if name in chosen]
    title = "Labels" if len(shown) == len(names) else f"Labels: the {len(shown)} largest and smallest of {len(names):,}"
    lower_edges = {
        "brightness": [f"{edge:.0f}" for edge in BRIGHTNESS[:-1]],
        "sharpness": [f"{edge}" for edge in SHARPNESS[:-1]],
        "sides": [f"{2**edge:.3g}" for edge in SIDES[:-1]],
    }
    titles = {
        "brightness": ("Brightness", "mean luma of an image, 0 to 255"),
        "sharpness": ("Sharpness", "log2 of the Laplacian's variance"),
        "sides": ("Sizes", "pixels a side, geometric mean, at least"),
    }
    of_images = [chart(*titles[name], lower_edges[name], name, used(name)) for name in titles]
    return [chart(title, "", names, "labels", shown), *of_images]


def _counts(figures: SplitFigures, name: str) -> np.ndarray:
    value = getattr(figures, name)
    return np.array(list(value.values() if isinstance(value, dict) else value), float)
