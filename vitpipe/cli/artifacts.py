"""`vitpipe artifacts`: list and inspect the artifacts in ML Metadata."""

import re
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from components.data.span_properties import EARLIER_SPANS
from components.errors import NotFound
from components.model.serving_folder import ModelId, read_record
from pipeline.console.terminal import print_json, print_line
from pipeline.metadata.address import Address
from pipeline.metadata.properties import UnreadableError, read
from pipeline.metadata.reader import Reader, reader
from pipeline.metadata.records import Artifact
from pipeline.metadata.stores import store_of
from vitpipe.cli.options import Json, Limit, OnePipeline, Runs
from vitpipe.cli.panels import LOOK, example
from vitpipe.cli.tables import local_time, print_rows

app = typer.Typer(
    name="artifacts",
    help="List and inspect the artifacts in ML Metadata.",
    no_args_is_help=True,
    rich_help_panel=LOOK,
)

ArtifactName = Annotated[
    str,
    typer.Argument(metavar="ARTIFACT", help="Id of the artifact, `v3` for pushed version 3, or `span-2` for span 2."),
]


@app.command(
    "list",
    rich_help_panel=LOOK,
    epilog=example("vitpipe artifacts list --type Model --limit 5", "vitpipe artifacts list --property span=2"),
)
def list_artifacts(
    type_name: Annotated[
        str | None, typer.Option("--type", metavar="TYPE", help="Only artifacts of this type, such as `Model`.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option(metavar="STATE", help="Only artifacts in this state, such as `live` or `deleted`."),
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            metavar="TIME", help="Only artifacts created at this time or later, such as `2026-07-31T09:30:00`."
        ),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(metavar="TIME", help="Only artifacts created before this time.")
    ] = None,
    properties: Annotated[
        list[str] | None,
        typer.Option("--property", metavar="NAME=VALUE", help="Only artifacts with this property. Repeatable."),
    ] = None,
    limit: Limit = 20,
    pipeline: OnePipeline = None,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """List artifacts, the newest first."""
    pairs = []
    for text in properties or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise NotFound(f"--property {text} has no value: write NAME=VALUE, for example span=1")
        pairs.append((name, value))
    address = store_of(pipeline, runs)
    with reader(address) as store:
        artifacts = store.artifacts(
            type_name,
            state,
            _milliseconds(since) or 0,
            _milliseconds(until),
            pairs,
            limit or None,
            pipeline=pipeline_on(address, store, pipeline),
        )
        if not artifacts and type_name and type_name not in (types := store.artifact_types()):
            raise NotFound(f"--type {type_name}: no artifact is of that type; there are {', '.join(types)}")
    if as_json:
        print_json([_as_json(artifact) for artifact in artifacts])
        return
    print_rows(
        ("id", "type", "created", "state", "uri"),
        [
            (str(artifact.id), artifact.type, local_time(artifact.created), artifact.state, artifact.uri)
            for artifact in artifacts
        ],
    )


@app.command(rich_help_panel=LOOK, epilog=example("vitpipe artifacts show v3"))
def show(name: ArtifactName, pipeline: OnePipeline = None, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Show one artifact and its properties."""
    address = store_of(pipeline, runs)
    with reader(address) as store:
        artifact = find_artifact(store, address, runs, name, pipeline_on(address, store, pipeline))
    if as_json:
        print_json(_as_json(artifact))
        return
    print_line(f"{artifact.type} {artifact.id}: {artifact.state}, created {local_time(artifact.created)}")
    print_line(artifact.uri)
    print_rows(("property", "value"), [(key, str(value)) for key, value in sorted(artifact.properties.items())])


def find_artifact(store: Reader, address: Address, runs: Path, name: str, pipeline: str | None) -> Artifact:
    """Find an artifact by the name that a user gave.

    Args:
        store: Reader of the store.
        address: Address of the store.
        runs: Folder of the run folders, which have the pushed models.
        name: Id of the artifact, `v3` for pushed version 3, or `span-2` for span 2.
        pipeline: Artifacts of this pipeline only, see `pipeline_on`; None for all.

    Raises:
        NotFound: If the store has no such artifact, or several pipelines may have one of that name.
    """
    if name.isdecimal() and len(name) < 19:  # a longer number is not a valid id in the database
        if artifact := store.artifact(int(name)):
            return artifact
        raise NotFound(f"no artifact {name}: `vitpipe artifacts list` shows the newest")
    version, span = re.fullmatch(r"v(?:ersion-)?(\d+)", name), re.fullmatch(r"span-(\d+)", name)
    if not version and not span:
        raise NotFound(
            f"{name} is not the name of an artifact: write an id, v3 for pushed version 3, or span-2 for span 2"
        )
    if pipeline is None and not address.file and len(known := store.pipelines()) > 1:
        raise NotFound(f"{name} may belong to several pipelines: choose one with --pipeline {'|'.join(known)}")
    if version:
        return _pushed_model(store, address, runs, version[1], pipeline)
    assert span
    examples = store.artifacts("Examples", properties=[("span", span[1])], pipeline=pipeline)
    # The gate reads only the test split of its span. An artifact with the training images says more.
    with_training = [artifact for artifact in examples if "train" in str(artifact.properties.get("split_names"))]
    if found := with_training or windows_with(store, span[1], pipeline) or examples:
        return found[0]
    raise NotFound(f"no run has read {name}: `vitpipe artifacts list --type Examples` shows the spans that were read")


def pipeline_on(address: Address, store: Reader, pipeline: str | None) -> str | None:
    """Return the pipeline to which queries are restricted; None for a file, which holds one pipeline.

    For a file, `--pipeline` names the run folder, which may have been renamed since the pipeline ran.

    Args:
        address: Address of the store.
        store: Reader of the store.
        pipeline: Value of `--pipeline`, if given.

    Raises:
        NotFound: If the server has no such pipeline.
    """
    if address.file or pipeline is None:
        return None
    if pipeline not in (known := store.pipelines()):
        raise NotFound(f"--pipeline {pipeline}: no such pipeline; there are {', '.join(known) or 'none'}")
    return pipeline


def windows_with(store: Reader, span: str, pipeline: str | None) -> list[Artifact]:
    """Return the examples of all windows that a span belongs to as an earlier span, the newest first.

    Args:
        store: Reader of the store.
        span: Number of the span.
        pipeline: Examples of this pipeline only; None for all.
    """
    examples = store.artifacts("Examples", pipeline=pipeline)
    windows = [artifact for artifact in examples if EARLIER_SPANS in artifact.properties]
    found = []
    for window in windows:
        with suppress(UnreadableError):  # anyone may write to a store
            if span in read(window.properties, EARLIER_SPANS, dict[str, str]):
                found.append(window)
    return found


def _pushed_model(store: Reader, address: Address, runs: Path, version: str, pipeline: str | None) -> Artifact:
    """Return the artifact that a run pushed as `version`, or the model that a person pushed as it."""
    properties = [("pushed_version", version), ("pushed", "1")]
    if pushed := store.artifacts("PushedModel", properties=properties, pipeline=pipeline):
        return pushed[0]  # the newest: versions start at 1 again after the serving folder was moved away
    names = [pipeline] if pipeline else store.pipelines()
    serving = address.run_folder(runs, names[0]) / "serving" if names else None
    if serving and (serving / version).is_dir():
        try:
            model_id = read_record(serving / version).model
        except ValueError as error:
            raise NotFound(str(error)) from None
        for model in store.artifacts("Model", pipeline=pipeline):
            if model_id == ModelId(uri=model.uri, created_ms=model.created_ms):
                return model
    known = [
        str(artifact.properties.get("pushed_version"))
        for artifact in reversed(store.artifacts("PushedModel", properties=[("pushed", "1")], pipeline=pipeline))
    ]
    raise NotFound(f"no version {version} was pushed; the pushed versions are: {', '.join(known) or 'none'}")


def _as_json(artifact: Artifact) -> dict[str, object]:
    return {**artifact.__dict__, "properties": dict(artifact.properties)}


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else int(moment.timestamp() * 1000)
