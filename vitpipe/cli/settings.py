"""`vitpipe settings`: the reference of all settings."""

import difflib
import json
from typing import Annotated, Any

import typer

from components.errors import SettingsError
from pipeline.settings import Settings, load
from pipeline.settings.reference import reference
from vitpipe.cli.tables import print_rows


def settings(
    group: Annotated[
        str, typer.Argument(metavar="[GROUP]", help="A group, such as training or data_gate, or one setting.")
    ] = "",
    config: Annotated[
        str | None, typer.Option("--config", "-c", metavar="PRESET|FILE", help="Show the values that it gives, too.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """List settings: name, type, default, bounds and what each one does. Set one with `--set NAME=VALUE`."""
    everything = list(reference(load(config) if config else Settings()))
    rows = [row for row in everything if not group or f"{row.name}.".startswith(f"{group}.")]
    if not rows:
        names = [".".join(row.name.split(".")[:depth]) for row in everything for depth in (1, 2, 3)]
        nearest = difflib.get_close_matches(group, names, n=1, cutoff=0.5)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        groups = dict.fromkeys(row.name.partition(".")[0] for row in everything if "." in row.name)
        raise SettingsError(f"no settings {group}: {hint}the groups are {', '.join(groups)}")
    columns = ["name", *(["value"] if config else []), "type", "default", "bounds", "description"]
    if as_json:
        print(json.dumps([{column: getattr(row, column) for column in columns} for row in rows], indent=2))
        return
    print_rows(columns, ([_text(column, getattr(row, column)) for column in columns] for row in rows), wrap=True)


def _text(column: str, value: Any) -> str:
    if isinstance(value, str) and (value or column == "bounds"):
        return value
    return json.dumps(value)
