"""Web server of the pages: waitress with a limit on waiting connections, which reads no bodies of unknown clients."""

import time
from typing import Any

import waitress
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import BaseWSGIServer

from vitpipe.ui.safety import MAX_BODY, brings_token

_WAITING = 48  # connections that may stay open without a request; waitress accepts 100 in all
_IDLE = 30  # seconds without data after which such a connection is closed


def create_server(app: Any, host: str, port: int, token: str | None = None) -> Any:
    """Return a server that listens for requests; `run()` answers them.

    Args:
        app: The WSGI application.
        host: Name or address to listen at.
        port: Port to listen at; 0 for a free one.
        token: Cookie that a request needs before its body is read. None if only this machine can connect.

    Raises:
        OSError: If the address is in use, or is not one of this machine.
        ValueError: If the host has no address.
    """

    class Parser(HTTPRequestParser):
        """Parser that rejects a body before it is read."""

        def parse_header(self, header_plus: bytes) -> None:
            super().parse_header(header_plus)
            has_body = self.chunked or self.content_length
            if has_body and (self.command != "POST" or not brings_token(self.headers.get("COOKIE", ""), token)):
                raise ParsingError(
                    "The body was not read. First open the address with the token that `vitpipe ui` printed"
                )

    class Channel(HTTPChannel):
        """Connection that makes room if too many wait, by closing those that waited longest for a whole request.

        A silent connection, a header sent byte by byte and an answer that nobody reads all count as waiting. A browser
        sends its request at once, and opens another connection if one that it kept is closed.
        """

        parser_class = Parser
        waits_since = 0.0

        def __init__(self, server: BaseWSGIServer, *arguments: Any, **named: Any) -> None:
            self.waits_since = time.monotonic()
            super().__init__(server, *arguments, **named)
            waiting = [one for one in server.active_channels.values() if not one.requests and not one.will_close]
            for one in sorted(waiting, key=lambda one: one.waits_since)[:-_WAITING]:
                # The event loop closes it later, so that its descriptor is not reused while events are handled.
                one.will_close = True

        def write_soon(self, data: Any) -> int:
            self.waits_since = time.monotonic()  # the request is being answered
            return int(super().write_soon(data))

    sockets: dict[int, Any] = {}
    # A body above the limit is not read, and nothing is buffered in a temporary file.
    server = waitress.create_server(
        app,
        map=sockets,
        host=host,
        port=port,
        threads=4,
        ident=None,
        channel_timeout=_IDLE,
        cleanup_interval=5,
        max_request_header_size=2**16,
        max_request_body_size=MAX_BODY,
        inbuf_overflow=2 * MAX_BODY,
        outbuf_overflow=2 * MAX_BODY,
    )
    for listening in sockets.values():  # several, if a name has several addresses
        if isinstance(listening, BaseWSGIServer):
            listening.channel_class = Channel
    return server
