"""`vitpipe run`: the whole graph on this machine."""

import hashlib
import json
import os
from pathlib import Path
from typing import Annotated

import filelock
import typer
import yaml

from components import ingest
from pipeline import sources
from pipeline.config import Settings, SettingsError, load
from pipeline.exits import Exit
from pipeline.logs import own_stderr, redirected


def run(
    config: Annotated[str, typer.Option("--config", "-c", metavar="PRESET|FILE")] = "sample",
    data: Annotated[Path | None, typer.Option(help="Data folder, instead of the setting data.dir.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting.")] = None,
    span: Annotated[int | None, typer.Option(help="Span to train on; the newest when not given.")] = None,
    from_nodes: Annotated[list[str] | None, typer.Option("--from", metavar="NODE", help="First node to run.")] = None,
    to_nodes: Annotated[list[str] | None, typer.Option("--to", metavar="NODE", help="Last node to run.")] = None,
    force: Annotated[list[str] | None, typer.Option(metavar="NODE", help="Run it whatever the cache holds.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show settings and nodes, run nothing.")] = False,
) -> None:
    """Train, gate and push on this machine."""
    flags = list(overrides or [])
    if data is not None:
        flags.append(f"data.dir={data}")
    if span is not None:
        flags.append(f"data.span={span}")
    settings = load(config, flags)
    chosen = _choose_span(settings)
    folder = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / ".lock", timeout=0)
    try:
        with lock:
            raise typer.Exit(_run(settings, chosen, from_nodes or [], to_nodes or [], force or [], dry_run))
    except filelock.Timeout:
        raise SettingsError(
            f"another run of {settings.name} is going on in {folder}: wait for it, or run under another name with "
            f"--set name={settings.name}-2"
        ) from None


def _run(
    settings: Settings, span: int, from_nodes: list[str], to_nodes: list[str], force: list[str], dry_run: bool
) -> Exit:
    folder = settings.folder
    stderr = own_stderr()
    print("starting TFX ...", file=stderr)
    startup_log = folder / "logs" / "startup.log"
    with redirected(startup_log):
        import tensorflow as tf

        from pipeline import local, metadata
        from pipeline.build import compile_graph
        from pipeline.cli.display import Display
        from pipeline.verdict import verdict

        gpus = tf.config.list_physical_devices("GPU")
        graph = compile_graph(settings, span, uncached=force)
    nodes = [node.pipeline_node.node_info.id for node in graph.nodes]
    for name in {*from_nodes, *to_nodes, *force} - {*nodes}:
        raise SettingsError(f"no node {name} in the graph; it has {', '.join(nodes)}")
    if dry_run:
        print(yaml.safe_dump(_resolved(settings, span), sort_keys=False) + f"nodes: {', '.join(nodes)}")
        return Exit.OK
    if settings.training.require_gpu and not gpus:
        raise SettingsError(
            "training.require_gpu is true and TensorFlow sees no GPU (`vitpipe doctor` says what it sees): run on a "
            "GPU worker, take the preset cifar10-cpu, or --set training.require_gpu=false"
        )

    run_id = local.new_run_id()
    logs = folder / "logs" / run_id
    logs.mkdir(parents=True)
    startup_log.rename(logs / "startup.log")
    (logs / "settings.yaml").write_text(yaml.safe_dump(_resolved(settings, span), sort_keys=False))
    print(f"run {run_id} of {settings.name}: span {span} of {settings.data.dir}, logs in {_shown(logs)}", file=stderr)
    connection = metadata.sqlite(folder / "metadata.db")
    with Display(stderr) as display:
        runner = local.Runner(
            run_id=run_id,
            connection=connection,
            logs=logs,
            facts=_facts(settings, span),
            started=display.started,
            ended=display.ended,
        )
        runner.run_with_ir(graph, local.partial_run(from_nodes, to_nodes))
    result = verdict(metadata.MetadataStore(connection), runner.outcomes)
    for line in result.lines:
        print(line)
    if result.node:
        print(f"look in {_shown(logs / result.node)}.log")
    return result.exit


def _choose_span(settings: Settings) -> int:
    """The span to train on. Raises SettingsError where it, or the gate's, is not there."""
    there = ingest.spans(settings.data.dir)
    if not there:
        raise SettingsError(
            f"no data in {settings.data.dir}: make some with `vitpipe data prepare cifar10|images|sample "
            f"--out {settings.data.dir}`, or name another folder with --data"
        )
    span = settings.data.span if settings.data.span is not None else there[-1]
    for key, wanted in ("data.span", span), ("data.gate_span", settings.data.gate_span):
        if wanted not in there:
            raise SettingsError(f"{key}: no span {wanted} in {settings.data.dir}, it has {', '.join(map(str, there))}")
    return span


def _resolved(settings: Settings, span: int) -> dict:
    resolved = settings.model_dump(mode="json")
    resolved["data"]["span"] = span
    return resolved


def _facts(settings: Settings, span: int) -> dict[str, str]:
    """What a person must be able to say later of this run."""

    def manifest(number: int) -> str:
        return hashlib.sha256((settings.data.dir / f"span-{number}" / "manifest.json").read_bytes()).hexdigest()

    return {
        "settings": json.dumps(_resolved(settings, span), sort_keys=True),
        "code_version": sources.code_version(),
        "lock_digest": sources.lock_digest(),
        "data_digest": manifest(span),
        "gate_data_digest": manifest(settings.data.gate_span),
        "trigger": "manual",
        "reason": "",
    }


def _shown(path: Path) -> str:
    """Short where it lies below the current folder."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)
