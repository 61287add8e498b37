"""`vitpipe run`: the whole graph on this machine."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from pipeline import start, strict_yaml
from pipeline.cli.options import Config, Data, DryRun, Overrides, Span
from pipeline.config import Settings, SettingsError, load
from pipeline.exits import Exit
from pipeline.logs import own_stderr, redirected, shown
from pipeline.metadata.address import StoreError, check_server
from pipeline.metadata.reader import reader
from pipeline.metadata.stores import check_store
from pipeline.problems import explained
from pipeline.pushed import record_pushes
from pipeline.terminal import print_line
from pipeline.warm_start import plan


def run(
    config: Config = "sample",
    data: Data = None,
    overrides: Overrides = None,
    span: Span = None,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="A check of the data gate that shall not stop this run.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it is accepted: kept in ML Metadata.")] = "",
    force: Annotated[list[str] | None, typer.Option(metavar="NODE", help="Run it whatever the cache holds.")] = None,
    dry_run: DryRun = False,
    trigger: Annotated[
        Literal["manual", "span", "schedule"], typer.Option(hidden=True, help="What started it; --reason is then why.")
    ] = "manual",
) -> None:
    """Train, gate and push on this machine."""
    chosen_data: dict[str, object] = {} if data is None else {"dir": str(data.expanduser())}
    if span is not None:
        chosen_data["span"] = span
    settings = load(config, overrides, data=chosen_data)
    chosen = start.choose_span(settings)
    if reason and not accept and trigger == "manual":
        raise SettingsError('--accept CHECK and --reason "..." go together: name the check that shall not stop the run')
    accepted = start.accepted(accept or [], reason, flag="--")
    if warm_start := plan(settings, chosen):
        print_line(warm_start, sys.stderr)
    settings = _with_backbone(settings, overrides or [])  # last: to read a backbone takes seconds
    if dry_run:
        raise typer.Exit(_dry_run(settings, chosen))
    signal.signal(signal.SIGTERM, _end)
    with start.only_run(settings):
        check_store(settings.store)
        try:
            code = _run(settings, chosen, accepted, force or [], trigger, reason)
        except Exception as error:
            if (text := explained(error, settings.folder)) is None:
                raise
            raise StoreError(text) from error
    raise typer.Exit(code)


def _with_backbone(settings: Settings, flags: list[str]) -> Settings:
    if not settings.finetune.source:
        for flag in flags:
            if flag.startswith("finetune.") and not flag.startswith("finetune.source="):
                raise SettingsError(f"--set {flag}: without finetune.source nothing is fine-tuned; name the backbone")
        return settings
    with redirected(Path(os.devnull)):
        from pipeline.backbone import fitted

        return fitted(settings, flags)


def _dry_run(settings: Settings, span: int) -> Exit:
    with redirected(Path(os.devnull)):
        from pipeline.build import compile_graph

        graph = compile_graph(settings, span)
    nodes = [node.pipeline_node.node_info.id for node in graph.nodes]
    print(strict_yaml.dump(json.loads(settings.resolved(span))), end="")
    print_line(f"store: {settings.store}")
    print_line(f"nodes: {', '.join(nodes)}")
    return Exit.OK


def _end(*_: object) -> NoReturn:
    """Asked to end: what is open is closed, and the node that runs has failed. Whoever asks twice changes nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit(128 + signal.SIGTERM)


def _run(settings: Settings, span: int, accepted: dict[str, str], force: list[str], trigger: str, reason: str) -> Exit:
    folder = settings.folder
    stderr = own_stderr()
    check_server(settings.store)
    warning = start.settle(settings)
    print("starting TFX ...", file=stderr)
    startup_log = folder / "logs" / "startup.log"
    with redirected(startup_log):
        import tensorflow as tf

        from pipeline import local
        from pipeline.build import checkpoints_folder, compile_graph
        from pipeline.cli.display import Display
        from pipeline.metadata import summary
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
    facts = start.facts(settings, span, accepted, trigger, reason=reason, process=summary.process())
    if warning:
        facts[summary.WARNING] = warning
    start.write_facts(logs, facts)
    print_line(f"run {run_id} of {settings.name}: span {span} of {settings.data.dir}, logs in {shown(logs)}", stderr)
    address = settings.store
    connection = address.connection_config()
    record_pushes(address, folder / "serving")
    with Display(stderr) as display:
        runner = local.Runner(
            run_id=run_id,
            connection=connection,
            logs=logs,
            facts=facts,
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
        print_line(line)
    if result.node:
        print_line(f"look in {shown(logs / result.node)}.log")
    return result.exit
