"""`python -m pipeline.worker_pool --port 50000`: start worker processes for a Beam engine, on one of its machines.

The engine asks the pool for workers, which run in the environment of the pool. Every program that can connect to the
pool can run code on this machine, so the pool listens on 127.0.0.1 by default.

Beam's own pool is not used, because it listens on every network interface, starts the first `python` on the PATH, does
not report workers that were killed, and keeps the output of workers in a pipe that nobody reads.
"""

import argparse
import logging
import signal
import subprocess
import sys
import threading

import grpc
from apache_beam.portability.api import beam_fn_api_pb2, beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer, kill_process_gracefully
from apache_beam.utils import thread_pool_executor

log = logging.getLogger(__name__)

_WORKER = """
import sys
from apache_beam.runners.worker.sdk_worker import SdkHarness
SdkHarness(sys.argv[1], worker_id=sys.argv[2], data_buffer_time_limit_ms=-1).run()
"""
# By default, gRPC closes connections on which the engine sends many keepalive pings.
_OPTIONS = [("grpc.http2.max_pings_without_data", 0), ("grpc.http2.max_ping_strikes", 0)]


class WorkerPool(BeamFnExternalWorkerPoolServicer):
    """Service that starts and stops workers in processes of this environment, and reports those that were killed."""

    def StartWorker(  # noqa: N802 # a method of the service
        self, request: beam_fn_api_pb2.StartWorkerRequest, _context: grpc.ServicerContext
    ) -> beam_fn_api_pb2.StartWorkerResponse:
        """Start a worker, which connects to the engine that asks for it."""
        try:
            worker = subprocess.Popen(
                [sys.executable, "-c", _WORKER, request.control_endpoint.url, request.worker_id],
                stdin=subprocess.DEVNULL,
            )
        except OSError as error:
            return beam_fn_api_pb2.StartWorkerResponse(error=f"the pool cannot start a worker: {error}")
        # A restarted engine gives the same ids again.
        earlier = self._worker_processes.get(request.worker_id)
        self._worker_processes[request.worker_id] = worker
        if earlier:
            kill_process_gracefully(earlier)
        log.info("worker %s is process %d", request.worker_id, worker.pid)
        threading.Thread(target=self._watch, args=(request.worker_id, worker), daemon=True).start()
        return beam_fn_api_pb2.StartWorkerResponse()

    def _watch(self, name: str, worker: subprocess.Popen[bytes]) -> None:
        """Wait for the end of a worker, and report it unless the engine or the pool stopped the worker."""
        code = worker.wait()
        if self._worker_processes.get(name) is not worker:  # it was stopped
            return
        del self._worker_processes[name]
        if code:
            end = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            log.error(
                "worker %s, process %d, %s; its job fails, and vitpipe tries it again%s",
                name,
                worker.pid,
                end,
                ". Check the memory of this machine" if code == -signal.SIGKILL else "",
            )

    def stop(self) -> None:
        """Stop all workers."""
        while self._worker_processes:
            kill_process_gracefully(self._worker_processes.popitem()[1])


def main() -> None:
    """Run the pool until it is stopped by SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True, help="port to listen on")
    parser.add_argument("--host", default="127.0.0.1", help="address of the interface to listen on")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    address = f"{arguments.host}:{arguments.port}"
    pool = WorkerPool(use_process=True)
    server = grpc.server(thread_pool_executor.shared_unbounded_instance(), options=_OPTIONS)
    beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
    try:
        server.add_insecure_port(address)
    except RuntimeError as error:
        parser.error(f"cannot listen on {address}: {error}. Name another --port or --host")
    server.start()
    log.info("the pool at %s waits for an engine", address)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    try:
        server.wait_for_termination()
    except KeyboardInterrupt:
        pass
    finally:
        server.stop(0)
        pool.stop()


if __name__ == "__main__":
    main()
