"""Client of the process that explains images with a pushed model, so that no other page waits for TensorFlow."""

import json
import secrets
import subprocess
import sys
import threading
import time
import weakref
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

MOST_ANSWERS = 8  # kept in memory, of about a megabyte each
_WAIT = 5.0  # seconds for another image; a longer wait could occupy all threads of the server
_ENDS = 2.0  # seconds that the process has to end before it is killed
_LIMIT = 120.0  # seconds for an image, including the start of the process and loading of the model


class RefusedError(Exception):
    """Error for an image or a model that cannot be used. The message is for the page: the reason, and what to do."""


class BusyError(Exception):
    """Error for a request while another image is being explained."""


class ExplainerClient:
    """Client that sends one image at a time and keeps the newest answers.

    The process starts with the first image. It ends when no image has come for some minutes, and when this process
    ends for any reason.
    """

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[[subprocess.Popen[bytes], Connection], ExplainerClient] | None = None
        self._connection: Connection | None = None
        self._pages: dict[str, str] = {}

    def ask(self, model: Path, image: bytes) -> str:
        """Explain an image and return the name of the answer, for `page`.

        Args:
            model: Folder of a pushed model.
            image: Content of a PNG or JPEG file.

        Raises:
            RefusedError: If the image or the model cannot be used.
            BusyError: If another image is still being explained after some seconds.
        """
        if not self._one.acquire(timeout=_WAIT):
            raise BusyError("Another image is being explained. Try again in some seconds.")
        try:
            reply = self._reply(model, image)
            if reason := reply.get("refused"):
                raise RefusedError(reason)
            name = secrets.token_urlsafe()
            self._pages[name] = reply["page"]
            while len(self._pages) > MOST_ANSWERS:
                del self._pages[next(iter(self._pages))]
            return name
        finally:
            self._one.release()

    def page(self, name: str) -> str | None:
        """Return the HTML of an answer; None if the answer is no longer kept."""
        return self._pages.get(name)

    def _reply(self, model: Path, image: bytes) -> dict[str, str]:
        process, connection = self._running()
        late = threading.Timer(_LIMIT, process.kill)
        late.daemon = True
        start = time.monotonic()  # before the timer starts, so that the limit has passed if the timer kills the process
        late.start()
        try:
            connection.send_bytes(str(model.resolve()).encode())
            connection.send_bytes(image)
            reply: dict[str, str] = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            self._end()
            if process.returncode == 0:  # it was idle for too long and ended just as this image came
                return self._reply(model, image)
            if time.monotonic() - start >= _LIMIT:
                raise RefusedError(
                    f"The model did not answer within {_LIMIT:.0f} s and was stopped. Try again."
                ) from None
            raise RefusedError(
                f"The process with the model ended while it explained the image (exit code {process.returncode}). "
                "Try again, which starts it anew. The terminal of `vitpipe ui` may show the reason."
            ) from None
        finally:
            late.cancel()
        return reply

    def _running(self) -> tuple[subprocess.Popen[bytes], Connection]:
        if self._process is None or self._connection is None or self._process.poll() is not None:
            self._end()
            self._connection, theirs = Pipe()
            with theirs:
                command = [sys.executable, "-m", "vitpipe.ui.explainer", str(theirs.fileno())]
                root = Path(__file__).parents[2]  # folder from which `pipeline` is imported
                # In a process group of its own, so that Ctrl-C reaches only this process.
                self._process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], cwd=root, process_group=0
                )
            self._finalizer = weakref.finalize(self, _end, self._process, self._connection)
        return self._process, self._connection

    def _end(self) -> None:
        if self._connection and self._process:
            _end(self._process, self._connection)
        if self._finalizer:
            self._finalizer.detach()


def _end(process: subprocess.Popen[bytes], connection: Connection) -> None:
    connection.close()  # this ends the process
    try:
        process.wait(_ENDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
