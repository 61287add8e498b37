"""The page of a study with its chart, and its figures as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import plotly.graph_objects as go

from pipeline.drawing.charts import MORE_COLOURS, html
from pipeline.drawing.document import document
from trainer.disk import atomic_write
from vitpipe.study.results import Row, StudyFigures

PAGE, DATA = "study.html", "study.json"


def write(found: StudyFigures, out: Path) -> Path:
    """Write the page and the JSON file, each completely or not at all.

    Args:
        found: the figures of the study.
        out: the folder to write to; created if missing.

    Returns:
        The path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    for name, text in (DATA, found.model_dump_json(indent=1) + "\n"), (PAGE, render(found)):
        with atomic_write(out / name) as file:
            file.write(text.encode())
    return out / PAGE


def render(found: StudyFigures) -> str:
    """Return the page of a study as HTML."""
    by_title: dict[str, list[Row]] = {}
    for row in found.rows:
        by_title.setdefault(row.title, []).append(row)
    return document(Path(__file__).with_suffix(".html"), found=found, chart=draw_chart(by_title))


def draw_chart(lines: Mapping[str, Sequence[Row]]) -> str:
    """Draw accuracy over images per class as HTML: by title, a line through the means and a circle for each seed."""
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
            y=[accuracy for row in rows for accuracy in row.accuracies],
            mode="markers",
            marker={"color": colour, "symbol": "circle-open", "size": 7},
            name=title,
            legendgroup=title,
            showlegend=False,
        )
    sizes = sorted({row.size for rows in lines.values() for row in rows})
    chart.update_xaxes(type="log", tickvals=sizes, ticktext=[f"{size:,}" for size in sizes])
    chart.update_yaxes(tickformat=".0%")
    return html(chart, "Accuracy", "training images per class", "accuracy", height=480)
