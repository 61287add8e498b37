"""The engine of the Beam jobs: arguments of Beam from the settings, and explanations of an engine's failures."""

import re
from collections.abc import Iterable

from components.errors import DataRefused, EngineError, VitpipeError
from pipeline.settings.beam import BeamSettings

# With such an argument, TFX does not package itself for each step. The value is not used: the runner in memory starts
# no workers, and workers of a pool have the environment of the pool.
_NO_PACKAGE = "--sdk_container_image=none"
# Part of the cache keys of all steps of Beam. It stays as it is, so that results of earlier versions stay valid.
IN_CACHE_KEYS = ("--direct_running_mode=in_memory", _NO_PACKAGE)
# Beam's default runner would first download and start the engine Prism. The runner in memory is faster than Beam's
# multi-processing one at every step of the graph.
IN_MEMORY = ("--runner=FnApiRunner", *IN_CACHE_KEYS)
_KEEP_WORKERS = 60_000  # milliseconds; without it, most stages of a job would start workers, which import TensorFlow
_ANSWER_SECONDS = 60  # in this time, a job service that was restarted answers again
_CONNECT_SECONDS = 5
_LONGEST_REASON = 300  # characters
# Exceptions that a worker reported: the engine's text has their traceback, and then that of the engine, in Java.
_RAISED_BY_WORKER = re.compile(r"Error received from SDK harness.*?Traceback \(most.*?(?=\n\tat |\Z)", re.DOTALL)
# Errors whose type is kept: the data is not fit for use, or a worker cannot read or write the folders that it needs.
_KEPT: dict[str, type[VitpipeError]] = {error.__name__: error for error in (DataRefused, EngineError)}
_KEPT_ERROR = re.compile(
    rf"^{VitpipeError.__module__}\.({'|'.join(_KEPT)}): (.*?)(?=\n\s*\n|\Z)", re.DOTALL | re.MULTILINE
)
_STEP = re.compile(r" \[while running '.*?'\]")  # Beam adds this to the message of an exception


def arguments(settings: BeamSettings) -> list[str]:
    """Return the arguments of Beam for the chosen engine."""
    if settings.runner == "local":
        return [*IN_MEMORY]
    chosen = {
        "runner": "PortableRunner",
        "job_endpoint": settings.job_service,
        "job_server_timeout": _ANSWER_SECONDS,
        "artifact_endpoint": settings.artifact_service,
        "environment_type": "EXTERNAL",
        "environment_config": settings.worker_pool,
        "environment_cache_millis": _KEEP_WORKERS,
        "experiments": "disable_logging_submission_environment",  # Beam would call pip for it, which may be missing
        "sdk_worker_parallelism": settings.workers,
        "parallelism": settings.parallelism,
        # By default, a Flink job whose branches join again can wait for itself (FLINK-10672).
        "execution_mode_for_batch": "BATCH_FORCED" if settings.runner == "flink" else None,
    }
    return [
        _NO_PACKAGE,
        *(f"--{name}={value}" for name, value in chosen.items() if value),
        # These come last, because Beam uses the last of several values.
        *(f"--{name}={value}" if value else f"--{name}" for name, value in settings.options.items()),
    ]


def check_job_service(settings: BeamSettings) -> None:
    """Check that the job service of the engine answers.

    Raises:
        EngineError: if it does not.
    """
    if settings.runner != "local" and not _answers(settings.job_service):
        raise _no_job_service(settings.job_service)


def explain(error: Exception, argv: Iterable[str]) -> Exception:
    """Return the error for a failure of a Beam job on an engine, and any other error unchanged.

    Args:
        error: the error that a step raised.
        argv: the arguments of Beam that the step had; empty if it is not a step of Beam.

    Returns:
        An EngineError if the engine failed, and the job may succeed in another attempt. An exception of our code in a
        worker becomes a DataRefused, EngineError or RuntimeError with its message.
    """
    for kept in _KEPT.values():
        if isinstance(error, kept):  # in memory, Beam keeps the type
            return kept(_STEP.sub("", str(error)))
    options = dict(argument.removeprefix("--").partition("=")[::2] for argument in argv)
    if "job_endpoint" not in options:
        return error
    import grpc  # takes a moment, which only an engine needs

    text = str(error)
    if raised := _RAISED_BY_WORKER.search(text):
        if kept_errors := _KEPT_ERROR.findall(raised[0]):
            name, message = kept_errors[-1]
            return _KEPT[name](_STEP.sub("", message).strip())
        return RuntimeError(_STEP.sub("", raised[0].rstrip().rpartition("\n")[2]))
    job_failed = isinstance(error, RuntimeError) and re.match(r"Pipeline \S+ failed in state ", text)
    if not job_failed and not isinstance(error, grpc.RpcError | grpc.FutureTimeoutError):
        return error
    if not _answers(service := options["job_endpoint"]):
        return _no_job_service(service)
    pool = options["environment_config"]
    reason = " ".join(text.split()).rpartition("Exception: ")[2][:_LONGEST_REASON]
    if "Connection refused" in reason:
        remedy = (
            f"no pool answers at beam.worker_pool {pool}, as seen from the engine; start one there with "
            "`python -m pipeline.worker_pool`, or correct the address"
        )
    else:
        remedy = (
            f"most likely, a worker of the pool at beam.worker_pool {pool} was killed; the output of the pool names "
            "it. Give it more memory, or lower beam.workers"
        )
    return EngineError(f"the engine at beam.job_service {service} lost the job ({reason}): {remedy}")


def _answers(service: str) -> bool:
    import grpc

    with grpc.insecure_channel(service) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_CONNECT_SECONDS)
        except grpc.FutureTimeoutError:
            return False
        return True


def _no_job_service(service: str) -> EngineError:
    return EngineError(
        f"no job service answers at beam.job_service {service}: start the job server of the engine, correct the "
        "address, or set beam.runner to local"
    )
