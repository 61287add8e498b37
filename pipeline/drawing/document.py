"""HTML frame and number formats that all pages share. Each page is one file that needs no network."""

import json
from pathlib import Path

import jinja2
from plotly.offline import get_plotlyjs

from components.model.evaluator.judgement import Check
from pipeline.console.duration import duration
from pipeline.drawing.graph import STYLE


def document(template: Path, **values: object) -> str:
    """Return the page of a template, which may extend and import the templates beside this module.

    Args:
        template: path of the template.
        **values: variables of the template.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"share": share, "figure": figure, "duration": duration, "allowed": allowed, "plain": plain}
    return environment.get_template(template.name).render(plotly=get_plotlyjs(), picture_style=STYLE, **values)


def share(value: float | None) -> str:
    """Return a share as a percentage; empty for None."""
    return "" if value is None else f"{value:.2%}"


def figure(value: float | None) -> str:
    """Return a number with four significant digits; empty for None."""
    return "" if value is None else f"{value:,.4g}"


def allowed(check: Check) -> str:
    """Return the values that a check allows, such as "at least 0.5"."""
    return f"{check.sense} {figure(check.bound)}"


def plain(value: object) -> str:
    """Return the value of a setting as a user would write it."""
    return value if isinstance(value, str) else json.dumps(value)
