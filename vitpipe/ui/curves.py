"""Training curves as SVG, which need no script: a page that is renewed while a run trains shows them grow."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape

from pipeline.result.figures import Epoch
from vitpipe.ui.training import Training

_WIDTH, _HEIGHT = 560, 240  # pixels
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 34  # margins around the plot, pixels
_TICKS = 5  # intervals on an axis, about
_MOST_HINTS = 400  # columns that show values under the pointer


def curves(training: Training) -> Mapping[str, str]:
    """Return the charts of a training as SVG, by title."""
    return {
        "Accuracy": _chart("Accuracy", training, "accuracy", "val_accuracy", "{:.2%}", "{:.0%}"),
        "Loss": _chart("Loss", training, "loss", "val_loss", "{:.4f}", "{:g}"),
    }


def _chart(title: str, training: Training, train: str, val: str, exact: str, rough: str) -> str:
    """Return one chart.

    Args:
        title: Title of the chart.
        training: Training to draw.
        train: Field of `Epoch` with the value on train.
        val: Field of `Epoch` with the value on val.
        exact: Format of the values under the pointer.
        rough: Format of the values on the axis.
    """
    epochs = training.epochs
    lines = {"train": train, "val": val}
    if getattr(epochs[-1], val) is None:  # val is trained on, and not measured
        del lines["val"]
    values = [getattr(epoch, field) for epoch in epochs for field in lines.values()]
    ticks = _ticks(min(values), max(values))
    last = max(training.planned or 1, *(epoch.epoch for epoch in epochs))

    def x(epoch: float) -> float:
        return _LEFT + epoch / last * (_WIDTH - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _TOP + (ticks[-1] - value) / (ticks[-1] - ticks[0]) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [f'<svg class="curves" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)} by epoch">']
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {y(tick):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text class="left" x="{_LEFT - 6}" y="{y(tick) + 4:.1f}">{rough.format(tick)}</text>')
    for tick in _ticks(0, last):
        if tick <= last and tick == int(tick):
            parts.append(f'<text x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 16}">{tick:g}</text>')
    parts.append(f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2:g}" y="{_HEIGHT - 3}">epoch</text>')
    best = training.best.epoch
    parts.append(f'<path class="best" d="M{x(best):.1f} {_TOP}V{_HEIGHT - _BOTTOM}"/>')
    parts += [_line(name, epochs, field, x, y) for name, field in lines.items()]
    each = max(1, math.ceil(len(epochs) / _MOST_HINTS))
    width = max(2.0, x(each) - x(0))
    for epoch in epochs[::each]:
        words = ", ".join(f"{name} {exact.format(getattr(epoch, field))}" for name, field in lines.items())
        words = f"epoch {epoch.epoch}: {words}{', its model is exported' if epoch.epoch == best else ''}"
        parts.append(
            f'<rect class="hint" x="{x(epoch.epoch) - width / 2:.1f}" y="{_TOP}" width="{width:.1f}" '
            f'height="{_HEIGHT - _TOP - _BOTTOM}"><title>{words}</title></rect>'
        )
    return "".join([*parts, "</svg>"])


def _line(
    name: str, epochs: Sequence[Epoch], field: str, x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    points = [(x(epoch.epoch), y(getattr(epoch, field))) for epoch in epochs]
    if len(points) == 1:
        return f'<circle class="{name}" cx="{points[0][0]:.1f}" cy="{points[0][1]:.1f}" r="3"/>'
    return f'<polyline class="{name}" points="{" ".join(f"{px:.1f},{py:.1f}" for px, py in points)}"/>'


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers, evenly spaced, of which the first is at most `low` and the last at least `high`."""
    span = max(high - low, abs(high) * 1e-3, 1e-9)
    power = 10 ** math.floor(math.log10(span / _TICKS))
    step = next(power * factor for factor in (1, 2, 5, 10) if span / (power * factor) <= _TICKS)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 12) for place in range(start, max(end, start + 1) + 1)]
