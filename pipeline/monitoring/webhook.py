"""Alerts as messages to a webhook, such as one of a chat program. Its address is a secret."""

import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import tenacity
from pydantic import SecretStr

from components.errors import ServerError
from components.quantities import quantity
from pipeline.console.terminal import json_text, printable
from pipeline.monitoring.report import Window
from pipeline.settings.monitor import WEBHOOK

TRIES = 3
_BACK_OFF = 1.0  # seconds before the second try, which double with each further try
_TIMEOUTS = 5.0, 10.0  # seconds to connect, and between two parts of the answer
_SECONDS = 30.0  # for all tries
_PAUSE = 300.0  # seconds without messages after one that was not accepted
_TRANSIENT = (429, 500, 502, 503, 504)


class Webhook:
    """Sender of messages, which pauses after a failure, so that a webhook that does not answer delays nothing else.

    Args:
        follow: messages are sent several times. False: they are sent once, so that no pause needs to be reported.
    """

    def __init__(self, follow: bool) -> None:
        self._follow = follow
        self._paused_until = 0.0  # in seconds of `time.monotonic`

    def send_all(self, address: SecretStr, messages: Sequence[dict[str, Any]]) -> None:
        """Send messages in order. Without an address, nothing is sent.

        Args:
            address: address of the webhook.
            messages: the messages, each about one window with an alert.

        Raises:
            ServerError: if a message was not accepted. Neither the messages after it nor those of the next minutes are
                sent.
        """
        if not address.get_secret_value() or not messages:
            return
        if time.monotonic() < self._paused_until:
            raise ServerError(
                f"the webhook did not accept an alert in the last {_PAUSE / 60:g} minutes, so windows with alerts were "
                f"not sent: {len(messages):,}"
            )
        for place, content in enumerate(messages):
            try:
                send(address, content)
            except ServerError as error:
                self._paused_until = time.monotonic() + _PAUSE
                pause = f"; those of the next {_PAUSE / 60:g} minutes will not be sent either" if self._follow else ""
                raise ServerError(
                    f"{error}. Windows with alerts that were not sent: {len(messages) - place:,}{pause}"
                ) from None


class _TransientError(ServerError):
    """The message was not accepted, but may be if it is sent again."""


def message(pipeline: str, window: Window, report: str | None) -> dict[str, Any]:
    """Return the message about the alerts of a window.

    Args:
        pipeline: name of the pipeline.
        window: the window.
        report: path of the recorded report; None if it could not be recorded.
    """
    alerts = window.alerts
    more = f" (and {', '.join(alert.check for alert in alerts[1:])})" if len(alerts) > 1 else ""
    return {
        # Chat programs show this line.
        "text": printable(
            f"{pipeline}: {quantity(len(alerts), 'alert')} in window {window.number} of version {window.version}: "
            f"{alerts[0]}{more}"
        ),
        "pipeline": pipeline,
        "version": window.version,
        "window": window.model_dump(mode="json", include={"number", "start", "end", "answers", "failed", "invalid"}),
        "checks": [
            {
                "check": alert.check,
                "value": alert.value,
                "bound": alert.bound.stop,
                "sense": alert.sense,
                "text": alert.text,
                "fix": alert.fix,
            }
            for alert in alerts
        ],
        "report": report,
    }


def send(address: SecretStr, content: dict[str, Any]) -> None:
    """Send a message. Failures that may pass are tried again, within a limited time.

    Args:
        address: address of the webhook. Errors name only its host, because the rest may contain a secret.
        content: the message.

    Raises:
        ServerError: if the message was not accepted.
    """
    host = urlsplit(address.get_secret_value()).hostname
    failure = f"no answer within {_SECONDS:g} s"
    retry = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(_TransientError),
        stop=tenacity.stop_after_attempt(TRIES),
        wait=tenacity.wait_exponential(_BACK_OFF),
        reraise=True,
    )

    def try_all() -> None:
        nonlocal failure
        try:
            retry(_post, address, json_text(content, None).encode())
            failure = ""
        except ServerError as error:
            failure = f"tried {TRIES} times: {error}" if isinstance(error, _TransientError) else str(error)
        except Exception as error:  # its text may repeat the address
            failure = type(error).__name__

    # The limits of a request apply neither to the look-up of a host nor to an answer that comes byte by byte.
    thread = threading.Thread(target=try_all, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    if failure:
        raise ServerError(f"{host} did not accept an alert ({failure}): check the address in {WEBHOOK}")


def _post(address: SecretStr, body: bytes) -> None:
    import requests  # takes long to import

    headers = {"Content-Type": "application/json"}
    try:
        # A redirect could lead to any host, and would turn the request into another one.
        response = requests.post(
            address.get_secret_value(), body, headers=headers, timeout=_TIMEOUTS, allow_redirects=False, stream=True
        )
    except (requests.ConnectionError, requests.Timeout) as error:
        raise _TransientError(_cause(error)) from None
    response.close()  # the answer itself is not needed
    status = f"{response.status_code} {printable(response.reason)}"
    if response.status_code in _TRANSIENT:
        raise _TransientError(status)
    if not 200 <= response.status_code < 300:
        raise ServerError(status)


def _cause(error: BaseException) -> str:
    """Return the reason of the operating system; the texts of the libraries' errors repeat the address."""
    root = error
    while cause := root.__cause__ or root.__context__:
        root = cause
    return getattr(root, "strerror", None) or type(error).__name__
