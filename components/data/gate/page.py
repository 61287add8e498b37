"""HTML page that shows a person what the data gate found in a span."""

from collections.abc import Iterable
from pathlib import Path

import jinja2
import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from components.data.gate.bounds import LEVELS
from components.data.gate.checks import DataVerdict
from components.data.ingest.source import SPLITS
from components.data.pictures import Exhibit, shorten
from components.data.statistics.exhibits import MAX_EXHIBITS
from components.data.statistics.figures import BRIGHTNESS, SHARPNESS, SIDES, ImageFigures, SplitFigures

_MAX_BARS = 100  # classes in the chart of labels
_MAX_CLASSES = 40  # classes with sample pictures
_COLOURS = {"train": "#4c78a8", "val": "#f58518", "test": "#54a24b"}
_PREVIOUS_COLOUR = "#9d9da3"
_LINES = "rgba(128, 128, 128, 0.3)"  # visible on light and dark backgrounds


def largest_and_smallest(labels: dict[str, int], limit: int) -> list[str]:
    """Select the classes with the most and with the fewest images.

    Args:
        labels: number of images by class, in index order.
        limit: largest number of classes to return.

    Returns:
        Class names in index order; half of them are the largest classes.
    """
    if len(labels) <= limit:
        return list(labels)
    by_count = sorted(labels, key=lambda name: labels[name])
    chosen = {*by_count[: limit // 2], *by_count[-(limit - limit // 2) :]}
    return [name for name in labels if name in chosen]


def sampled_classes(labels: dict[str, int]) -> list[str]:
    """Return the classes of which the page shows sample pictures.

    Args:
        labels: number of images by class, in index order.
    """
    return largest_and_smallest(labels, _MAX_CLASSES)


def render(
    verdict: DataVerdict,
    previous: ImageFigures | None,
    samples: dict[str, list[Exhibit]],
    exhibits: dict[str, list[Exhibit]],
) -> str:
    """Return the page as one HTML file that needs no network.

    Args:
        verdict: the decision and the findings to show.
        previous: statistics of the span that drift was measured against.
        samples: sample images by class.
        exhibits: affected images by check.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["shorten"] = shorten
    return environment.get_template("page.html").render(
        verdict=verdict,
        findings=[finding for level in LEVELS for finding in verdict.findings_at(level)],
        figures=verdict.figures,
        previous=previous,
        samples=samples,
        exhibits=exhibits,
        max_exhibits=MAX_EXHIBITS,
        classes=len(verdict.figures.splits["train"].labels),
        charts=_charts(verdict.figures, previous),
        plotly=get_plotlyjs(),
    )


def _charts(figures: ImageFigures, previous: ImageFigures | None) -> list[str]:
    """Return bar charts of the splits and of the previous span's train split.

    The bars are shares, so that splits of different sizes can be compared.
    """
    splits = {split: figures.splits[split] for split in SPLITS if split in figures.splits}
    if previous is not None:
        splits |= {f"span {previous.span}, train": previous.splits["train"]}

    def chart(title: str, axis: str, labels: list[str], name: str, bars: Iterable[int]) -> str:
        figure = go.Figure(layout={"title": {"text": title}})
        bars = list(bars)
        for split, measured in splits.items():
            counts = _counts(measured, name)
            figure.add_bar(
                x=[shorten(labels[place]) for place in bars],
                y=(counts / max(counts.sum(), 1))[bars],
                name=split,
                marker_color=_COLOURS.get(split, _PREVIOUS_COLOUR),
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

    def bins_with_images(name: str) -> range:
        """Return the range of bins that hold images of any split."""
        filled = np.flatnonzero(np.sum([_counts(measured, name) for measured in splits.values()], axis=0))
        return range(filled[0], filled[-1] + 1) if len(filled) else range(0)

    names = list(figures.splits["train"].labels)
    chosen = {*largest_and_smallest(figures.splits["train"].labels, _MAX_BARS)}
    label_bars = [place for place, name in enumerate(names) if name in chosen]
    title = "Labels"
    if len(label_bars) < len(names):
        title = f"Labels: the {len(label_bars)} largest and smallest of {len(names):,}"
    lower_edges = {
        "brightness": [f"{edge:.0f}" for edge in BRIGHTNESS[:-1]],
        "sharpness": [f"{edge}" for edge in SHARPNESS[:-1]],
        "sides": [f"{2**edge:.3g}" for edge in SIDES[:-1]],
    }
    titles = {
        "brightness": ("Brightness", "mean luma of an image, 0 to 255"),
        "sharpness": ("Sharpness", "log2 of 1 + the variance of the Laplacian"),
        "sides": ("Sizes", "geometric mean of width and height, pixels"),
    }
    image_charts = [chart(*titles[name], lower_edges[name], name, bins_with_images(name)) for name in titles]
    return [chart(title, "", names, "labels", label_bars), *image_charts]


def _counts(figures: SplitFigures, name: str) -> np.ndarray:
    value = getattr(figures, name)
    return np.array(list(value.values() if isinstance(value, dict) else value), float)
