"""A message reaches its webhook, or fails within limits and without showing the address."""

import logging
import socket

import pytest
from pydantic import SecretStr

from components.errors import ServerError
from pipeline.monitoring import webhook as module
from pipeline.monitoring.webhook import TRIES, Webhook, send
from tests.helpers.webhook import webhook


@pytest.fixture
def hook(monkeypatch):
    monkeypatch.setattr(module, "_BACK_OFF", 0)
    with webhook() as server:
        yield server


def refused(address):
    """Return the message of the error, which must not show the secret."""
    with pytest.raises(ServerError, match="did not accept an alert") as error:
        send(SecretStr(address), {"text": "hello"})
    assert str(error.value).startswith("127.0.0.1 did") and "s3cret" not in str(error.value)
    assert error.value.__cause__ is None and error.value.__context__ is None
    return str(error.value)


def test_a_message_is_sent_once(hook, caplog):
    caplog.set_level(logging.INFO)
    send(SecretStr(hook.address), {"text": "hello", "value": float("nan")})
    assert hook.messages == [{"text": "hello", "value": None}]
    assert hook.paths == ["/services/s3cret?key=s3cret"] and hook.headers[0]["Content-Type"] == "application/json"
    assert "s3cret" not in caplog.text


def test_a_failure_that_may_pass_is_tried_again(hook, caplog):
    hook.statuses = [503, 429]
    send(SecretStr(hook.address), {"text": "hello"})
    assert len(hook.messages) == TRIES == 3 and "s3cret" not in caplog.text
    hook.statuses = [500] * TRIES
    assert "tried 3 times: 500" in refused(hook.address)
    assert len(hook.messages) == 2 * TRIES


@pytest.mark.parametrize("status", [307, 302, 400, 404, 410])
def test_other_answers_are_final_and_no_redirect_is_followed(hook, status):
    hook.statuses = [status]
    assert f"({status} " in refused(hook.address)
    assert len(hook.messages) == 1


def test_a_server_without_an_answer_ends_after_a_limited_time(hook, monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.3)
    hook.silent.set()
    assert "no answer within 0.3 s" in refused(hook.address)


def test_a_server_that_does_not_run(hook):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    assert "tried 3 times: Connection refused" in refused(f"http://user:s3cret@127.0.0.1:{port}/s3cret")


@pytest.mark.parametrize("follow", [True, False])
def test_a_pause_is_reported_only_if_more_messages_may_follow(hook, follow):
    sender, address = Webhook(follow), SecretStr(hook.address)
    hook.statuses = [200, 404]
    with pytest.raises(ServerError, match=r"404 .*Windows with alerts that were not sent: 2") as error:
        sender.send_all(address, [{"text": "one"}, {"text": "two"}, {"text": "three"}])
    assert ("those of the next 5 minutes will not be sent either" in str(error.value)) == follow
    with pytest.raises(ServerError, match="in the last 5 minutes, so windows with alerts were not sent: 1"):
        sender.send_all(address, [{"text": "four"}])
    assert len(hook.messages) == 2
