"""The pool of worker processes that a Beam engine asks for workers."""

import os
import signal
import socket
import subprocess
import sys

import grpc
import psutil
import pytest
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc, endpoints_pb2


@pytest.fixture
def port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def test_workers_are_started_stopped_and_reported_if_they_were_killed(port):
    engine = socket.create_server(("127.0.0.1", 0))  # accepts the workers' connections, and does not answer
    url = f"127.0.0.1:{engine.getsockname()[1]}"
    command = [sys.executable, "-m", "pipeline.worker_pool", "--port", str(port)]
    pool = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PATH": ""})
    try:
        assert f"127.0.0.1:{port}" in pool.stderr.readline()
        addresses = {one.laddr.ip for one in psutil.Process(pool.pid).net_connections() if one.status == "LISTEN"}
        assert addresses and addresses <= {"127.0.0.1", "::ffff:127.0.0.1"}
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = beam_fn_api_pb2_grpc.BeamFnExternalWorkerPoolStub(channel)
            for name in "1-1", "1-2", "1-3":
                control = endpoints_pb2.ApiServiceDescriptor(url=url)
                request = beam_fn_api_pb2.StartWorkerRequest(worker_id=name, control_endpoint=control)
                assert stub.StartWorker(request, wait_for_ready=True).error == ""
                assert f"worker {name} is process" in pool.stderr.readline()
            killed, stopped, last = (
                next(one for one in psutil.Process(pool.pid).children() if one.cmdline()[-1] == name)
                for name in ("1-1", "1-2", "1-3")
            )
            killed.kill()
            line = pool.stderr.readline()
            assert f"worker 1-1, process {killed.pid}, was killed by SIGKILL" in line
            stub.StopWorker(beam_fn_api_pb2.StopWorkerRequest(worker_id="1-2"))
            assert not stopped.is_running()
            # A restarted engine asks for a worker with the same id.
            request = beam_fn_api_pb2.StartWorkerRequest(worker_id="1-3", control_endpoint=control)
            assert stub.StartWorker(request, wait_for_ready=True).error == ""
            assert not last.is_running()
            last = next(one for one in psutil.Process(pool.pid).children() if one.cmdline()[-1] == "1-3")
        pool.send_signal(signal.SIGTERM)
        _, rest = pool.communicate(timeout=30)
        assert pool.returncode == 0 and not last.is_running()
        assert "killed" not in rest
    finally:
        pool.kill()
        engine.close()
