"""`vitpipe settings`: the reference of all settings."""

import json
from typing import Annotated

import typer

from components.errors import UsageError
from components.suggestions import did_you_mean
from pipeline.console.terminal import print_json
from pipeline.settings import Settings, load
from pipeline.settings.reference import reference
from vitpipe.cli.options import Json
from vitpipe.cli.panels import PREPARE, example
from vitpipe.cli.tables import print_rows

app = typer.Typer()


@app.command(
    rich_help_panel=PREPARE,
    epilog=example("vitpipe settings training -c cifar10", "vitpipe settings gate.accuracy"),
)
def settings(
    group: Annotated[
        str,
        typer.Argument(metavar="GROUP", help="Show only this group or setting, such as `training` or `gate.accuracy`."),
    ] = "",
    config: Annotated[
        str | None,
        typer.Option(
            "--config", "-c", metavar="PRESET|FILE", help="Also show the values that result from this preset or file."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """List all settings with their types, defaults, bounds and descriptions.

    Other commands change a setting with `--set NAME=VALUE`.
    """
    all_rows = list(reference(load(config) if config else Settings()))
    rows = [row for row in all_rows if not group or f"{row.name}.".startswith(f"{group}.")]
    if not rows:
        names = [".".join(row.name.split(".")[:depth]) for row in all_rows for depth in (1, 2, 3)]
        groups = dict.fromkeys(row.name.partition(".")[0] for row in all_rows if "." in row.name)
        raise UsageError(f"no setting or group {group}: {did_you_mean(group, names)}the groups are {', '.join(groups)}")
    columns = ["name", *(["value"] if config else []), "type", "default", "bounds", "description"]
    if as_json:
        print_json([{column: getattr(row, column) for column in columns} for row in rows])
        return
    print_rows(columns, ([_text(column, getattr(row, column)) for column in columns] for row in rows), wrap=True)


def _text(column: str, value: object) -> str:
    if isinstance(value, str) and (value or column == "bounds"):
        return value
    return json.dumps(value)
