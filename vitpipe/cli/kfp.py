"""`vitpipe kfp`: the same graph on Kubeflow Pipelines.

Nothing here imports kfp or TFX at module level, so that `--help` and completion stay fast.
"""

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
from vitpipe.cli.options import Accept, Config, Json, Overrides
from vitpipe.cli.panels import DEPLOY, LOOK, PREPARE, RETRAIN, RUN, example

if TYPE_CHECKING:
    from kubeflow.client import Client, PipelineVersion

app = typer.Typer(
    name="kfp",
    help="Run the pipeline on Kubeflow Pipelines.\n\nThe settings of the group `kubeflow` describe the cluster: see "
    "`vitpipe settings kubeflow`.",
    no_args_is_help=True,
    rich_help_panel=DEPLOY,
)

Package = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="Package that `vitpipe kfp compile` wrote.", show_default="compiled from the settings"
    ),
]
Tune = Annotated[
    bool, typer.Option("--tune", help="Search for better settings, as `vitpipe tune` does, in place of a training.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Wait until the run ends, and exit with its exit code.")]
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="Id or name of the run, the beginning of either, or `last`.")
]

_LISTED = 20  # runs in a listing
_INTERRUPTED = 128 + signal.SIGINT


@app.command("compile", rich_help_panel=PREPARE, epilog=example("vitpipe kfp compile -c cluster.yaml -o pipeline.yaml"))
def compile_package(
    config: Config = "sample",
    overrides: Overrides = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="File to write.", show_default="standard output"),
    ] = None,
    tune: Tune = False,
) -> None:
    """Compile the settings to a package that Kubeflow Pipelines can run.

    The package contains no secrets.
    """
    text = _compiled(load(config, overrides), tune)
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, "utf-8")
    except OSError as error:
        raise UsageError(f"--output {output}: {error.strerror}") from None
    print_line(
        f"{output}: {len(text.encode()):,} bytes; run it with `vitpipe kfp submit --package {output}`", sys.stderr
    )


@app.command(
    rich_help_panel=RUN,
    epilog=example(
        "vitpipe kfp submit -c cluster.yaml --watch",
        "vitpipe kfp submit -c cluster.yaml --package pipeline.yaml --span 3",
    ),
)
def submit(
    config: Config = "sample",
    overrides: Overrides = None,
    span: Annotated[
        int | None,
        typer.Option(
            min=1, max=MAX_SPAN, metavar="N", help="Number of the span to train on.", show_default="the newest"
        ),
    ] = None,
    accept: Accept = None,
    reason: Annotated[
        str,
        typer.Option(
            metavar="TEXT", help="Why the run is started, or why the checks are accepted. Recorded in ML Metadata."
        ),
    ] = "",
    take_over: Annotated[
        str,
        typer.Option(metavar="RUN", help="Start although this run is recorded as running, for example after a crash."),
    ] = "",
    package: Package = None,
    tune: Tune = False,
    watch: Watch = False,
) -> None:
    """Deploy the pipeline if it changed, and start a run.

    If the pipeline has a schedule, it starts the new version from then on, except after `--tune`.
    """
    settings = load(config, overrides)
    if tune and package:
        raise UsageError("--tune has no effect on --package: compile that package with `vitpipe kfp compile --tune`")
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

        version = _deploy(client, settings, package, display, tune)
        display.started("starting the run")
        run = client.start(version, f"{settings.name}-{run_facts.new_run_id()}", parameters)
        display.idle()
        print_line(f"run {run.id}")
        print_line(client.link(run.id))
        display.started("looking for a schedule")
        try:
            # A schedule trains, and does not repeat a search.
            if not tune and schedule.move(client, version):
                display.line(f"the schedule of {settings.name} was moved to {version.name}")
        except ClusterError as error:
            display.line(
                f"the schedule was not moved, but the next `vitpipe kfp submit` or `schedule` will move it: {error}"
            )
        if watch:
            raise typer.Exit(_watch(client, run.id, display, _settings_flags(config, overrides)))


@app.command(
    rich_help_panel=LOOK,
    epilog=example("vitpipe kfp status -c cluster.yaml", "vitpipe kfp status last -c cluster.yaml --watch"),
)
def status(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="Id or name of a run, the beginning of either, or `last`.",
            show_default="all, or the last one with --watch",
        ),
    ] = None,
    config: Config = "sample",
    overrides: Overrides = None,
    watch: Watch = False,
    as_json: Json = False,
) -> None:
    """List the runs of the pipeline, the newest first, or show the nodes of one run."""
    with _client(load(config, overrides)) as (client, display):
        display.started("looking for the run" if run or watch else "listing the runs")
        if run is None and not watch:
            runs = client.runs(limit=_LISTED)
            if not runs and not as_json:
                client.find("last")  # raises an error that says how to start a run
            display.idle()
            return print_runs(runs, client, as_json)
        cluster_run = client.find(run or "last")
        if watch:
            raise typer.Exit(_watch(client, cluster_run.id, display, _settings_flags(config, overrides), as_json))
        display.idle()
        print_run(cluster_run, client, as_json)


@app.command(
    rich_help_panel=LOOK,
    epilog=example("vitpipe kfp logs last Trainer -c cluster.yaml --follow"),
)
def logs(
    run: RunName,
    node: Annotated[
        str | None,
        typer.Argument(metavar="NODE", help="Name of a node, as `vitpipe kfp status` shows it.", show_default="all"),
    ] = None,
    config: Config = "sample",
    overrides: Overrides = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Print new lines until the run, or the node, has ended.")
    ] = False,
) -> None:
    """Print the logs of the nodes of a run.

    Each attempt at a node has a heading of its own.
    """
    with _client(load(config, overrides)) as (client, display):
        from kubeflow.watch import read_logs

        display.started("looking for the run")
        cluster_run = client.find(run)
        nodes = [task.node for task in cluster_run.tasks]
        if node is not None and node not in nodes:
            raise NotFound(f"no node {node} in run {cluster_run.id}; it has {', '.join(nodes)}")
        heading = ""
        for title, text in read_logs(client, cluster_run, node, follow=follow, unread=display.line):
            display.idle()
            if title != heading:
                print_line(f"==> {title} <==")
            heading = title
            print(text, flush=True)
            if follow:
                display.started("following")
        if not heading:
            display.line("the logs are still empty")


@app.command(
    "schedule",
    rich_help_panel=RETRAIN,
    epilog=example(
        'vitpipe kfp schedule -c cluster.yaml --cron "0 3 * * *"',
        "vitpipe kfp schedule -c cluster.yaml --list",
    ),
)
def set_schedule(
    config: Config = "sample",
    overrides: Overrides = None,
    cron: Annotated[
        str,
        typer.Option(
            metavar="FIELDS",
            help="Start runs at these times, in UTC: minute, hour, day, month, weekday. `0 3 * * *` is every night at "
            "three.",
        ),
    ] = "",
    every: Annotated[
        str, typer.Option(metavar="TIME", help="Start runs at this interval, such as `90m`, `6h` or `1d12h`.")
    ] = "",
    reason: Annotated[
        str, typer.Option(metavar="TEXT", help="Why the runs are started. Recorded in ML Metadata.")
    ] = "",
    package: Package = None,
    show: Annotated[bool, typer.Option("--list", help="Show the schedule.")] = False,
    pause: Annotated[bool, typer.Option("--pause", help="Start no runs until `--resume`.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Resume a paused schedule.")] = False,
    delete: Annotated[bool, typer.Option("--delete", help="Delete the schedule.")] = False,
    as_json: Json = False,
) -> None:
    """Start runs of the pipeline at regular times, or change its schedule.

    Use exactly one of `--cron`, `--every`, `--list`, `--pause`, `--resume` and `--delete`. Scheduled runs use the
    version that was deployed last. They run one at a time, and a single run makes up for all that were missed.
    """
    actions = {
        "--cron": cron,
        "--every": every,
        "--list": show,
        "--pause": pause,
        "--resume": resume,
        "--delete": delete,
    }
    if len(flags := [flag for flag, value in actions.items() if value]) != 1:
        problem = f"{' and '.join(flags)} cannot be used together" if flags else "nothing to do"
        raise UsageError(f"{problem}: use exactly one of {', '.join(actions)}")
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
        current = schedule.current(client)
        display.idle()
        if show:
            return print_schedule(client, current, as_json)
        if current is None:
            raise NotFound(
                f'{settings.name} has no schedule: create one with `vitpipe kfp schedule --cron "0 3 * * *"`'
            )
        if delete:
            schedule.delete(client)
            print_line(f"the schedule of {settings.name} is deleted")
        elif pause:
            client.disable(current)
            print_line(f"the schedule of {settings.name} is paused")
        else:
            client.enable(current)
            print_line(f"{settings.name} runs {times(current.cron, current.interval_s)}")


@contextmanager
def _client(settings: Settings) -> Iterator[tuple["Client", Display]]:
    """Yield a client of the server in the settings, and the display that shows its progress."""
    with own_stderr() as stderr, Display(stderr) as display:
        display.started(f"asking {settings.kubeflow.endpoint}")
        from kubeflow.client import Client

        yield Client(settings, display.line), display


def _deploy(
    client: "Client", settings: Settings, package: Path | None, display: Display, tune: bool = False
) -> "PipelineVersion":
    display.started("compiling the package")
    text = _read(package, settings) if package else _compiled(settings, tune)
    display.started("deploying the package")
    version = client.deploy(text, provenance.code_version())
    display.line(f"{'deployed' if version.new else 'already deployed'}: version {version.name}")
    return version


def _compiled(settings: Settings, tune: bool = False) -> str:
    with redirected(Path(os.devnull)):
        from kubeflow.compile import package

        return package(settings, tune)


def _read(package: Path, settings: Settings) -> str:
    try:
        if package.exists() and not package.is_file():  # reading a device may never end
            raise UsageError(f"--package {package} is not a file: create a package with `vitpipe kfp compile`")
        text = package.read_text("utf-8")
        name = next(yaml.safe_load_all(text))["pipelineInfo"]["name"]
    except OSError as error:
        raise UsageError(f"--package {package}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError, RecursionError, StopIteration, KeyError, TypeError):
        raise UsageError(
            f"--package {package} is not a pipeline package: create one with `vitpipe kfp compile`"
        ) from None
    if name != settings.name:
        raise UsageError(
            f"--package {package} belongs to pipeline {name}, but the settings are for {settings.name}: choose the "
            f"settings of {name} with --config"
        )
    return text


def _settings_flags(config: str, overrides: list[str] | None) -> str:
    """Return the flags with which another command uses the same settings."""
    return shlex.join(["-c", config, *[word for override in overrides or [] for word in ("--set", override)]])


def _watch(client: "Client", run_id: str, display: Display, settings_flags: str, as_json: bool = False) -> Exit:
    from kubeflow.watch import read_ending, watch

    watch_again = f"vitpipe kfp status {run_id} --watch {settings_flags}"
    try:
        run = watch(client, run_id, started=display.started, ended=display.ended)
        display.started("reading the verdict")
        end = read_ending(client, run)
    except KeyboardInterrupt:
        display.line(f"the run continues; watch it again with: {watch_again}")
        raise typer.Exit(_INTERRUPTED) from None
    except (ClusterError, UsageError) as error:
        raise type(error)(f"{error}; watch it again with: {watch_again}") from error
    display.idle()
    if as_json:
        print_run(run, client, as_json)
    for line in end.lines:
        if as_json:
            display.line(line)
        else:
            print_line(line)
    if end.look:
        display.line(f"more with: {end.look}")
    return end.exit
