"""`vitpipe kfp`: the same graph on Kubeflow Pipelines. Nothing here imports kfp or TFX at module level."""

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from components.data.ingest import MAX_SPAN
from components.errors import ClusterError, Exit, NotFound, UsageError
from pipeline import provenance, run_facts
from pipeline.console.display import Display
from pipeline.console.logs import own_stderr, redirected
from pipeline.console.terminal import print_line
from pipeline.settings import Settings, load
from vitpipe.cli.kfp_tables import print_run, print_runs, print_schedule, times
from vitpipe.cli.options import Config, Json, Overrides

if TYPE_CHECKING:
    from kubeflow.client import Client, PipelineVersion

app = typer.Typer(help="The same graph on Kubeflow Pipelines.", no_args_is_help=True)

Package = Annotated[
    Path | None, typer.Option(metavar="FILE", help="What `vitpipe kfp compile` wrote, instead of compiling again.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Wait for its end, and end with its exit code.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Id or name of the run, or how one begins, or `last`.")]

_SHOWN = 20  # runs in a listing
_INTERRUPTED = 128 + signal.SIGINT


@app.command("compile")
def compile_package(
    config: Config = "sample",
    overrides: Overrides = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; else it is printed.")
    ] = None,
) -> None:
    """The package of a preset: what a run on a cluster is made of, with no secret in it."""
    text = _compiled(load(config, overrides))
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}") from None
    print_line(f"{output}: {len(text.encode()):,} bytes; `vitpipe kfp submit --package {output}` runs it", sys.stderr)


@app.command()
def submit(
    config: Config = "sample",
    overrides: Overrides = None,
    span: Annotated[
        int | None, typer.Option(min=1, max=MAX_SPAN, help="Span to train on; the newest when not given.")
    ] = None,
    accept: Annotated[
        list[str] | None, typer.Option(metavar="CHECK", help="A check of the data gate that shall not stop this run.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Why this run: kept in ML Metadata.")] = "",
    take_over: Annotated[
        str, typer.Option(metavar="RUN", help="A run that seems to go on, and does not, whatever it seems.")
    ] = "",
    package: Package = None,
    watch: Watch = False,
) -> None:
    """Deploy what changed and start a run; a schedule moves to the new version."""
    settings = load(config, overrides)
    accepted = run_facts.accepted_checks(accept or [], reason, flag="--")
    parameters: dict[str, Any] = {"trigger": "manual", "reason": reason.strip()}
    if span is not None:
        parameters["span"] = span
    if accepted:
        parameters["accept"] = ",".join(accepted)
    if take_over:
        parameters["take_over"] = take_over
    with _client(settings) as (client, display):
        from kubeflow import schedule

        version = _deploy(client, settings, package, display)
        display.started("starting the run")
        run = client.start(version, f"{settings.name}-{run_facts.new_run_id()}", parameters)
        display.idle()
        print_line(f"run {run.id}")
        print_line(client.link(run.id))
        display.started("looking for a schedule")
        try:
            if schedule.move(client, version):
                display.line(f"the schedule of {settings.name} is moved to {version.name}")
        except ClusterError as error:
            display.line(f"its schedule is not moved, which the next submit or schedule does: {error}")
        if watch:
            raise typer.Exit(_watch(client, run.id, display, _again(config, overrides)))


@app.command()
def status(
    run: Annotated[str | None, typer.Argument(metavar="[RUN]", help="As for `logs`; all when not given.")] = None,
    config: Config = "sample",
    overrides: Overrides = None,
    watch: Watch = False,
    as_json: Json = False,
) -> None:
    """Runs of the pipeline, the newest first; or the nodes of one."""
    with _client(load(config, overrides)) as (client, display):
        display.started("looking for the run" if run or watch else "listing the runs")
        if run is None and not watch:
            runs = client.runs(limit=_SHOWN)
            if not runs and not as_json:
                client.find("last")  # says what to do
            display.idle()
            return print_runs(runs, client, as_json)
        found = client.find(run or "last")
        if watch:
            raise typer.Exit(_watch(client, found.id, display, _again(config, overrides), as_json))
        display.idle()
        print_run(found, client, as_json)


@app.command()
def logs(
    run: RunName,
    node: Annotated[str | None, typer.Argument(metavar="[NODE]", help="As `status` names it; else all.")] = None,
    config: Config = "sample",
    overrides: Overrides = None,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run, or the node, has ended.")] = False,
) -> None:
    """What the steps of a run write: each attempt at a node under its name."""
    with _client(load(config, overrides)) as (client, display):
        from kubeflow.watch import read_logs

        display.started("looking for the run")
        found = client.find(run)
        nodes = [task.node for task in found.tasks]
        if node is not None and node not in nodes:
            raise NotFound(f"no node {node} in run {found.id}; it has {', '.join(nodes)}")
        heading = ""
        for title, text in read_logs(client, found, node, follow=follow, unread=display.line):
            display.idle()
            if title != heading:
                print_line(f"==> {title} <==")
            heading = title
            print(text, flush=True)
            if follow:
                display.started("following")
        if not heading:
            display.line("nothing is written so far")


@app.command("schedule")
def set_schedule(
    config: Config = "sample",
    overrides: Overrides = None,
    cron: Annotated[
        str, typer.Option(metavar="FIELDS", help='In UTC: minute, hour, day, month, weekday, as "0 3 * * *".')
    ] = "",
    every: Annotated[str, typer.Option(metavar="TIME", help="As 90m, 6h or 1d12h.")] = "",
    reason: Annotated[str, typer.Option(help="Why its runs: kept in ML Metadata.")] = "",
    package: Package = None,
    show: Annotated[bool, typer.Option("--list", help="Show the schedule.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="No runs until --resume.")] = False,
    resume: Annotated[bool, typer.Option("--resume")] = False,
    delete: Annotated[bool, typer.Option("--delete")] = False,
    as_json: Json = False,
) -> None:
    """Runs at set times: one at a time, one for all that were missed, of the version deployed last."""
    asked = {"--cron": cron, "--every": every, "--list": show, "--pause": pause, "--resume": resume, "--delete": delete}
    if len(given := [name for name, value in asked.items() if value]) != 1:
        raise UsageError(f"give one of {', '.join(asked)}" + (f", and not {' and '.join(given)}" if given else ""))
    from kubeflow.cron import seconds, six_fields

    settings = load(config, overrides)
    fields, interval_s = six_fields(cron) if cron else "", seconds(every) if every else 0
    with _client(settings) as (client, display):
        from kubeflow import schedule

        if cron or every:
            version = _deploy(client, settings, package, display)
            parameters = {"trigger": "schedule", "reason": reason.strip()}
            new = schedule.put(client, version, parameters, cron=fields, interval_s=interval_s)
            display.idle()
            print_line(f"{settings.name} runs {times(fields, interval_s)}{'' if new else ', as before'}")
            return
        display.started("looking for the schedule")
        found = schedule.current(client)
        display.idle()
        if show:
            return print_schedule(client, found, as_json)
        if found is None:
            raise NotFound(f'{settings.name} has no schedule: `vitpipe kfp schedule --cron "0 3 * * *"` makes one')
        if delete:
            schedule.delete(client)
            print_line(f"the schedule of {settings.name} is deleted")
        elif pause:
            client.disable(found)
            print_line(f"the schedule of {settings.name} is paused")
        else:
            client.enable(found)
            print_line(f"{settings.name} runs {times(found.cron, found.interval_s)}")


@contextmanager
def _client(settings: Settings) -> Iterator[tuple["Client", Display]]:
    """Yield a client of the server in the settings, and the display that shows its progress."""
    with own_stderr() as stderr, Display(stderr) as display:
        display.started(f"asking {settings.kubeflow.endpoint}")
        from kubeflow.client import Client

        yield Client(settings, display.line), display


def _deploy(client: "Client", settings: Settings, package: Path | None, display: Display) -> "PipelineVersion":
    display.started("compiling the package")
    text = _read(package, settings) if package else _compiled(settings)
    display.started("deploying it")
    version = client.deploy(text, provenance.code_version())
    display.line(f"{'deployed' if version.new else 'deployed before'}: version {version.name}")
    return version


def _compiled(settings: Settings) -> str:
    with redirected(Path(os.devnull)):
        from kubeflow.compile import package

        return package(settings)


def _read(package: Path, settings: Settings) -> str:
    try:
        if package.exists() and not package.is_file():  # reading a device may never end
            raise UsageError(f"--package {package} is not a file: create a package with `vitpipe kfp compile`")
        text = package.read_text("utf-8")
        name = next(yaml.safe_load_all(text))["pipelineInfo"]["name"]
    except OSError as error:
        raise UsageError(f"--package {package}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError, StopIteration, KeyError, TypeError):
        raise UsageError(f"--package {package}: no package; `vitpipe kfp compile` makes one") from None
    if name != settings.name:
        raise UsageError(
            f"--package {package} is of pipeline {name}, the settings are of {settings.name}: see --config"
        )
    return text


def _again(config: str, overrides: list[str] | None) -> str:
    """The settings of this call, as the next one wants them."""
    return shlex.join(["-c", config, *[word for one in overrides or [] for word in ("--set", one)]])


def _watch(client: "Client", run_id: str, display: Display, again: str, as_json: bool = False) -> Exit:
    from kubeflow.watch import read_ending, watch

    go_on = f"vitpipe kfp status {run_id} --watch {again}"
    try:
        run = watch(client, run_id, started=display.started, ended=display.ended)
        display.started("reading the verdict")
        end = read_ending(client, run)
    except KeyboardInterrupt:
        display.line(f"the run goes on; to go on watching: {go_on}")
        raise typer.Exit(_INTERRUPTED) from None
    except (ClusterError, UsageError) as error:
        raise type(error)(f"{error}; to go on watching: {go_on}") from error
    display.idle()
    if as_json:
        print_run(run, client, as_json)
    for line in end.lines:
        if as_json:
            display.line(line)
        else:
            print_line(line)
    if end.look:
        display.line(f"look with: {end.look}")
    return end.exit
