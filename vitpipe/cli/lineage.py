"""`vitpipe lineage`: what an artifact was made from, and what was made from it."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.tree import Tree

from pipeline.console.logs import runs_option
from pipeline.console.terminal import print_json, print_line, printable
from pipeline.drawing.lineage import Branch, as_json, describe, dot, mermaid, tree
from pipeline.metadata.reader import reader
from pipeline.metadata.stores import store_of
from vitpipe.cli.artifacts import ArtifactName, find_artifact, pipeline_on, windows_with
from vitpipe.cli.options import OnePipeline, Runs
from vitpipe.cli.panels import LOOK, example
from vitpipe.cli.tables import print_unwrapped

app = typer.Typer()


class Format(StrEnum):
    """Output formats of a lineage."""

    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


@app.command(
    rich_help_panel=LOOK,
    epilog=example("vitpipe lineage v3", "vitpipe lineage span-2 --down --format mermaid"),
)
def lineage(
    artifact: ArtifactName,
    up: Annotated[
        bool, typer.Option("--up/--down", help="Show what it was made from, or what was made from it.")
    ] = True,
    as_format: Annotated[Format, typer.Option("--format", help="Output format.")] = Format.TEXT,
    pipeline: OnePipeline = None,
    runs: Runs = Path("runs"),
    json_: Annotated[bool, typer.Option("--json", help="Same as `--format json`.")] = False,
) -> None:
    """Trace an artifact back to its origins, or forward to everything that was made from it.

    For example from a model back to its images, code and settings, or from a span to all models trained on it.
    """
    address = store_of(pipeline, runs)
    with reader(address) as store:
        only = pipeline_on(address, store, pipeline)
        start = find_artifact(store, address, runs, artifact, only)
        result = store.lineage(start.id, "up" if up else "down")
        involved = store.runs_named(sorted(set(result.runs.values())))
        windows = windows_with(store, artifact.removeprefix("span-"), only) if artifact.startswith("span-") else []
    if as_format is Format.JSON or json_:
        print_json(as_json(result, involved))
    elif as_format is Format.MERMAID:
        print(mermaid(result))
    elif as_format is Format.DOT:
        print(dot(result))
    else:
        print_unwrapped(_rich(tree(result, up)))
        for window in windows:
            if window.id != start.id:
                print_line(f"{artifact} also belongs to a window: {describe(window)}")
        for run in involved:
            code, reason = run.facts.get("code_version", "unknown"), run.facts.get("reason")
            print_line(
                f"run {run.name}: code {code}, settings by `vitpipe runs show {run.name} --json{runs_option(runs)}`"
                + (f", {reason}" if reason else "")
            )


def _rich(branch: Branch) -> Tree:
    line, below = branch
    root = Tree(printable(line))
    root.children.extend(_rich(child) for child in below)
    return root
