"""`vitpipe run`: the whole graph on this machine."""

import difflib
import json
import os
import shutil
from pathlib import Path
from typing import Annotated

import typer
import yaml

from components.data_bounds import CHECKS, UNUSABLE
from pipeline import start
from pipeline.config import Settings, SettingsError, load
from pipeline.exits import Exit
from pipeline.logs import own_stderr, redirected, shown
from pipeline.metadata.address import check_server


def run(
    config: Annotated[str, typer.Option("--config", "-c", metavar="PRESET|FILE")] = "sample",
    data: Annotated[Path | None, typer.Option(help="Data folder, instead of the setting data.dir.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", metavar="A.B=C", help="Override a setting.")] = None,
    span: Annotated[int | None, typer.Option(help="Span to train on; the newest when not given.")] = None,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="A check of the data gate that shall not stop this run.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it is accepted: kept in ML Metadata.")] = "",
    force: Annotated[list[str] | None, typer.Option(metavar="NODE", help="Run it whatever the cache holds.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show settings and nodes, run nothing.")] = False,
) -> None:
    """Train, gate and push on this machine."""
    chosen_data: dict[str, object] = {} if data is None else {"dir": str(data.expanduser())}
    if span is not None:
        chosen_data["span"] = span
    settings = load(config, overrides, data=chosen_data)
    chosen = start.choose_span(settings)
    accepted = _accepted(accept or [], reason)
    if dry_run:
        raise typer.Exit(_dry_run(settings, chosen))
    with start.alone(settings):
        raise typer.Exit(_run(settings, chosen, accepted, force or []))


def _dry_run(settings: Settings, span: int) -> Exit:
    with redirected(Path(os.devnull)):
        from pipeline.build import compile_graph

        graph = compile_graph(settings, span)
    nodes = [node.pipeline_node.node_info.id for node in graph.nodes]
    print(yaml.safe_dump(json.loads(settings.resolved(span)), sort_keys=False), end="")
    print(f"store: {settings.store}\nnodes: {', '.join(nodes)}")
    return Exit.OK


def _accepted(checks: list[str], reason: str) -> dict[str, str]:
    """The reason by check. Raises SettingsError."""
    if bool(checks) != bool(reason.strip()):
        raise SettingsError('--accept CHECK and --reason "..." go together: say why the data are right all the same')
    for check in checks:
        if check in UNUSABLE:
            raise SettingsError(f"--accept {check}: nothing can be trained on such examples; remove them")
        if check not in CHECKS:
            nearest = difflib.get_close_matches(check, CHECKS, n=1)
            hint = f"did you mean {nearest[0]}? " if nearest else ""
            raise SettingsError(f"--accept {check}: no such check; {hint}the checks are {', '.join(CHECKS)}")
    return dict.fromkeys(checks, reason.strip())


def _run(settings: Settings, span: int, accepted: dict[str, str], force: list[str]) -> Exit:
    folder = settings.folder
    stderr = own_stderr()
    check_server(settings.store)
    print("starting TFX ...", file=stderr)
    startup_log = folder / "logs" / "startup.log"
    with redirected(startup_log):
        import tensorflow as tf

        from pipeline import local
        from pipeline.build import checkpoints_folder, compile_graph
        from pipeline.cli.display import Display
        from pipeline.metadata import summary
        from pipeline.metadata.reader import reader
        from pipeline.metadata.store import MetadataStore, record
        from pipeline.verdict import verdict

        gpus = tf.config.list_physical_devices("GPU")
        graph = compile_graph(settings, span, uncached=force, accepted=accepted)
    nodes = [node.pipeline_node.node_info.id for node in graph.nodes]
    for name in {*force} - {*nodes}:
        raise SettingsError(f"--force {name}: no such node; the graph has {', '.join(nodes)}")
    if settings.training.require_gpu and not gpus:
        raise SettingsError(
            "training.require_gpu is true and TensorFlow sees no GPU (`vitpipe doctor` says what it sees): run on a "
            "GPU worker, take the preset cifar10-cpu, or --set training.require_gpu=false"
        )

    if "Trainer" in force:  # a training that is forced starts anew
        shutil.rmtree(checkpoints_folder(settings), ignore_errors=True)
    run_id = start.new_run_id()
    logs = start.logs_folder(settings, run_id)
    logs.mkdir(parents=True)
    startup_log.rename(logs / "startup.log")
    facts = start.facts(settings, span, accepted, trigger="manual", reason="")
    start.write_facts(logs, facts, settings, span)
    print(f"run {run_id} of {settings.name}: span {span} of {settings.data.dir}, logs in {shown(logs)}", file=stderr)
    address = settings.store
    connection = address.connection_config()
    with Display(stderr) as display:
        runner = local.Runner(
            run_id=run_id,
            connection=connection,
            logs=logs,
            facts={**facts, "settings": settings.resolved(span), summary.PROCESS: summary.process()},
            started=display.started,
            ended=display.ended,
        )
        runner.run_with_ir(graph)
    with reader(address) as store:
        own = store.run(run_id)
    assert own is not None  # the runner has recorded its facts
    result = verdict(own, runner.outcomes)
    record(MetadataStore(connection), run_id, **{summary.EXIT: str(int(result.exit))})
    for line in result.lines:
        print(line)
    if result.node:
        print(f"look in {shown(logs / result.node)}.log")
    return result.exit
