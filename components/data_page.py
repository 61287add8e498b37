"""The page of a span: what a person looks at before trusting it."""

import base64
import io
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jinja2
import numpy as np
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from components.data_bounds import LEVELS
from components.data_checks import DataVerdict
from components.figures import BRIGHTNESS, SHARPNESS, SIDES, ImageFigures, SplitFigures
from components.ingest.images import BadImage, eight_bits, opened
from components.ingest.source import SPLITS

_MOST_PIXELS = 96  # a side of a picture on the page
_COLOURS = {"train": "#4c78a8", "val": "#f58518", "test": "#54a24b"}
_BEFORE = "#9d9da3"
_LINES = "rgba(128, 128, 128, 0.3)"  # to be seen on light and dark


def readable(id: bytes) -> str:
    return id.decode("utf-8", "backslashreplace")


@dataclass
class Picture:
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
            image = eight_bits(opened(self.image)).convert("RGB")
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

    picture: Picture
    note: str = ""
    twin: Picture | None = None

    @property
    def pictures(self) -> list[Picture]:
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
    return environment.get_template("data_page.html").render(
        verdict=verdict,
        findings=[finding for level in LEVELS for finding in verdict.of_level(level)],
        figures=verdict.figures,
        previous=previous,
        samples=samples,
        exhibits=exhibits,
        charts=_charts(verdict.figures, previous),
        plotly=get_plotlyjs(),
    )


def _charts(figures: ImageFigures, previous: ImageFigures | None) -> list[str]:
    """Shares of each split, so that a small one can be compared with a large one; and of the span before."""
    splits = {split: figures.splits[split] for split in SPLITS if split in figures.splits}
    if previous is not None:
        splits |= {f"span {previous.span}, train": previous.splits["train"]}

    def chart(title: str, axis: str, labels: list, name: str) -> str:
        figure = go.Figure(layout={"title": {"text": title}})
        for split, of in splits.items():
            counts = _counts(of, name)
            used = np.flatnonzero(np.sum([_counts(other, name) for other in splits.values()], axis=0))
            # Of numbers without those at both ends that nothing has; of classes all of them.
            shown = slice(used[0], used[-1] + 1) if len(used) and name != "labels" else slice(None)
            figure.add_bar(
                x=labels[shown],
                y=(counts / max(counts.sum(), 1))[shown],
                name=split,
                marker_color=_COLOURS.get(split, _BEFORE),
                hovertemplate="%{x}: %{y:.1%}",
            )
        figure.update_layout(
            height=320, margin={"l": 50, "r": 10, "t": 40, "b": 40}, xaxis_title=axis, xaxis_type="category",
            yaxis_tickformat=".0%",
            template="plotly_white", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)",
            font_color="#808080", yaxis_gridcolor=_LINES, yaxis_zerolinecolor=_LINES,
            legend={"orientation": "h", "y": 1.15, "x": 1, "xanchor": "right"},
        )  # fmt: skip
        return figure.to_html(
            full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True}
        )

    return [
        chart("Labels", "", list(next(iter(splits.values())).labels), "labels"),
        chart(
            "Brightness", "mean luma of an image, 0 to 255", [f"{edge:.0f}" for edge in BRIGHTNESS[:-1]], "brightness"
        ),
        chart("Sharpness", "log2 of the Laplacian's variance", [f"{edge}" for edge in SHARPNESS[:-1]], "sharpness"),
        chart("Sizes", "pixels a side, geometric mean, at least", [f"{2**edge:.3g}" for edge in SIDES[:-1]], "sides"),
    ]


def _counts(figures: SplitFigures, name: str) -> np.ndarray:
    value = getattr(figures, name)
    return np.array(list(value.values() if isinstance(value, dict) else value), float)
