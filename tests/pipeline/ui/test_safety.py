import pytest

from pipeline.ui.app import create_app
from pipeline.ui.safety import is_local


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)]
)
def test_what_is_local(host, local):
    assert is_local(host) is local


def test_another_name_for_this_machine_is_refused(runs):
    client = create_app(runs).test_client()
    for host in ("evil.example:8471", "localhost.evil.example", "", "[::1"):
        assert client.get("/", headers={"Host": host}).status_code == 400
    for host in ("localhost:8471", "127.0.0.1:8471", "[::1]:8471"):
        assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch", "options"])
def test_only_reading(runs, method):
    client = create_app(runs).test_client()
    assert getattr(client, method)("/").status_code == 405
    assert client.head("/").status_code == 200


def test_beyond_this_machine_the_token_is_asked_for(runs):
    client = create_app(runs, "0.0.0.0", "right").test_client()
    assert client.get("/").status_code == 403
    assert client.get("/-/ui.css").status_code == 403
    assert client.get("/?token=wrong").status_code == 403
    assert client.get("/?token=r%C3%AFght").status_code == 403
    answer = client.get("/sample/charts?token=right")
    assert (answer.status_code, answer.location) == (303, "/sample/charts")
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie
    assert client.get("/").status_code == 200


def test_a_page_may_load_only_from_here(runs):
    client = create_app(runs).test_client()
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert "script-src 'self';" in client.get("/sample/charts").headers["Content-Security-Policy"]
    assert client.get("/none").headers["X-Content-Type-Options"] == "nosniff"
