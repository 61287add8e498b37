"""Reference of all commands in Markdown, for the documentation."""

from collections.abc import Iterator

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from vitpipe.cli import app


def command_reference() -> str:
    """Return a page of Markdown: a section for each panel of `vitpipe --help`, with its commands in the same order."""
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    context = typer.Context(root, info_name="vitpipe")
    blocks = ["# Commands", root.help or "", root.epilog or ""]
    panel = None
    for command in _members(root):
        if command.rich_help_panel != panel:
            panel = command.rich_help_panel
            blocks.append(f"## {panel}")
        blocks += _section(command, context, "###")
    return "\n\n".join(filter(None, blocks)) + "\n"


def _members(group: TyperGroup) -> Iterator[TyperCommand | TyperGroup]:
    for command in group.commands.values():
        if isinstance(command, (TyperCommand, TyperGroup)) and not command.hidden:
            yield command


def _section(command: TyperCommand | TyperGroup, parent: typer.Context, heading: str) -> Iterator[str]:
    context = typer.Context(command, info_name=command.name, parent=parent)
    yield f"{heading} `{context.command_path}`"
    yield command.help or ""
    if isinstance(command, TyperGroup):
        for member in _members(command):
            yield from _section(member, context, f"{heading}#")
        return
    yield f"```text\n{' '.join([context.command_path, *command.collect_usage_pieces(context)])}\n```"
    yield _table("Argument", [part for part in command.params if isinstance(part, TyperArgument)], context)
    yield _table("Option", [part for part in command.params if isinstance(part, TyperOption)], context)
    yield command.epilog or ""


def _table(title: str, parameters: list[TyperArgument] | list[TyperOption], context: typer.Context) -> str:
    records = [record for parameter in parameters if (record := parameter.get_help_record(context))]
    rows = [f"| `{_cell(name)}` | {_cell(text)} |" for name, text in records]
    return "\n".join([f"| {title} | Description |", "| --- | --- |", *rows]) if rows else ""


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
