"""The engine of the Beam jobs: its settings, the arguments of Beam, and errors of an engine."""

import socket
import time

import apache_beam as beam
import pytest
from apache_beam.options.pipeline_options import PipelineOptions, PortableOptions, StandardOptions
from apache_beam.runners.portability.fn_api_runner import FnApiRunner
from apache_beam.runners.portability.prism_runner import PrismRunner

from components.errors import DataRefused, EngineError, SettingsError
from pipeline.beam import IN_MEMORY, arguments, check_job_service, explain
from pipeline.settings import load
from tests.helpers.command import vitpipe

ENGINE = ["beam.runner=flink", "beam.job_service=flink:8099", "beam.worker_pool=pool:50000"]


def settings(*flags):
    return load("sample", [*flags], environment={}).beam


@pytest.fixture
def closed_port():
    """Address where nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def test_without_an_engine_the_arguments_are_those_of_the_runner_in_memory():
    expected = ["--runner=FnApiRunner", "--direct_running_mode=in_memory", "--sdk_container_image=none"]
    assert arguments(settings()) == expected == [*IN_MEMORY]


def test_beam_runs_in_memory_and_starts_no_other_engine(monkeypatch):
    """The default runner of Beam would download Prism."""
    monkeypatch.setattr(PrismRunner, "run_pipeline", lambda *_: pytest.fail("Prism was started"))
    with beam.Pipeline(argv=arguments(settings())) as pipeline:
        _ = pipeline | beam.Create([1])
    assert isinstance(pipeline.runner, FnApiRunner)


def test_beam_reads_the_arguments_of_an_engine():
    flags = ["beam.worker_pool=127.0.0.1:50000", "beam.workers=2", "beam.parallelism=8"]
    more = ["beam.options.job_name=cifar10", "beam.options.streaming=''", "beam.options.environment_cache_millis=1"]
    argv = arguments(settings(*ENGINE, *flags, *more))
    options = PipelineOptions(argv)
    portable = options.view_as(PortableOptions)
    assert (portable.job_endpoint, portable.artifact_endpoint) == ("flink:8099", None)
    assert (portable.environment_type, portable.environment_config) == ("EXTERNAL", "127.0.0.1:50000")
    assert (portable.sdk_worker_parallelism, portable.environment_cache_millis) == ("2", "1")
    assert options.view_as(StandardOptions).streaming is True
    assert {"--parallelism=8", "--execution_mode_for_batch=BATCH_FORCED", "--job_name=cifar10"} <= {*argv}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["beam.runner=flink"], "beam.runner flink requires beam.job_service, which is empty: set it to"),
        (ENGINE[:2], "beam.runner flink requires beam.worker_pool, which is empty: set it to"),
        (["beam.job_service=flink:8099"], "beam.job_service flink:8099 has no effect with beam.runner local: set"),
        (["beam.attempts=5"], "beam.attempts 5 has no effect with beam.runner local: set"),
        (["beam.runner=dataflow"], "beam.runner: .*'local', 'flink', 'spark' or 'portable'.*dataflow"),
        (
            [*ENGINE, "beam.worker_pool=http://pool:50000"],
            "beam.worker_pool: it is not an address: .*http://pool:50000",
        ),
        ([*ENGINE, "beam.worker_pool=pool:65536"], "a port from 1 to 65535.*pool:65536"),
        ([*ENGINE, "beam.runner=spark", "beam.parallelism=2"], "beam.parallelism 2 .* beam.runner spark: remove it"),
        ([*ENGINE, "beam.options.runner=x"], "beam.options.runner 'x': use the setting beam.runner instead"),
        ([*ENGINE, "beam.options={--a: 1}"], "'--a' is not the name of an option: write it without dashes"),
    ],
)
def test_settings_that_contradict_each_other_are_rejected(flags, message):
    with pytest.raises(SettingsError, match=message):
        settings(*flags)


def test_a_missing_job_service_is_named_within_seconds(closed_port, sample_data):
    started = time.monotonic()
    with pytest.raises(EngineError, match=rf"beam.job_service {closed_port}: start the job server"):
        check_job_service(settings(*ENGINE, f"beam.job_service={closed_port}"))
    assert time.monotonic() - started < 10
    flags = [*ENGINE, f"beam.job_service={closed_port}", "name=unanswered"]
    done = vitpipe(sample_data, "run", "-c", "sample", *(part for flag in flags for part in ("--set", flag)))
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr and done.stderr.count("beam.job_service") == 1


# The text of errors of Flink, shortened.
_TRACEBACK = """Pipeline BeamApp-1 failed in state FAILED: java.lang.RuntimeException: Error received from SDK harness \
for instruction 1: Traceback (most recent call last):
  File "apache_beam/runners/common.py", line 1512, in apache_beam.runners.common.DoFnRunner.process
{error}

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
{error} [while running 'FlatMap(measure_shard)']

\tat org.apache.beam.runners.fnexecution.control.FnApiControlClient
"""
_LOST = "Pipeline BeamApp-1 failed in state FAILED: io.grpc.StatusRuntimeException: CANCELLED: client cancelled"
_NO_POOL = "Pipeline BeamApp-1 failed in state FAILED: java.net.ConnectException: Connection refused"


@pytest.fixture
def argv():
    """Arguments of an engine whose job service answers."""
    import grpc
    from apache_beam.utils.thread_pool_executor import shared_unbounded_instance

    server = grpc.server(shared_unbounded_instance())
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield arguments(settings(*ENGINE, f"beam.job_service=127.0.0.1:{port}", "beam.worker_pool=pool:50000"))
    server.stop(0)


def test_a_lost_worker_or_pool_is_a_failure_of_the_engine(argv):
    lost, refused = (explain(RuntimeError(text), argv) for text in (_LOST, _NO_POOL))
    assert isinstance(lost, EngineError) and isinstance(refused, EngineError)
    assert "a worker of the pool at beam.worker_pool pool:50000 was killed" in str(lost)
    assert "no pool answers at beam.worker_pool pool:50000" in str(refused)


def test_a_job_service_that_is_gone_is_a_failure_of_the_engine(closed_port):
    error = explain(RuntimeError(_LOST), arguments(settings(*ENGINE, f"beam.job_service={closed_port}")))
    assert isinstance(error, EngineError) and f"no job service answers at beam.job_service {closed_port}" in str(error)


def test_exceptions_of_our_code_in_a_worker_are_no_failures_of_the_engine(argv):
    refused = explain(RuntimeError(_TRACEBACK.format(error="components.errors.DataRefused: a: cut")), argv)
    assert isinstance(refused, DataRefused) and str(refused) == "a: cut"
    chained = "components.errors.DataRefused: a: cut\nb: changed"
    refused = explain(RuntimeError(_TRACEBACK.format(error=chained)), argv)
    assert isinstance(refused, DataRefused) and str(refused) == "a: cut\nb: changed"
    crashed = explain(RuntimeError(_TRACEBACK.format(error="ValueError: no class 'x': one")), argv)
    assert type(crashed) is RuntimeError and str(crashed) == "ValueError: no class 'x': one"


def test_other_errors_are_returned_unchanged(argv):
    for step in "Map(write_table)", "Map(functools.partial(<function f>, '94956d', <function g>))":
        in_memory = explain(DataRefused(f"a: cut [while running '{step}']"), IN_MEMORY)
        assert isinstance(in_memory, DataRefused) and str(in_memory) == "a: cut"
    for error in ValueError("x"), RuntimeError("x"), TimeoutError("x"):
        assert explain(error, argv) is error
    lost = RuntimeError(_LOST)
    assert explain(lost, IN_MEMORY) is lost and explain(lost, ()) is lost
