"""Connections that wait, or send an unwanted body, do not delay good requests."""

import contextlib
import socket
import threading
import time
import urllib.request
from urllib.parse import urlsplit

import pytest

from vitpipe.ui.app import create_app
from vitpipe.ui.safety import IMAGE, MAX_BODY

HALF = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half"


@pytest.fixture
def address(runs, serve):
    return serve(create_app(runs))


def connect(address):
    parts = urlsplit(address)
    return socket.create_connection((parts.hostname, parts.port), timeout=20)


def test_incomplete_headers_do_not_delay_other_requests(address):
    """300 connections with half a header, and 300 that send another byte now and then."""
    ended = threading.Event()
    with contextlib.ExitStack() as opened:
        silent, trickling = ([opened.enter_context(connect(address)) for _ in range(300)] for _ in range(2))
        for one in silent + trickling:
            with contextlib.suppress(ConnectionError):
                one.sendall(HALF)

        def trickle():
            while not ended.wait(0.2):
                for one in trickling:
                    with contextlib.suppress(OSError):
                        one.sendall(b"x")

        thread = threading.Thread(target=trickle)
        thread.start()
        try:
            for _ in range(3):
                start = time.monotonic()
                assert urllib.request.urlopen(address, timeout=60).status == 200
                assert time.monotonic() - start < 5
        finally:
            ended.set()
            thread.join()


def test_a_connection_whose_request_is_being_answered_is_kept(serve):
    begun, go_on = threading.Event(), threading.Event()

    def slow(environ, start_response):
        begun.set()
        go_on.wait(60)
        start_response("200 OK", [("Content-Length", "4")])
        return [b"done"]

    address = serve(slow)
    with connect(address) as asking, contextlib.ExitStack() as opened:
        asking.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(20)
        for _ in range(120):
            opened.enter_context(connect(address)).sendall(HALF)
        go_on.set()
        assert asking.recv(1000).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.parametrize("cookie", ["", "Cookie: vitpipe_token=wrong\r\n"])
@pytest.mark.parametrize("body", [f"Content-Length: {MAX_BODY - 1}", "Transfer-Encoding: chunked"])
def test_a_body_without_the_token_is_rejected_before_it_is_sent(runs, serve, cookie, body):
    with connect(serve(create_app(runs, "0.0.0.0", "right"), "right")) as asking:
        asking.sendall(
            f"POST /-/explain HTTP/1.1\r\nHost: x\r\nContent-Type: {IMAGE}\r\n{cookie}{body}\r\n\r\n".encode()
        )
        assert asking.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_a_body_with_the_token_is_read(runs, serve):
    with connect(serve(create_app(runs, "0.0.0.0", "right"), "right")) as asking:
        head = f"POST /-/explain HTTP/1.1\r\nHost: x\r\nOrigin: http://x\r\nContent-Type: {IMAGE}\r\n"
        asking.sendall(f"{head}Cookie: vitpipe_token=right\r\nContent-Length: 3\r\n\r\nabc".encode())
        assert asking.recv(1000).startswith(b"HTTP/1.1 422 ")
