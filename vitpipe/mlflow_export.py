"""Export of runs to a tracking server of MLflow, through MLflow's own client.

The client reads the address and the credentials from MLflow's own environment variables, such as `MLFLOW_TRACKING_URI`
and `MLFLOW_TRACKING_TOKEN`. They are neither options nor settings, so no command line and no record has a password.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from components.errors import TrackingError, UsageError
from pipeline.metadata.records import Run
from pipeline.result.differences import FIGURES, flat
from pipeline.result.run_result import EXIT, PROCESS, RunResult, RunState
from pipeline.result.summary import summarise
from vitpipe.ui.training import training

if TYPE_CHECKING:
    from mlflow import MlflowClient

Item = TypeVar("Item")

ADDRESS = "MLFLOW_TRACKING_URI"
RUN = "vitpipe.run"  # tag with the name of a run, by which an exported run is recognised
_DIGEST = "vitpipe.digest"
# A verdict is the result of a complete pipeline, so such runs are not failures in MLflow.
_STATUS = {
    RunState.RUNNING: "RUNNING",
    RunState.DIED: "KILLED",
    RunState.DONE: "FINISHED",
    RunState.NOT_BLESSED: "FINISHED",
    RunState.NOT_SERVABLE: "FINISHED",
}
_EPOCH = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "images_per_second")
# Limits of a tracking server, in values of a request, runs of a page, and characters.
_MOST_PARAMS, _MOST_TAGS, _MOST_METRICS, _PAGE = 100, 100, 1_000, 1_000
_LONGEST_NAME, _LONGEST_PARAM, _LONGEST_TAG = 250, 6_000, 5_000
# Codes of MLflow's errors about the content of a request.
_REJECTED = {"INVALID_PARAMETER_VALUE", "BAD_REQUEST", "INVALID_STATE", "RESOURCE_ALREADY_EXISTS"}
_LONGEST_REASON = 200  # characters; the client lists every cause of an error


@dataclass(frozen=True)
class _Export:
    """Content of a run in MLflow."""

    status: str
    ended_ms: int
    params: Mapping[str, str]
    metrics: Sequence[tuple[str, float, int, int]]  # name, value, milliseconds since 1970, epoch
    tags: Mapping[str, str]

    @property
    def digest(self) -> str:
        """SHA-256 digest of the content."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class _Known:
    """Run that the server has."""

    id: str
    digest: str
    deleted: bool = False  # by a person, in MLflow


class RunRejected(TrackingError):
    """The server answers, and rejects one run."""


class Tracking:
    """Connection to the tracking server.

    Raises:
        UsageError: if `MLFLOW_TRACKING_URI` is not set, or MLflow's client is not installed.
        TrackingError: if the address is invalid.
    """

    def __init__(self) -> None:
        if not os.environ.get(ADDRESS):
            raise UsageError(
                f"{ADDRESS} is not set: set it to the address of the tracking server, such as "
                "http://mlflow.example:5000, or to a database file, such as sqlite:///mlflow.db"
            )
        # The client would report its use to the makers of MLflow, print the address of every run with its password, and
        # try for minutes to reach a server.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
        try:
            from mlflow import MlflowClient
        except ImportError as error:
            raise UsageError(f"MLflow's client is not installed ({error}): run make setup LOCK=mlflow") from None
        for name in ("mlflow", "alembic"):  # they log each step of the creation of a database
            logging.getLogger(name).setLevel(logging.WARNING)
        with _explained():
            self._client: MlflowClient = MlflowClient()
        self._experiments: dict[str, tuple[str, dict[str, _Known]]] = {}

    def export(self, run: Run) -> bool:
        """Write a run to the server, in the experiment named after its pipeline.

        The settings become parameters. The figures of the model gate and of each epoch become metrics. The facts of the
        run become tags.

        Returns:
            False if nothing is written, because the server has the run in its present state, or a person deleted it
            there.

        Raises:
            RunRejected: if the server rejects this run.
            TrackingError: if the server does not answer.
        """
        result = RunResult(run)
        export = _export(result)
        if not result.pipeline:
            raise RunRejected("its pipeline is unknown, because no node has started: export it again later")
        with _explained():
            experiment, known = self._experiment(result.pipeline)
            before = known.get(run.name)
            if before and (before.deleted or before.digest == export.digest):
                return False
            if before:
                id = before.id
            else:
                id = self._client.create_run(experiment, run.started_ms, {RUN: run.name}, run.name).info.run_id
            self._write(id, export)
        known[run.name] = _Known(id, export.digest)
        return True

    def _write(self, id: str, export: _Export) -> None:
        from mlflow.entities import Metric, Param, RunTag

        # A parameter cannot change, but a later version of vitpipe may name or write a setting in another way.
        written = self._client.get_run(id).data.params
        params = [Param(name, value) for name, value in export.params.items() if name not in written]
        metrics = [Metric(*metric) for metric in export.metrics]
        tags = [RunTag(name, value) for name, value in export.tags.items()]
        for params_part in _parts(params, _MOST_PARAMS):
            self._client.log_batch(id, params=params_part)
        for metrics_part in _parts(metrics, _MOST_METRICS):
            self._client.log_batch(id, metrics=metrics_part)
        for tags_part in _parts(tags, _MOST_TAGS):
            self._client.log_batch(id, tags=tags_part)
        if export.status == "RUNNING":
            self._client.update_run(id, export.status)
        else:
            self._client.set_terminated(id, export.status, export.ended_ms)
        # The digest comes last, so that an interrupted export is repeated.
        self._client.set_tag(id, _DIGEST, export.digest)

    def _experiment(self, pipeline: str) -> tuple[str, dict[str, _Known]]:
        """Return the id of a pipeline's experiment, and its runs by their names."""
        from mlflow.entities import ViewType

        if pipeline not in self._experiments:
            found = self._client.get_experiment_by_name(pipeline)
            if found and found.lifecycle_stage == "deleted":
                raise TrackingError(
                    f"the experiment {pipeline} was deleted on the tracking server: restore it there, or remove it for "
                    "good with `mlflow gc`, and export again"
                )
            id = found.experiment_id if found else self._client.create_experiment(pipeline)
            known: dict[str, _Known] = {}
            token = None
            while True:
                page = self._client.search_runs([id], run_view_type=ViewType.ALL, max_results=_PAGE, page_token=token)
                for run in page:
                    if name := run.data.tags.get(RUN):
                        deleted = run.info.lifecycle_stage == "deleted"
                        known[name] = _Known(run.info.run_id, run.data.tags.get(_DIGEST, ""), deleted)
                if not (token := page.token):
                    break
            self._experiments[pipeline] = id, known
        return self._experiments[pipeline]


def _export(result: RunResult) -> _Export:
    run = result.record
    summary = summarise(result)
    figures = {name: result.figures.get(name) for name in FIGURES}
    by_class = result.figures.get("class_accuracy")
    figures |= flat(by_class, "class_accuracy/") if isinstance(by_class, Mapping) else {}
    # MLflow keeps one value for each time, so a repeated export must have equal times.
    evaluator = run.node("Evaluator")
    metrics = [(name, value, evaluator.updated_ms if evaluator else 0, 0) for name, value in _named(figures).items()]
    done = training(result)
    seconds = 0.0
    for epoch in done.epochs if done else ():
        seconds += epoch.seconds
        values = ((f"training/{name}", getattr(epoch, name)) for name in _EPOCH)
        metrics += [(name, value, run.started_ms + int(1000 * seconds), epoch.epoch) for name, value in values]
    facts = {name: value for name, value in run.facts.items() if name not in ("settings", PROCESS, EXIT)}
    tags = {"state": summary.state, "blessed": summary.blessed, "pushed": summary.pushed, **facts}
    commit = {"mlflow.source.git.commit": summary.code_version}
    return _Export(
        status=_STATUS.get(summary.state, "FAILED"),
        ended_ms=run.ended_ms,
        params={name: str(value)[:_LONGEST_PARAM] for name, value in _named(flat(result.settings)).items()},
        metrics=[metric for metric in metrics if _is_number(metric[1])],
        tags={
            name: str(value)[:_LONGEST_TAG]
            for name, value in (_named({f"vitpipe.{name}": value for name, value in tags.items()}) | commit).items()
            if value not in (None, "", "{}")
        },
    )


def _named(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by names that MLflow accepts. Names that then are equal get a number."""
    named: dict[str, Any] = {}
    for name, value in values.items():
        name = base = re.sub(r"[^\w.\- /]", "_", name, flags=re.ASCII)[:_LONGEST_NAME].strip("./ ") or "_"
        number = 1
        while name in named:
            number += 1
            name = f"{base[: _LONGEST_NAME - 5]}_{number}"
        named[name] = value
    return named


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _parts(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


@contextmanager
def _explained() -> Iterator[None]:
    """Turn errors of the client and its connection into a TrackingError without the secrets of the address."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    # The client raises ImportError if the driver of a database is missing, and ValueError for some wrong addresses.
    except (MlflowException, RequestException, SQLAlchemyError, ImportError, ValueError) as error:
        address, secrets = _public(os.environ[ADDRESS])
        reason = str(error)
        for secret in secrets:
            reason = reason.replace(secret, "...")
        reason = textwrap.shorten(reason, _LONGEST_REASON, placeholder=" ...")
        if isinstance(error, MlflowException) and error.error_code in _REJECTED:
            raise RunRejected(f"the tracking server at {ADDRESS} {address} rejects the request ({reason})") from None
        raise TrackingError(
            f"the tracking server at {ADDRESS} {address} cannot be used ({reason}): correct the address or the "
            "credentials, and export again. Runs that were exported are skipped then"
        ) from None


def _public(address: str) -> tuple[str, list[str]]:
    """Return an address without user, password and query, and the parts that were left out."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return "(not a valid address)", [address]
    user, at, host = parts.netloc.rpartition("@")
    secrets = [secret for secret in (user + at, parts.query) if secret]
    return urlunsplit((parts.scheme, host, parts.path, "", "")) if host else address.partition("?")[0], secrets
