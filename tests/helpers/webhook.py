"""Webhook for tests: a real HTTP server that keeps the messages that it gets."""

import contextlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Webhook:
    """The messages of a webhook, and the statuses of its next answers."""

    def __init__(self):
        self.address = ""  # with a secret in its path
        self.messages, self.paths, self.headers = [], [], []
        self.statuses = []  # of the next answers; afterwards 200
        self.silent = threading.Event()  # no answer while it is set


@contextlib.contextmanager
def webhook():
    """Start a server. Yields its `Webhook`."""
    hook = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            hook.messages.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            hook.paths.append(self.path)
            hook.headers.append(dict(self.headers))
            while hook.silent.is_set():
                threading.Event().wait(0.02)
            with contextlib.suppress(ConnectionError):
                self.send_response(hook.statuses.pop(0) if hook.statuses else 200)
                self.send_header("Location", f"http://{self.headers['Host']}/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        hook.address = f"http://127.0.0.1:{server.server_port}/services/s3cret?key=s3cret"
        try:
            yield hook
        finally:
            hook.silent.clear()
            server.shutdown()
