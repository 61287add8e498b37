"""Runs, nodes and schedules of a cluster as rows for a person, or as JSON for another program."""

from typing import TYPE_CHECKING, Any

from pipeline.console.duration import duration
from pipeline.console.terminal import print_json, print_line
from vitpipe.cli.tables import print_rows, when

if TYPE_CHECKING:
    from kubeflow.client import Client, ClusterRun, Schedule, Task


def print_runs(runs: list["ClusterRun"], client: "Client", as_json: bool) -> None:
    """The newest first, as they come."""
    if as_json:
        print_json([_as_json(run, client) for run in runs])
        return
    print_rows(
        ("run", "name", "state", "created", "took", "trigger", "reason"),
        [
            (
                run.id,
                run.name,
                run.state.lower(),
                when(run.created),
                duration((run.finished - run.created).total_seconds()) if run.finished else "",
                str(run.parameters.get("trigger", "")),
                str(run.parameters.get("reason", "")),
            )
            for run in runs
        ],
    )


def print_run(run: "ClusterRun", client: "Client", as_json: bool) -> None:
    """Its nodes in the order that they started in, and its page."""
    if as_json:
        print_json({**_as_json(run, client), "nodes": [_task_as_json(task) for task in run.tasks]})
        return
    print_rows(
        ("node", "state", "started", "seconds"),
        [
            (
                task.node,
                task.state.lower(),
                when(task.started) if task.started else "",
                "" if task.seconds is None else f"{task.seconds:.0f}",
            )
            for task in run.tasks
        ],
    )
    print_line(f"run {run.id}: {run.state.lower()}")
    print_line(client.link(run.id))


def _as_json(run: "ClusterRun", client: "Client") -> dict[str, Any]:
    return {
        "run": run.id,
        "name": run.name,
        "state": run.state,
        "created": run.created.isoformat(),
        "finished": run.finished.isoformat() if run.finished else None,
        "parameters": dict(run.parameters),
        "link": client.link(run.id),
    }


def _task_as_json(task: "Task") -> dict[str, Any]:
    return {
        "node": task.node,
        "state": task.state,
        "started": task.started.isoformat() if task.started else None,
        "seconds": task.seconds,
    }


def print_schedule(client: "Client", found: "Schedule | None", as_json: bool) -> None:
    """A list of one, or of none."""
    names = client.version_names() if found else {}
    rows = [found] if found else []
    if as_json:
        print_json(
            [
                {
                    "cron": one.cron or None,
                    "every_seconds": one.interval_s or None,
                    "enabled": one.enabled,
                    "version": names.get(one.version),
                    "parameters": dict(one.parameters),
                    "since": one.created.isoformat(),
                }
                for one in rows
            ]
        )
        return
    print_rows(
        ("runs", "state", "version", "since"),
        [
            (
                times(one.cron, one.interval_s),
                "on" if one.enabled else "paused",
                names.get(one.version, "a deleted one"),
                when(one.created),
            )
            for one in rows
        ],
    )


def times(cron: str, interval_s: int) -> str:
    """When a schedule starts runs."""
    if cron:
        return f'at "{cron}" (second, minute, hour, day, month, weekday; UTC)'
    return f"every {duration(interval_s)}"
