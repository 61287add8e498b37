"""One HTML file that needs no network: the frame that pages share, and how their figures are written."""

import json
from pathlib import Path
from typing import Any

import jinja2
from plotly.offline import get_plotlyjs

from components.gate import Check
from pipeline.duration import duration
from pipeline.metadata.picture import STYLE


def document(template: str, **values: Any) -> str:
    """The page of a template beside this module."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )  # fmt: skip
    environment.filters |= {"share": share, "figure": figure, "duration": duration, "allowed": allowed, "plain": plain}
    return environment.get_template(template).render(plotly=get_plotlyjs(), picture_style=STYLE, **values)


def share(value: float | None) -> str:
    return "" if value is None else f"{value:.2%}"


def figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.4g}"


def allowed(check: Check) -> str:
    return f"{check.sense} {figure(check.bound)}"


def plain(value: object) -> str:
    """A setting, as a person would write it."""
    return value if isinstance(value, str) else json.dumps(value)
