"""`vitpipe settings`: the reference of all settings."""

import json
from typing import Annotated, Any

import typer

from components.errors import UsageError
from components.suggestions import did_you_mean
from pipeline.console.terminal import print_json
from pipeline.settings import Settings, load
from pipeline.settings.reference import reference
from vitpipe.cli.options import Json
from vitpipe.cli.tables import print_rows


def settings(
    group: Annotated[
        str, typer.Argument(metavar="[GROUP]", help="Name of a group, such as training or data_gate, or of a setting.")
    ] = "",
    config: Annotated[
        str | None, typer.Option("--config", "-c", metavar="PRESET|FILE", help="Also show the resulting values.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List settings with name, type, default, bounds and description. Change a setting with `--set NAME=VALUE`."""
    everything = list(reference(load(config) if config else Settings()))
    rows = [row for row in everything if not group or f"{row.name}.".startswith(f"{group}.")]
    if not rows:
        names = [".".join(row.name.split(".")[:depth]) for row in everything for depth in (1, 2, 3)]
        groups = dict.fromkeys(row.name.partition(".")[0] for row in everything if "." in row.name)
        raise UsageError(f"no setting or group {group}: {did_you_mean(group, names)}the groups are {', '.join(groups)}")
    columns = ["name", *(["value"] if config else []), "type", "default", "bounds", "description"]
    if as_json:
        print_json([{column: getattr(row, column) for column in columns} for row in rows])
        return
    print_rows(columns, ([_text(column, getattr(row, column)) for column in columns] for row in rows), wrap=True)


def _text(column: str, value: Any) -> str:
    if isinstance(value, str) and (value or column == "bounds"):
        return value
    return json.dumps(value)
