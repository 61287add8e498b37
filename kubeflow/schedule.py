"""The schedule of a pipeline: one, of the version that was deployed last.

Kubeflow's recurring runs cannot be changed, and each is bound to a version. So a schedule is moved by making a new one,
and the newest counts. The ones before it are disabled after that: two for a moment rather than none, since the first
step of a run refuses a second one at the same time, while nobody notices a run that does not come. A call that was
killed in between leaves two; the next one finds that.
"""

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from components.errors import AnotherRun
from kubeflow.client import Client, PipelineVersion, Schedule
from kubeflow.connection import ResourceNotFound


def current(client: Client) -> Schedule | None:
    """The one that counts; what is left of others goes."""
    found = client.schedules()
    for other in found[1:]:
        _retire(client, other)
    return found[0] if found else None


def put(client: Client, version: PipelineVersion, parameters: Mapping[str, Any], *, cron: str, interval_s: int) -> bool:
    """From now on at the moments of `cron`, or every so many seconds; False where it was so already."""
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
    """To a version, at the same times, paused where it is; False where there is none to move."""
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
    """Delete all schedules of the pipeline: an older one that is left would take effect again.

    Raises:
        AnotherRun: if a run that one of them started is running, because Kubernetes would delete that run with its
            schedule. All schedules are paused then.
    """
    found = client.schedules()
    for schedule in found:
        client.disable(schedule)
    for schedule in found:
        if runs := client.running(schedule):
            raise AnotherRun(
                f"the schedule is paused, but not deleted: its run {runs[0].id} is running, and Kubernetes would "
                "delete that run with it; delete the schedule again when the run has ended"
            )
    for schedule in found:
        client.delete(schedule)


def _retire(client: Client, schedule: Schedule) -> None:
    """Disable a schedule, and delete it unless one of its runs is running: Kubernetes would delete that run with it."""
    with contextlib.suppress(ResourceNotFound):  # another client was faster
        if schedule.enabled:
            client.disable(schedule)
        if not client.running(schedule):
            client.delete(schedule)


def _last_moment(schedule: Schedule) -> datetime | None:
    """The last moment of an interval, from which a new schedule counts on; none where there is a cron.

    Counted from its own beginning, a pipeline that is deployed often would never run; from the old one's, it would at
    once, since Kubeflow makes up for one missed moment.
    """
    if not schedule.interval_s:
        return None
    since, interval = schedule.since or schedule.created, timedelta(seconds=schedule.interval_s)
    return since + (datetime.now(UTC) - since) // interval * interval
