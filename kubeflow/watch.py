"""Watch a run on a cluster as if it ran here: its nodes as they end, their logs, the verdict, the exit code."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from components.errors import ClusterError, Exit, SettingsError
from kubeflow.client import Client, ClusterRun, Task
from kubeflow.connection import ServerUnavailable
from kubeflow.steps import step
from kubeflow.steps.step import ENDED
from pipeline.outcome import NodeState, Outcome

POLL_S = 3.0
_AWAY_S = 600.0  # a server that is replaced, a laptop that slept
_VERDICT, _REPORT = "verdict", "run-report"  # tasks of kubeflow/compile.py, which takes a second to import
_LAST_LINES = 20


@dataclass(frozen=True)
class Ending:
    """What a run came to."""

    exit: Exit
    lines: list[str]
    look: str = ""  # a command that shows more


def watch(
    client: Client, run_id: str, *, started: Callable[[str], None], ended: Callable[[Outcome], None]
) -> ClusterRun:
    """Wait for the end of a run. A server that does not answer is asked again for ten minutes.

    Args:
        client: the client of the server.
        run_id: the id of the run.
        started: called with the names of the nodes that are running, or "waiting".
        ended: called with the outcome of each node that has ended.

    Returns:
        The run after its end, with its tasks.

    Raises:
        ServerUnavailable: if the server did not answer for ten minutes.
    """
    told: set[str] = set()
    answered = time.monotonic()
    while True:
        try:
            run = client.run(run_id)
        except ServerUnavailable as error:
            if time.monotonic() - answered > _AWAY_S:
                raise ServerUnavailable(f"{error}; the run itself continues") from error
            time.sleep(POLL_S)
            continue
        answered = time.monotonic()
        new = [task for task in run.tasks if task.state in ENDED and task.name not in told]
        for task in sorted(new, key=lambda task: task.finished or run.created):
            told.add(task.name)
            ended(_outcome(client, run_id, task))
        if run.ended:
            return run
        started(", ".join(task.node for task in run.tasks if task.state == "RUNNING") or "waiting")
        time.sleep(POLL_S)


def written(
    client: Client, run: ClusterRun, node: str | None, *, follow: bool, unread: Callable[[str], None]
) -> Iterator[tuple[str, str]]:
    """What the attempts at a node, or at all of them, have written: the attempt, and whole lines that are new.

    follow: until the node, or the run, has ended. unread: is told of each log that cannot be read.
    Raises ClusterError where no pods are known.
    """
    told: dict[str, int] = {}  # characters, by pod
    whole: set[str] = set()  # pods that write no more
    while True:
        try:
            pods = client.pods(run.id)
        except ClusterError as error:
            raise ClusterError(f"{error}; past the server: {client.kubectl(run.id)}") from error
        tasks = [task for task in run.tasks if node in (None, task.node)]
        for task in tasks:
            done = run.ended or task.state in ENDED
            for attempt, pod in enumerate(pods.get(task.name, []), start=1):
                title = task.node if attempt == 1 else f"{task.node}, attempt {attempt}"
                if pod in whole:
                    continue
                if done:
                    whole.add(pod)
                try:
                    text = client.log(run.id, pod)
                except ClusterError as error:
                    if done or not follow:  # else it has hardly begun
                        unread(f"the log of {title} cannot be read: {error}; {client.kubectl(run.id, pod)}")
                    continue
                if follow and not done:
                    text = text[: text.rfind("\n") + 1]
                if new := text[told.get(pod, 0) :]:
                    told[pod] = len(text)
                    yield title, new.removesuffix("\n")
        if not follow or run.ended or (node and all(task.state in ENDED for task in tasks)):
            return
        time.sleep(POLL_S)
        run = client.run(run.id)


def ending(client: Client, run: ClusterRun) -> Ending:
    """What a run that has ended came to, from the log of a step: with the exit code that it would have had here."""
    if not (task := _telling(run)):
        if run.state == "CANCELED":
            return Ending(Exit.CRASHED, ["terminated on the cluster before it came to a verdict"])
        why = f": {run.error}" if run.error else ""
        return Ending(Exit.CRASHED, [f"crashed before its steps, or between them{why}"], client.kubectl(run.id))
    pod = ""
    try:
        pod = _last_pod(client, run.id, task)
        log = client.log(run.id, pod)
    except ClusterError as error:
        unread = f"its log cannot be read: {error}"
        if task.state == "SUCCEEDED":
            return Ending(Exit.OK, [f"done; {task.node} says more, and {unread}"], client.kubectl(run.id, pod))
        return Ending(Exit.CRASHED, [f"{task.node} failed, and {unread}"], client.kubectl(run.id, pod))
    if found := step.said(log):
        code, lines = found
        # The last line of a verdict is one word for all the others.
        return Ending(_exit(code), lines[:-1] or lines if task.name == _VERDICT else lines)
    last = log.splitlines()[-_LAST_LINES:]
    return Ending(Exit.CRASHED, [*last, f"crashed in {task.node}: it was killed"], client.kubectl(run.id, pod))


def _telling(run: ClusterRun) -> Task | None:
    """The step that says what the run came to: the verdict, or what failed first. A report changes nothing."""
    for task in run.tasks:
        if task.name == _VERDICT and task.state in ("SUCCEEDED", "FAILED"):
            return task
    if run.state == "CANCELED":  # by a person; its steps failed of that
        return None
    failed = [task for task in run.tasks if task.state == "FAILED" and task.name != _REPORT]
    return min(failed, key=lambda task: task.finished or run.created, default=None)


def _outcome(client: Client, run_id: str, task: Task) -> Outcome:
    """The cluster knows that a step succeeded; whether it was cached or skipped, only its log says."""
    state = NodeState.FAILED if task.state in ("FAILED", "CANCELED") else NodeState.SKIPPED
    if task.state == "SUCCEEDED":
        state = NodeState.COMPLETE
        with contextlib.suppress(ClusterError, SettingsError):
            found = step.said(client.log(run_id, _last_pod(client, run_id, task)))
            state = next((one for one in NodeState if found and found[1][-1] == f"{task.node} is {one}"), state)
    return Outcome(task.node, state, task.seconds or 0.0)


def _last_pod(client: Client, run_id: str, task: Task) -> str:
    pods = client.pods(run_id).get(task.name)
    if not pods:
        raise ClusterError(f"{task.node} has no pod")
    return pods[-1]


def _exit(code: int) -> Exit:
    return Exit(code) if code in {*Exit} else Exit.CRASHED  # as where a signal ended it
