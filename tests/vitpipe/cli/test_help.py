"""The help of all commands, and the reference that is made from it."""

import shlex
from collections.abc import Iterator
from itertools import pairwise

import typer
from markdown_it import MarkdownIt
from typer.core import TyperGroup
from typer.main import get_command

from vitpipe.cli import app
from vitpipe.cli.panels import DEPLOY, LOOK, MAINTAIN, PREPARE, RETRAIN, RUN
from vitpipe.cli.reference import command_reference

ROOT = get_command(app)


def contexts(command=ROOT, parent=None) -> Iterator[typer.Context]:
    """Yield a context of each command that is not hidden, groups first."""
    context = typer.Context(command, info_name=command.name or "vitpipe", parent=parent)
    yield context
    if isinstance(command, TyperGroup):
        for member in command.commands.values():
            if not member.hidden:
                yield from contexts(member, context)


def examples(context):
    """Return the command lines in the code blocks of a command's epilog."""
    blocks = [token.content for token in MarkdownIt().parse(context.command.epilog or "") if token.type == "fence"]
    return [line for block in blocks for line in block.splitlines()]


def parse(line):
    """Parse a command line without running it, and return the path of its command."""
    first, *words = shlex.split(line.partition(">")[0])
    assert first == "vitpipe"
    command, context = ROOT, typer.Context(ROOT, info_name=first)
    while isinstance(command, TyperGroup):
        name = words.pop(0)
        command = command.commands[name]
        if isinstance(command, TyperGroup):
            context = typer.Context(command, info_name=name, parent=context)
    return command.make_context(name, words, parent=context).command_path


def problems_of(context):
    command = context.command
    sentence, *more = (command.help or "").split("\n\n")
    if not sentence.endswith(".") or ". " in sentence:
        yield f"its help does not begin with one sentence: {sentence!r}"
    if any(section in paragraph for paragraph in more for section in ("Args:", "Returns:", "Raises:")):
        yield "its help shows a section of the docstring that is for programmers"
    if context.parent and command.rich_help_panel not in (PREPARE, RUN, LOOK, DEPLOY, RETRAIN, MAINTAIN):
        yield "it is in no panel"
    for parameter in command.params:
        if not parameter.help or not parameter.help.endswith("."):
            yield f"{parameter.opts} has no sentence of help"
    if context.parent and isinstance(command, TyperGroup):
        return
    if not examples(context):
        yield "it has no example"
    for line in examples(context):
        try:
            path = parse(line)
        except Exception as error:
            yield f"its example {line!r} is not valid: {error!r}"
        else:
            if context.parent and path != context.command_path:
                yield f"its example {line!r} is of another command"


def test_every_command_has_a_sentence_a_panel_help_for_its_options_and_examples_that_parse():
    all_contexts = list(contexts())
    assert len(all_contexts) > 30 and "vitpipe kfp schedule" in [context.command_path for context in all_contexts]
    assert not [f"{context.command_path}: {problem}" for context in all_contexts for problem in problems_of(context)]


def test_the_help_shows_the_panels_in_the_order_of_the_work():
    panels = [command.rich_help_panel for command in ROOT.commands.values() if not command.hidden]
    assert list(dict.fromkeys(panels)) == [PREPARE, RUN, LOOK, DEPLOY, RETRAIN, MAINTAIN]


def test_the_reference_is_markdown_with_all_commands_and_options():
    tokens = MarkdownIt().enable("table").parse(command_reference())
    kinds = {token.type for token in tokens} | {child.type for token in tokens for child in token.children or []}
    assert not {kind for kind in kinds if kind.startswith("html")}  # a browser would not show <DIR>
    headings = [inner.content for outer, inner in pairwise(tokens) if outer.type == "heading_open"]
    _, *commands = contexts()
    paths = [context.command_path for context in commands]
    assert [heading.strip("`") for heading in headings if heading.startswith("`")] == paths
    cells = [inner.content for outer, inner in pairwise(tokens) if outer.type == "td_open"]
    parameters = [part for context in commands for part in context.command.params if not getattr(part, "hidden", False)]
    assert len(cells) == 2 * len(parameters) and all(cells)
