"""Watching of a run on a cluster as if it ran here: outcomes of nodes, logs, verdict and exit code."""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from components.errors import ClusterError, Exit, SettingsError
from kubeflow.client import Client, ClusterRun, Task
from kubeflow.connection import ServerUnavailableError
from kubeflow.steps import step
from kubeflow.steps.step import ENDED
from pipeline.outcome import NodeState, Outcome

POLL_S = 3.0  # seconds between two requests
_UNAVAILABLE_S = 600.0  # a server may be unavailable this long, for example while it is replaced
# Names of tasks that kubeflow/compile.py defines. They are repeated here because importing it takes a second.
_VERDICT, _REPORT = "verdict", "run-report"
_LAST_LINES = 20  # lines of the log that are shown of a step that was killed


@dataclass(frozen=True)
class Ending:
    """Result of a run that has ended.

    Attributes:
        exit: the exit code that the run would have had on this machine.
        lines: the lines of its verdict.
        look: a command that shows more; empty if the lines say everything.
    """

    exit: Exit
    lines: list[str]
    look: str = ""


def watch(
    client: Client, run_id: str, *, started: Callable[[str], None], ended: Callable[[Outcome], None]
) -> ClusterRun:
    """Wait for the end of a run.

    Args:
        client: the client of the pipeline.
        run_id: the id of the run.
        started: called with the names of the nodes that are running, or "waiting".
        ended: called with the outcome of each node that has ended.

    Returns:
        The run after its end, with its tasks.

    Raises:
        ServerUnavailableError: if the server did not answer for ten minutes.
    """
    reported: set[str] = set()
    last_answer = time.monotonic()
    while True:
        try:
            run = client.run(run_id)
        except ServerUnavailableError as error:
            if time.monotonic() - last_answer > _UNAVAILABLE_S:
                raise ServerUnavailableError(f"{error}; the run itself continues") from error
            time.sleep(POLL_S)
            continue
        last_answer = time.monotonic()
        new = [task for task in run.tasks if task.state in ENDED and task.name not in reported]
        for task in sorted(new, key=lambda task: task.finished or run.created):
            reported.add(task.name)
            ended(_outcome(client, run_id, task))
        if run.ended:
            return run
        started(", ".join(task.node for task in run.tasks if task.state == "RUNNING") or "waiting")
        time.sleep(POLL_S)


def read_logs(
    client: Client, run: ClusterRun, node: str | None, *, follow: bool, unread: Callable[[str], None]
) -> Iterator[tuple[str, str]]:
    """Read the logs of a run.

    Args:
        client: the client of the pipeline.
        run: the run.
        node: the node to read the logs of; None for all nodes.
        follow: continue until the node, or without a node the run, has ended.
        unread: called with a message for each log that cannot be read.

    Yields:
        The name of a node, with the number of the attempt after the first one, and the text that is new in its log.
        While the node is running, the text ends with a complete line.

    Raises:
        ClusterError: if the server does not name the pods of the run.
    """
    read: dict[str, int] = {}  # number of characters that were yielded, by pod
    complete: set[str] = set()  # pods whose log was read to its end
    while True:
        try:
            pods = client.pods(run.id)
        except ClusterError as error:
            raise ClusterError(f"{error}; to read the logs without the server: {client.kubectl(run.id)}") from error
        tasks = [task for task in run.tasks if node in (None, task.node)]
        for task in tasks:
            done = run.ended or task.state in ENDED
            for attempt, pod in enumerate(pods.get(task.name, []), start=1):
                title = task.node if attempt == 1 else f"{task.node}, attempt {attempt}"
                if pod in complete:
                    continue
                if done:
                    complete.add(pod)
                try:
                    text = client.log(run.id, pod)
                except ClusterError as error:
                    if done or not follow:  # while following, a pod that has just started may have no log yet
                        unread(
                            f"the log of {title} cannot be read: {error}; to read it without the server: "
                            f"{client.kubectl(run.id, pod)}"
                        )
                    continue
                if follow and not done:
                    text = text[: text.rfind("\n") + 1]
                if new := text[read.get(pod, 0) :]:
                    read[pod] = len(text)
                    yield title, new.removesuffix("\n")
        if not follow or run.ended or (node and all(task.state in ENDED for task in tasks)):
            return
        time.sleep(POLL_S)
        run = client.run(run.id)


def read_ending(client: Client, run: ClusterRun) -> Ending:
    """Read the result of a run that has ended from the log of the step that decided it.

    Args:
        client: the client of the pipeline.
        run: the run, with its tasks.

    Returns:
        The result. Without a readable log, its lines are an explanation.
    """
    if not (task := _deciding_task(run)):
        if run.state == "CANCELED":
            return Ending(Exit.CRASHED, ["terminated on the cluster before it came to a verdict"])
        reasons = [run.error] if run.error else []
        with contextlib.suppress(ClusterError, SettingsError):  # the API of Kubeflow Pipelines often reports no error
            reasons = reasons or client.pod_errors(run.id)[:1]
        line = ": ".join(["crashed before its steps, or between them", *reasons])
        return Ending(Exit.CRASHED, [line], client.kubectl(run.id))
    pod = ""
    try:
        pod = _last_pod(client, run.id, task)
        log = client.log(run.id, pod)
    except ClusterError as error:
        if task.state == "SUCCEEDED":
            return Ending(
                Exit.OK, [f"done, but the log of {task.node} cannot be read: {error}"], client.kubectl(run.id, pod)
            )
        return Ending(
            Exit.CRASHED, [f"{task.node} failed, and its log cannot be read: {error}"], client.kubectl(run.id, pod)
        )
    if found := step.parse_end(log):
        code, lines = found
        # The last line of a verdict is only its name, which the other lines explain.
        return Ending(_exit(code), lines[:-1] or lines if task.name == _VERDICT else lines)
    last = log.splitlines()[-_LAST_LINES:]
    return Ending(
        Exit.CRASHED,
        [*last, f"crashed in {task.node}: {step.killed(task.node, client.memory_limit(task.node))}"],
        client.kubectl(run.id, pod),
    )


def _deciding_task(run: ClusterRun) -> Task | None:
    """Return the task that decided the result: the verdict, or else the first one that failed, except the report."""
    for task in run.tasks:
        if task.name == _VERDICT and task.state in ("SUCCEEDED", "FAILED"):
            return task
    if run.state == "CANCELED":  # a user terminated the run, and its steps failed because of that
        return None
    failed = [task for task in run.tasks if task.state == "FAILED" and task.name != _REPORT]
    return min(failed, key=lambda task: task.finished or run.created, default=None)


def _outcome(client: Client, run_id: str, task: Task) -> Outcome:
    """Return the outcome of a task. Only its log shows whether a node that succeeded was cached or skipped."""
    state = NodeState.FAILED if task.state in ("FAILED", "CANCELED") else NodeState.SKIPPED
    if task.state == "SUCCEEDED":
        state = NodeState.COMPLETE
        with contextlib.suppress(ClusterError, SettingsError):
            found = step.parse_end(client.log(run_id, _last_pod(client, run_id, task)))
            state = next((other for other in NodeState if found and found[1][-1] == f"{task.node} is {other}"), state)
    return Outcome(task.node, state, task.seconds or 0.0)


def _last_pod(client: Client, run_id: str, task: Task) -> str:
    pods = client.pods(run_id).get(task.name)
    if not pods:
        raise ClusterError(f"{task.node} has no pod")
    return pods[-1]


def _exit(code: int) -> Exit:
    return Exit(code) if code in {*Exit} else Exit.CRASHED  # for example if a signal ended the step
