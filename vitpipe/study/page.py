"""The page of a study, its figures and its chart as a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go

from pipeline.drawing.charts import MORE_COLOURS, html
from pipeline.drawing.document import document
from trainer.disk import atomic_write
from vitpipe.study.results import Found, Row

PAGE, DATA = "study.html", "study.json"


def write(found: Found, out: Path) -> Path:
    """Both files, each whole or not at all. Gives the page."""
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (DATA, found.model_dump_json(indent=1) + "\n"), (PAGE, render(found)):
        with atomic_write(out / name) as file:
            file.write(text.encode())
    return out / PAGE


def render(found: Found) -> str:
    by_title: dict[str, list[Row]] = {}
    for row in found.rows:
        by_title.setdefault(row.title, []).append(row)
    return document(Path(__file__).with_suffix(".html"), found=found, chart=data_regime(by_title))


def data_regime(lines: Mapping[str, Sequence[Row]]) -> str:
    """Accuracy over the images a class: by title its rows, a line through the means and a point for each seed."""
    chart = go.Figure()
    for place, (title, rows) in enumerate(lines.items()):
        colour = MORE_COLOURS[place % len(MORE_COLOURS)]
        ends = [row.interval or (row.accuracy, row.accuracy) for row in rows]
        chart.add_scatter(
            x=[row.size for row in rows],
            y=[row.accuracy for row in rows],
            name=title,
            mode="lines+markers",
            line={"color": colour},
            legendgroup=title,
            error_y={
                "array": [high - row.accuracy for row, (_, high) in zip(rows, ends, strict=True)],
                "arrayminus": [row.accuracy - low for row, (low, _) in zip(rows, ends, strict=True)],
                "color": colour,
                "thickness": 1,
            },
        )
        chart.add_scatter(
            x=[row.size for row in rows for _ in row.accuracies],
            y=[one for row in rows for one in row.accuracies],
            mode="markers",
            marker={"color": colour, "symbol": "circle-open", "size": 7},
            name=title,
            legendgroup=title,
            showlegend=False,
        )
    sizes = sorted({row.size for rows in lines.values() for row in rows})
    chart.update_xaxes(type="log", tickvals=sizes, ticktext=[f"{size:,}" for size in sizes])
    chart.update_yaxes(tickformat=".0%")
    return html(chart, "Accuracy", "training images a class", "accuracy", height=480)
