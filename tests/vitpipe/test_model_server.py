"""The client of a model server, over real sockets with both protocols."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import keras
import numpy as np
import pytest
import tensorflow as tf

from components.errors import ServerError
from tests.helpers import model_server
from tests.helpers.spans import encoded, picture
from trainer import serving
from trainer.vit import ViT
from vitpipe import cli
from vitpipe.model_server import BATCH_BYTES, TRIES, Server, ask, batches

ROOT = Path(__file__).resolve().parents[2]
BROKEN = b"<html>not an image</html>"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    model = ViT(image_size=8, patch_size=4, classes=3, depth=1, width=8, heads=2)
    model.head.kernel.assign(keras.random.normal(model.head.kernel.shape, seed=1))
    folder = tmp_path_factory.mktemp("saved") / "1"
    serving.export(model, ["cat", "dog", "Kätzchen"], str(folder))
    return folder


@pytest.fixture(scope="module")
def signatures(folder):
    return tf.saved_model.load(str(folder)).signatures


@pytest.fixture(scope="module")
def images():
    return [encoded(picture(seed)) for seed in range(5)]


@pytest.fixture
def served(signatures):
    return model_server.Served(signatures)


@pytest.fixture(params=["rest", "grpc"])
def server(request, served):
    """Server of `served` with short time limits, once for each protocol."""
    over = model_server.rest if request.param == "rest" else model_server.over_grpc
    with over(served) as address:
        yield quick(address, grpc=request.param == "grpc")


def quick(address, **options):
    return Server(address, "vit", **options, connect_s=2, answer_s=5, back_off_s=0.01)


def server_error(server, images):
    with pytest.raises(ServerError) as caught:
        list(ask(server, images))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_answers_equal_those_of_the_savedmodel_exactly(server, signatures, images):
    asked = [images[0], BROKEN, b"", *images[1:], images[0] + b"\0\0"]
    called = signatures["serving_bytes"](image_bytes=tf.constant(asked))
    answers = list(ask(server, asked))
    assert [answer.probabilities for answer in answers] == called["probabilities"].numpy().tolist()
    assert [answer.name for answer in answers] == [name.decode() for name in called["class"].numpy()]
    assert [answer.valid for answer in answers] == [True, False, False, True, True, True, True, True]


def test_many_images_are_sent_in_batches_and_keep_their_order(server, served, signatures, images):
    asked = (images * 14)[:70]
    answers = list(ask(server, asked))
    assert served.batches == [32, 32, 6]
    called = signatures["serving_bytes"](image_bytes=tf.constant(asked))["probabilities"].numpy()
    assert max(abs(called - [answer.probabilities for answer in answers]).flatten()) < 1e-6


def test_batches_are_limited_in_bytes():
    large, small = bytes(BATCH_BYTES + 1), bytes(BATCH_BYTES // 2)
    assert list(batches([small, small, small, large, small])) == [[small, small], [small], [large], [small]]
    assert list(batches([])) == []


@pytest.mark.parametrize(
    "failures",
    [
        {False: [503, 503], True: [grpc.StatusCode.UNAVAILABLE] * 2},
        {False: [502, 504], True: [grpc.StatusCode.DEADLINE_EXCEEDED] * 2},
    ],
)
def test_a_busy_server_is_tried_again(server, served, images, failures):
    served.failures = failures[server.grpc]
    assert len(list(ask(server, images))) == 5
    assert served.batches == [5, 5, 5]


def test_a_server_is_tried_four_times(server, served, images):
    served.failures = [grpc.StatusCode.UNAVAILABLE if server.grpc else 503] * 10
    assert f"tried 4 times: no model server answers at {server.address} (" in server_error(server, images)
    assert len(served.batches) == TRIES


def test_an_invalid_request_is_not_repeated(server, served, images):
    served.failures = [grpc.StatusCode.INVALID_ARGUMENT if server.grpc else 400] * 10
    server_error(server, images)
    assert len(served.batches) == 1


def test_an_unknown_model_name_is_reported(server, served, images):
    message = server_error(server._replace(model="cat/../vit?"), images)
    assert "serves no model 'cat/../vit?' (" in message and "Servable not found" in message and "--name" in message
    assert len(served.batches) == 1


def test_a_missing_signature_is_reported(server, served, images):
    served.signatures = {"serving_default": None}
    message = server_error(server, images)
    assert "model 'vit' at" in message and "has no signature serving_bytes" in message
    assert len(served.batches) == 1


def test_unexpected_outputs_are_reported(server, served, images):
    served.predict = lambda signature, images: {"scores": tf.zeros([len(images), 2]).numpy()}
    assert "is not that of signature serving_bytes (KeyError(" in server_error(server, images)


def test_missing_rows_are_reported(server, served, images):
    whole = served.predict
    served.predict = lambda signature, images: whole(signature, images[1:])
    assert "(4 rows for 5 images)" in server_error(server, images)


def test_a_slow_server_times_out(server, served, images):
    served.delay_s = 0.6
    message = server_error(server._replace(answer_s=0.25), images)
    assert f"tried 4 times: {server.address} did not answer within 0.25 s" in message
    assert 1 < len(served.batches) <= TRIES


@pytest.mark.parametrize("over_grpc", [False, True])
def test_a_refused_connection_is_reported(over_grpc, images):
    address = f"127.0.0.1:{free_port()}"
    message = server_error(quick(address, grpc=over_grpc), images)
    assert f"tried 4 times: no model server answers at {address} (" in message
    assert "Connection refused" in message and ("8500" if over_grpc else "8501") in message


@pytest.mark.parametrize("over_grpc", [False, True])
def test_a_server_that_starts_during_the_retries_is_used(over_grpc, served, images):
    start = model_server.over_grpc if over_grpc else model_server.rest
    port, answered = free_port(), threading.Event()
    server = quick(f"127.0.0.1:{port}", grpc=over_grpc)._replace(back_off_s=0.1)

    def come_up():
        time.sleep(0.1)
        with start(served, port):
            answered.wait()

    thread = threading.Thread(target=come_up)
    thread.start()
    try:
        assert len(list(ask(server, images))) == 5
    finally:
        answered.set()
        thread.join()


def pump(source, target, pause_s=0.0):
    while some := source.recv(65536):
        target.sendall(some)
        time.sleep(pause_s)
    target.shutdown(socket.SHUT_WR)


def test_a_broken_connection_is_tried_again(images):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepted = []

        def reset():
            for _ in range(TRIES):
                connection, _ = listener.accept()
                accepted.append(connection.recv(10))
                connection.close()

        thread = threading.Thread(target=reset)
        thread.start()
        assert "tried 4 times: no model server answers" in server_error(
            quick(f"127.0.0.1:{listener.getsockname()[1]}"), images
        )
        thread.join()
        assert len(accepted) == TRIES


@pytest.mark.parametrize(
    "status, kind, text",
    [
        (200, "text/html", "<html>Hello"),
        (404, "text/html", "<html>No"),
        (302, "text/html", ""),
        (200, "application/json", "[]"),
        (404, "application/json", '{"detail": "Not Found"}'),
    ],
)
def test_a_web_server_is_not_a_model_server(status, kind, text, images):
    message = refused_by_web_server(status, kind, text, images)
    assert "is not a model server" in message and f"{status} " in message and kind in message
    assert "REST port (8501 by default), or add --grpc" in message


def test_a_message_too_large_for_a_proxy_is_reported(images):
    message = refused_by_web_server(413, "text/html", "<html>", images)
    assert "as too large" in message and "send smaller images" in message


def refused_by_web_server(status, kind, text, images):
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        message = server_error(quick(f"127.0.0.1:{server.server_port}"), images)
        server.shutdown()
    return message


def test_a_message_too_large_for_grpc_is_reported(served):
    with model_server.over_grpc(served) as address:
        message = server_error(quick(address, grpc=True), [bytes(5 << 20)])
    assert f"{address} rejects the message of 5,24" in message and "1 image(s)" in message


def test_mixed_up_protocols_are_reported(served, images):
    with model_server.rest(served) as address:
        message = server_error(quick(address, grpc=True), images)
        assert f"no model server answers at {address} (" in message and "gRPC port (8500 by default)" in message
    with model_server.over_grpc(served) as address:
        assert f"{address} is not a model server (it does not speak HTTP): name" in server_error(quick(address), images)


def test_another_grpc_server_is_not_a_model_server(images):
    other = grpc.server(futures.ThreadPoolExecutor(1))
    address = f"127.0.0.1:{other.add_insecure_port('127.0.0.1:0')}"
    other.start()
    assert f"{address} is not a model server (it answered UNIMPLEMENTED" in server_error(
        quick(address, grpc=True), images
    )
    other.stop(None)


def test_a_large_body_may_take_longer_than_the_time_limit_to_connect(served, images):
    """The connection transfers data all the time, but needs more than `connect_s` for the whole body."""

    def forward():
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                front, _ = listener.accept()
                with front, socket.create_connection(behind.split(":")) as back:
                    answer = threading.Thread(target=pump, args=(back, front), daemon=True)
                    answer.start()
                    with contextlib.suppress(ConnectionError):
                        pump(front, back, pause_s=0.003)
                    answer.join()

    with model_server.rest(served) as behind, socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        threading.Thread(target=forward, daemon=True).start()
        server = quick(f"127.0.0.1:{listener.getsockname()[1]}")._replace(connect_s=0.4)
        (answer,) = ask(server, [images[0] + bytes(8 << 20)])
    assert answer.valid


# The command.


@pytest.fixture
def files(images, tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path, content in zip(paths, [images[0], BROKEN, images[1]], strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


@pytest.fixture
def vitpipe(monkeypatch, capfd):
    """Function that runs a command in this process. Returns exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["vitpipe", *arguments])
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), *capfd.readouterr()

    return run


def test_the_command_prints_the_same_for_a_folder_and_a_server(vitpipe, served, folder, files):
    code, local, _ = vitpipe("predict", *files, "--model", str(folder), "--trust-model", "--json")
    assert code == 3
    _, lines, _ = vitpipe("predict", *files, "--model", str(folder), "--trust-model")
    for over, flags in (model_server.rest, []), (model_server.over_grpc, ["--grpc"]):
        with over(served) as address:
            assert vitpipe("predict", *files, "--server", address, *flags, "--json")[:2] == (3, local)
            assert vitpipe("predict", *files, "--server", address, *flags) == (3, lines, f"model vit at {address}\n")
            assert vitpipe("predict", files[0], "--server", address, *flags)[0] == 0
    assert [answer["valid"] for answer in json.loads(local)] == [True, False, True]


def test_the_command_prints_the_problems_of_an_image(vitpipe, served, folder, tmp_path):
    flat, halved, webp = (tmp_path / name for name in ("flat.jpg", "halved.jpg", "picture.webp"))
    flat.write_bytes(encoded(np.full((20, 20, 3), 90, "uint8"), "JPEG"))
    whole = encoded(picture(1), "JPEG")
    halved.write_bytes(whole[: len(whole) - 200] + bytes(198) + whole[-2:])  # TensorFlow would decode it
    webp.write_bytes(encoded(picture(2), "WEBP"))
    files = [str(file) for file in (flat, halved, webp)]
    with model_server.rest(served) as address:
        for where in ("--model", str(folder), "--trust-model"), ("--server", address):
            code, out, errors = vitpipe("predict", *files, *where, "--json")
            answers = json.loads(out)
            assert code == 3 and [answer["valid"] for answer in answers] == [True, False, False]
            reasons = ["", "cut or damaged", "a WebP image, not PNG or JPEG"]
            assert [answer["reason"] for answer in answers] == reasons
            assert [answer["remarks"] for answer in answers] == [["one_colour"], [], []]
            assert answers[1]["class"] == "" and sum(answers[1]["probabilities"]) == 0
            first, second = errors.splitlines()
            assert first.startswith(f"{flat}: every pixel has the same colour") and "model.background" in first
            assert second.startswith(f"{webp}: a WebP image, not PNG or JPEG: convert it")
    code, out, errors = vitpipe("predict", *files, "--model", str(folder), "--trust-model")
    assert f"{halved}\tcut or damaged\t" in out and f"{flat}: every pixel" in errors


def test_an_error_of_the_server_is_one_line_and_exit_code_1(vitpipe, served, files):
    with model_server.rest(served) as address:
        code, out, errors = vitpipe("predict", *files, "--server", address, "--name", "other")
    assert (code, out) == (1, "")
    assert errors.startswith(f"error: {address} serves no model 'other'") and errors.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--server", "localhost"], "--server 'localhost' is not HOST:PORT"),
        (["--server", "http://localhost:8501"], "is not HOST:PORT"),
        (["--server", "localhost:0"], "port from 1 to 65535"),
        (["--server", "localhost:65536"], "port from 1 to 65535"),
        (["--server", "::1:8501"], "[::1]:8501"),
        (["--server", "user@localhost:8501"], "is not HOST:PORT"),
        (["--server", "localhost:8501", "--model", "somewhere"], "--server and --model cannot be used together"),
        (["--grpc"], "name it with --server"),
        (["--name", "cat"], "name it with --server"),
    ],
)
def test_bad_usage_ends_with_exit_code_2(vitpipe, files, arguments, message):
    code, out, errors = vitpipe("predict", files[0], *arguments)
    assert (code, out) == (2, "")
    assert message in errors and "Traceback" not in errors


def test_rest_works_without_tensorflow(served, files):
    script = (
        "import sys; sys.modules.update(tensorflow=None, grpc=None, tfx=None); from vitpipe.cli import main; main()"
    )
    with model_server.rest(served) as address:
        done = subprocess.run(
            [sys.executable, "-c", script, "predict", files[0], "--server", address],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
