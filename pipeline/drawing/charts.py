"""Charts as HTML for a page that includes plotly.js, readable on light and dark backgrounds."""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import plotly.graph_objects as go

from pipeline.result.figures import Bin, Epoch
from trainer.trials import Trial

_LINES = "rgba(128, 128, 128, 0.3)"
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#b279a2")
MORE_COLOURS = (*_COLOURS, "#e45756", "#72b7b2", "#eeca3b", "#9d755d")
_SHADES = [[0, "rgba(76, 120, 168, 0)"], [1, "rgba(76, 120, 168, 1)"]]

Epochs = Sequence[Epoch]


def curves(title: str, axis: str, lines: Mapping[str, tuple[Epochs, str]], format: str = "") -> str:
    """Return a chart with lines over the epochs.

    Args:
        title: title of the chart.
        axis: title of the y axis.
        lines: for each name of a line, the epochs and the name of the figure to show.
        format: format of the numbers at the y axis, in the notation of d3-format.
    """
    chart = go.Figure()
    for place, (name, (rows, figure)) in enumerate(lines.items()):
        chart.add_scatter(
            x=[row.epoch for row in rows],
            y=[getattr(row, figure) for row in rows],
            name=name,
            mode="lines+markers",
            line={"color": _COLOURS[place % len(_COLOURS)]},
            marker={"size": 4},
        )
    chart.update_yaxes(tickformat=format)
    chart.update_xaxes(rangemode="tozero")
    return html(chart, title, "epoch", axis)


def trials_by_number(trials: Sequence[Trial]) -> str:
    """Return a chart of the accuracy on val of each trial of a tuning, and of the best completed one so far."""
    chart = go.Figure()
    best = accumulate(((trial.accuracy or 0.0) if trial.state == "complete" else 0.0 for trial in trials), max)
    known = [(trial.number, so_far) for trial, so_far in zip(trials, best, strict=True) if so_far]
    chart.add_scatter(
        x=[number for number, _ in known],
        y=[so_far for _, so_far in known],
        name="best so far",
        mode="lines",
        line={"shape": "hv", "dash": "dot", "color": "#808080"},
    )
    _add_trials(chart, trials, [trial.number for trial in trials])
    chart.update_yaxes(tickformat=".1%")
    return html(chart, "Accuracy on val by trial", "trial", "accuracy on val")


def trials_by_value(name: str, trials: Sequence[Trial], log: bool) -> str:
    """Return a chart of the accuracy on val of each trial of a tuning over the value of a setting.

    Args:
        name: dotted name of the setting.
        trials: the trials.
        log: draw the logarithm of the value.
    """
    chart = go.Figure()
    values = [trial.values.get(name) for trial in trials]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    _add_trials(chart, trials, values if numbers else [str(value) for value in values])
    chart.update_yaxes(tickformat=".1%")
    chart.update_xaxes(type="log" if log and numbers else None if numbers else "category")
    return html(chart, f"Accuracy on val by {name}", name, "accuracy on val")


def _add_trials(chart: go.Figure, trials: Sequence[Trial], x: Sequence[object]) -> None:
    for state, colour, symbol in ("complete", _COLOURS[0], "circle"), ("pruned", _COLOURS[1], "x"):
        of_state = [(at, trial) for at, trial in zip(x, trials, strict=True) if trial.state == state]
        chart.add_scatter(
            x=[at for at, _ in of_state],
            y=[trial.accuracy for _, trial in of_state],
            name=state,
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 8},
            customdata=[[trial.number, trial.epochs] for _, trial in of_state],
            hovertemplate="trial %{customdata[0]}, %{customdata[1]} epochs: %{y:.2%}<extra></extra>",
        )


def confusion(names: Sequence[str], matrix: Sequence[Sequence[int]]) -> str:
    """Return a heat map of the confusion matrix. Colours are shares of each class, so that rare classes are visible.

    Args:
        names: names of the classes.
        matrix: number of examples by class and by answer.
    """
    shares = [[count / max(sum(row), 1) for count in row] for row in matrix]
    few = len(names) <= 20
    chart = go.Figure(
        go.Heatmap(
            x=list(names),
            y=list(names),
            z=shares,
            zmin=0,
            zmax=1,
            colorscale=_SHADES,
            customdata=matrix,
            hovertemplate="%{y} classified as %{x}: %{customdata:,} images, %{z:.1%}<extra></extra>",
            text=matrix if few else None,
            texttemplate="%{text:,}" if few else None,
            showscale=False,
        )
    )
    chart.update_yaxes(autorange="reversed", type="category", automargin=True)
    chart.update_xaxes(type="category", automargin=True)
    return html(chart, "Confusion", "answer", "class", height=560, lines=False)


def reliability(bins: Sequence[Bin]) -> str:
    """Return a chart of the accuracy over the confidence of a model."""
    chart = go.Figure()
    chart.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="perfect calibration", line={"dash": "dot", "color": "#808080"}
    )
    chart.add_scatter(
        x=[bin.confidence for bin in bins],
        y=[bin.accuracy for bin in bins],
        mode="lines+markers",
        name="this model",
        line={"color": _COLOURS[0]},
        customdata=[bin.examples for bin in bins],
        hovertemplate="%{customdata:,} images, confidence %{x:.3f}, accuracy %{y:.3f}<extra></extra>",
    )
    chart.update_xaxes(range=[0, 1])
    chart.update_yaxes(range=[0, 1])
    return html(chart, "Reliability", "confidence", "accuracy")


def confidences(bins: Sequence[Bin]) -> str:
    """Return a histogram of the confidence of a model."""
    chart = go.Figure(
        go.Bar(
            x=[bin.confidence for bin in bins],
            y=[bin.examples for bin in bins],
            marker_color=_COLOURS[0],
            hovertemplate="confidence %{x:.3f}: %{y:,} images<extra></extra>",
        )
    )
    chart.update_xaxes(range=[0, 1])
    return html(chart, "Distribution of the confidence", "confidence", "test images")


def by_block(title: str, axis: str, names: Sequence[str], rows: Sequence[Sequence[float]], even: float) -> str:
    """Return a chart with a line over the blocks for each head.

    Args:
        title: title of the chart.
        axis: title of the y axis.
        names: names of the lines.
        rows: values, [block][line].
        even: value of even attention, which is shown as a dotted line.
    """
    chart = go.Figure()
    blocks = list(range(1, len(rows) + 1))
    for place, name in enumerate(names):
        chart.add_scatter(
            x=blocks,
            y=[row[place] for row in rows],
            name=name,
            mode="lines+markers",
            line={"color": MORE_COLOURS[place % len(MORE_COLOURS)], "dash": "solid" if "head" in name else "dash"},
        )
    chart.add_hline(y=even, line={"dash": "dot", "color": "#808080"})
    chart.update_xaxes(dtick=1 if len(rows) <= 12 else None)
    chart.update_yaxes(rangemode="tozero")
    return html(chart, title, "block", axis)


def removal(name: str, shares: Sequence[float], rollout: Sequence[float], random: Sequence[float]) -> str:
    """Return a chart of the probability of the answer while patches are deleted or inserted.

    Args:
        name: `deletion` or `insertion`.
        shares: shares of the patches that have been deleted or inserted.
        rollout: probability at each share, with the patches in the order of rollout.
        random: probability at each share, with the patches in random order.
    """
    chart = go.Figure()
    for place, (order, values) in enumerate({"order of rollout": rollout, "random order": random}.items()):
        chart.add_scatter(x=list(shares), y=list(values), name=order, mode="lines", line={"color": _COLOURS[place]})
    chart.update_xaxes(range=[0, 1], tickformat=".0%")
    chart.update_yaxes(range=[0, 1])
    change = "deleted" if name == "deletion" else "inserted"
    return html(chart, name.capitalize(), f"patches {change}", "probability of the answer")


def html(chart: go.Figure, title: str, x: str, y: str, height: int = 320, lines: bool = True) -> str:
    """Return a chart as HTML in the theme that all pages share.

    Args:
        chart: the chart, with its traces and the ranges of its axes.
        title: title of the chart, in plain text.
        x: title of the x axis.
        y: title of the y axis.
        height: height in pixels.
        lines: show grid lines.
    """
    chart.update_layout(
        title={"text": title},
        height=height,
        margin={"l": 55, "r": 10, "t": 60, "b": 40},
        xaxis_title=x,
        yaxis_title=y,
        template="plotly_white",
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font_color="#808080",
        legend={"orientation": "h", "y": 1.13, "x": 1, "xanchor": "right"},
    )
    for axes in chart.update_xaxes, chart.update_yaxes:
        axes(gridcolor=_LINES, zerolinecolor=_LINES, showgrid=lines)
    config = {"displayModeBar": False, "responsive": True}
    return str(chart.to_html(full_html=False, include_plotlyjs=False, config=config))
