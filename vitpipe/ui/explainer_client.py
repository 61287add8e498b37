"""Client of the process that explains images by a pushed model: pages never wait for TensorFlow to load."""

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

_ANSWERS = 8  # kept to be shown, of about a megabyte each
_WAIT = 5.0  # seconds, while another image is looked at: less than would keep all threads from other pages
_ENDS = 2.0  # seconds that the process is given
_LIMIT = 120.0  # seconds for an image, with the start of the process and the model


class Refused(Exception):
    """The image or the model cannot be used. The message is a sentence for the page: why, and what to do."""


class Busy(Exception):
    """Another image is being looked at."""


class ExplainerClient:
    """Asks the process, one image at a time, and keeps the newest answers.

    The process starts with the first image and ends by itself: when it is asked nothing for some minutes, and when
    this one ends, however it ends.
    """

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: weakref.finalize[[subprocess.Popen[bytes], Connection], ExplainerClient] | None = None
        self._connection: Connection | None = None
        self._pages: dict[str, str] = {}

    def ask(self, model: Path, image: bytes) -> str:
        """The name under which `page` has the answer. image: of a PNG or JPEG file.

        Raises Refused where there is none, Busy while others wait.
        """
        if not self._one.acquire(timeout=_WAIT):
            raise Busy("Another image is being looked at: try again in some seconds.")
        try:
            reply = self._reply(model, image)
            if reason := reply.get("refused"):
                raise Refused(reason)
            name = secrets.token_urlsafe()
            self._pages[name] = reply["page"]
            while len(self._pages) > _ANSWERS:
                del self._pages[next(iter(self._pages))]
            return name
        finally:
            self._one.release()

    def page(self, name: str) -> str | None:
        """The HTML of an answer, None where it is no longer kept."""
        return self._pages.get(name)

    def _reply(self, model: Path, image: bytes) -> dict[str, str]:
        process, connection = self._running()
        late = threading.Timer(_LIMIT, process.kill)
        late.daemon = True
        start = time.monotonic()  # taken first: when the timer kills the process, the limit has then passed
        late.start()
        try:
            connection.send_bytes(str(model.resolve()).encode())
            connection.send_bytes(image)
            reply: dict[str, str] = json.loads(connection.recv_bytes())
        except (EOFError, OSError):
            self._end()
            if process.returncode == 0:  # it had not been asked for so long that it ended as this image came
                return self._reply(model, image)
            if time.monotonic() - start >= _LIMIT:
                raise Refused(f"The model did not answer within {_LIMIT:.0f} s and was stopped: try again.") from None
            raise Refused(
                f"The process of the model ended while it looked at the image (exit {process.returncode}): the next "
                "image starts it again; the terminal of `vitpipe ui` may say why."
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
                root = Path(__file__).parents[2]  # where `pipeline` is imported from
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
    connection.close()  # which ends the process
    try:
        process.wait(_ENDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
