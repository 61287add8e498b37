"""Schedule of a pipeline. A pipeline has one schedule, which starts the version that was deployed last.

A recurring run of Kubeflow cannot be changed, and is bound to one version. So a changed schedule is a new recurring
run, and the newest one is in effect. Older ones are disabled only after the new one exists. For a moment there may be
two schedules, which does no harm: the first step of a run rejects a second run at the same time. Without any schedule,
a run could be missed, and nobody would notice. If a call is killed before it disables the old schedule, the next call
does so.
"""

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from components.errors import AnotherRun
from kubeflow.client import Client, PipelineVersion, Schedule
from kubeflow.connection import ResourceNotFoundError


def current(client: Client) -> Schedule | None:
    """Return the schedule of the pipeline, and remove older ones that an interrupted call has left."""
    schedules = client.schedules()
    for older in schedules[1:]:
        _retire(client, older)
    return schedules[0] if schedules else None


def put(client: Client, version: PipelineVersion, parameters: Mapping[str, Any], *, cron: str, interval_s: int) -> bool:
    """Set the schedule of the pipeline.

    Args:
        client: the client of the pipeline.
        version: the version of the pipeline that its runs use.
        parameters: the parameters of its runs.
        cron: a cron expression of six fields, in UTC; empty for an interval.
        interval_s: the interval in seconds, if `cron` is empty.

    Returns:
        False if an equal schedule was already in effect, else True.
    """
    before = current(client)
    if before:
        same_times = (before.cron, before.interval_s, before.enabled) == (cron, interval_s, True)
        same_version = (before.version, before.service_account) == (version.id, client.service_account)
        if same_times and same_version and dict(before.parameters) == dict(parameters):
            return False
    since = None if cron else datetime.now(UTC).replace(microsecond=0)
    client.add_schedule(version, parameters, cron=cron, interval_s=interval_s, since=since)
    if before:
        _retire(client, before)
    return True


def move(client: Client, version: PipelineVersion) -> bool:
    """Let the schedule start another version, at the same times. A paused schedule stays paused.

    Args:
        client: the client of the pipeline.
        version: the version of the pipeline that its runs use from now on.

    Returns:
        False if there is no schedule, or it already starts this version; else True.
    """
    before = current(client)
    if before is None or (before.version, before.service_account) == (version.id, client.service_account):
        return False
    client.add_schedule(
        version,
        before.parameters,
        cron=before.cron,
        interval_s=before.interval_s,
        since=_last_moment(before),
        enabled=before.enabled,
    )
    _retire(client, before)
    return True


def delete(client: Client) -> None:
    """Delete all schedules of the pipeline. An older schedule that is left would take effect again.

    Raises:
        AnotherRun: if a run that one of them started is running, because Kubernetes would delete that run with its
            schedule. All schedules are paused then.
    """
    schedules = client.schedules()
    for schedule in schedules:
        client.disable(schedule)
    for schedule in schedules:
        if runs := client.running(schedule):
            raise AnotherRun(
                f"the schedule is paused, but not deleted: its run {runs[0].id} is running, and Kubernetes would "
                "delete that run with it. Delete the schedule when the run has ended"
            )
    for schedule in schedules:
        client.delete(schedule)


def _retire(client: Client, schedule: Schedule) -> None:
    """Disable a schedule. Delete it unless one of its runs is running, because Kubernetes would delete that run too."""
    with contextlib.suppress(ResourceNotFoundError):  # another client was faster
        if schedule.enabled:
            client.disable(schedule)
        if not client.running(schedule):
            client.delete(schedule)


def _last_moment(schedule: Schedule) -> datetime | None:
    """Return the start of the current interval, from which a new schedule continues. None for a cron expression.

    If a new schedule began its intervals when it is created, a pipeline that is deployed often would never run. If it
    used the beginning of the old schedule, it would run at once, because Kubeflow makes up for one missed start.
    """
    if not schedule.interval_s:
        return None
    since, interval = schedule.since or schedule.created, timedelta(seconds=schedule.interval_s)
    return since + (datetime.now(UTC) - since) // interval * interval
