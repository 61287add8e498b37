"""Runs, nodes and schedules of a cluster, as tables or as JSON."""

from typing import TYPE_CHECKING, Any

from pipeline.console.duration import duration
from pipeline.console.terminal import print_json, print_line
from vitpipe.cli.tables import local_time, print_rows

if TYPE_CHECKING:
    from kubeflow.client import Client, ClusterRun, Schedule, Task


def print_runs(runs: list["ClusterRun"], client: "Client", as_json: bool) -> None:
    """Print a list of runs.

    Args:
        runs: Runs, in the order in which to print them.
        client: Client that knows the addresses of their pages.
        as_json: Print JSON instead of a table.
    """
    if as_json:
        print_json([_as_json(run, client) for run in runs])
        return
    print_rows(
        ("run", "name", "state", "created", "duration", "trigger", "reason"),
        [
            (
                run.id,
                run.name,
                run.state.lower(),
                local_time(run.created),
                duration((run.finished - run.created).total_seconds()) if run.finished else "",
                str(run.parameters.get("trigger", "")),
                str(run.parameters.get("reason", "")),
            )
            for run in runs
        ],
    )


def print_run(run: "ClusterRun", client: "Client", as_json: bool) -> None:
    """Print the nodes of a run in the order in which they started, and the address of its page.

    Args:
        run: Run with its tasks.
        client: Client that knows the address of its page.
        as_json: Print JSON instead of a table.
    """
    if as_json:
        print_json({**_as_json(run, client), "nodes": [_task_as_json(task) for task in run.tasks]})
        return
    print_rows(
        ("node", "state", "started", "seconds"),
        [
            (
                task.node,
                task.state.lower(),
                local_time(task.started) if task.started else "",
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


def print_schedule(client: "Client", schedule: "Schedule | None", as_json: bool) -> None:
    """Print the schedule of a pipeline as a list with one entry, or as an empty list.

    Args:
        client: Client that knows the names of the pipeline's versions.
        schedule: Schedule to print; None if the pipeline has none.
        as_json: Print JSON instead of a table.
    """
    names = client.version_names() if schedule else {}
    schedules = [schedule] if schedule else []
    if as_json:
        print_json(
            [
                {
                    "cron": row.cron or None,
                    "every_seconds": row.interval_s or None,
                    "enabled": row.enabled,
                    "version": names.get(row.version),
                    "parameters": dict(row.parameters),
                    "since": row.created.isoformat(),
                }
                for row in schedules
            ]
        )
        return
    print_rows(
        ("runs", "state", "version", "since"),
        [
            (
                times(row.cron, row.interval_s),
                "on" if row.enabled else "paused",
                names.get(row.version, "(deleted)"),
                local_time(row.created),
            )
            for row in schedules
        ],
    )


def times(cron: str, interval_s: int) -> str:
    """Describe the times at which a schedule starts runs.

    Args:
        cron: Cron expression with six fields, the first of which is the second; empty for an interval.
        interval_s: Seconds between two runs.
    """
    if cron:
        return f'at "{cron}" (second, minute, hour, day, month, weekday; UTC)'
    return f"every {duration(interval_s)}"
