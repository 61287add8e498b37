"""`vitpipe artifacts` and `vitpipe lineage`: artifacts, what they were made from, and what was made from them."""

import re
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.tree import Tree

from components.errors import NotFound
from components.model.serving_folder import ModelId, read_record
from pipeline.console.terminal import print_json, print_line, printable
from pipeline.drawing.lineage import Branch, as_json, dot, mermaid, tree
from pipeline.metadata.reader import Reader, reader
from pipeline.metadata.records import Artifact
from pipeline.metadata.stores import store_of
from vitpipe.cli.options import Json, OnePipeline, Runs
from vitpipe.cli.tables import print_rows, print_whole, when

app = typer.Typer(help="What the runs made, from ML Metadata.", no_args_is_help=True)


class Format(StrEnum):
    TEXT = "text"
    MERMAID = "mermaid"
    DOT = "dot"
    JSON = "json"


@app.command("list")
def list_artifacts(
    type_name: Annotated[str | None, typer.Option("--type", help="Of this type only, such as Model.")] = None,
    state: Annotated[str | None, typer.Option(help="In this state only: live, deleted, ...")] = None,
    since: Annotated[datetime | None, typer.Option(help="Made at this time or later.")] = None,
    until: Annotated[datetime | None, typer.Option(help="Made before this time.")] = None,
    properties: Annotated[
        list[str] | None, typer.Option("--property", metavar="NAME=VALUE", help="Whose property is this.")
    ] = None,
    limit: Annotated[int, typer.Option(min=0, max=1_000_000, help="How many; 0 for all.")] = 20,
    pipeline: OnePipeline = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Artifacts, the newest first."""
    pairs = []
    for text in properties or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise NotFound(f"--property {text}: write it as name=value, for example span=1")
        pairs.append((name, value))
    with reader(store_of(pipeline, runs)) as store:
        found = store.artifacts(type_name, state, _ms(since) or 0, _ms(until), pairs, limit or None)
        if not found and type_name and type_name not in (types := store.artifact_types()):
            raise NotFound(f"--type {type_name}: no artifact is of that type; there are {', '.join(types)}")
    if as_json:
        print_json([_in_full(one) for one in found])
        return
    print_rows(
        ("id", "type", "made", "state", "where"),
        [(str(one.id), one.type, when(one.created), one.state, one.uri) for one in found],
    )


@app.command()
def show(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Its id, v3 for a pushed version, or span-2.")],
    pipeline: OnePipeline = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """One artifact with all its properties."""
    address = store_of(pipeline, runs)
    with reader(address) as store:
        found = _find(store, artifact, address.file.parent / "serving" if address.file else None)
    if as_json:
        print_json(_in_full(found))
        return
    print_line(f"{found.type} {found.id}: {found.state}, made {when(found.created)}")
    print_line(found.uri)
    print_rows(("property", "value"), [(name, str(value)) for name, value in sorted(found.properties.items())])


def lineage(
    artifact: Annotated[str, typer.Argument(metavar="ARTIFACT", help="Its id, v3 for a pushed version, or span-2.")],
    up: Annotated[bool, typer.Option("--up/--down", help="What it was made of, or what came of it.")] = True,
    as_format: Annotated[Format, typer.Option("--format")] = Format.TEXT,
    pipeline: OnePipeline = None,
    runs: Runs = Path("runs"),
    json_: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
) -> None:
    """From a model back to its images, code and settings; from a span on to every model that ate it."""
    address = store_of(pipeline, runs)
    with reader(address) as store:
        start = _find(store, artifact, address.file.parent / "serving" if address.file else None)
        found = store.lineage(start.id, "up" if up else "down")
        involved = store.runs_named(sorted(set(found.runs.values())))
    if as_format is Format.JSON or json_:
        print_json(as_json(found, involved))
    elif as_format is Format.MERMAID:
        print(mermaid(found))
    elif as_format is Format.DOT:
        print(dot(found))
    else:
        print_whole(_rich(tree(found, up)))
        for run in involved:
            code, reason = run.facts.get("code_version", "unknown"), run.facts.get("reason")
            print_line(
                f"run {run.name}: code {code}, settings by `vitpipe runs show {run.name} --json`"
                + (f", {reason}" if reason else "")
            )


def _find(store: Reader, text: str, serving: Path | None) -> Artifact:
    """Raises NotFound."""
    if text.isdecimal() and len(text) < 19:  # more is no id in a database
        if found := store.artifact(int(text)):
            return found
        raise NotFound(f"no artifact {text}; `vitpipe artifacts list` shows the newest")
    if match := re.fullmatch(r"v(?:ersion-)?(\d+)", text):
        return _pushed(store, match[1], serving)
    if match := re.fullmatch(r"span-(\d+)", text):
        spans = store.artifacts("Examples", properties=[("span", match[1])])
        if whole := [one for one in spans if "train" in str(one.properties.get("split_names"))] or spans:
            return whole[0]
        raise NotFound(f"no run has read {text}; `vitpipe artifacts list --type Examples` shows what was read")
    raise NotFound(f"{text}: give the id of an artifact, v3 for version 3 of the pushed models, or span-2 for a span")


def _pushed(store: Reader, version: str, serving: Path | None) -> Artifact:
    """What a run pushed as that version; where a person did, the model that it is."""
    if found := store.artifacts("PushedModel", properties=[("pushed_version", version), ("pushed", "1")]):
        return found[0]  # of several, the newest: a folder that was moved away is numbered from 1 again
    if serving and (serving / version).is_dir():
        try:
            made = read_record(serving / version).model
        except ValueError as error:
            raise NotFound(str(error)) from None
        for model in store.artifacts("Model"):
            if made == ModelId(uri=model.uri, created_ms=model.created_ms):
                return model
    known = [
        one.properties.get("pushed_version") for one in store.artifacts("PushedModel", properties=[("pushed", "1")])
    ]
    raise NotFound(f"no version {version} was pushed; there are {', '.join(map(str, reversed(known))) or 'none'}")


def _in_full(one: Artifact) -> dict[str, object]:
    return {**one.__dict__, "properties": dict(one.properties)}


def _rich(branch: Branch) -> Tree:
    line, below = branch
    root = Tree(printable(line))
    for one in below:
        root.children.append(_rich(one))
    return root


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
