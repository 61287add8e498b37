import re
import socket
from urllib.parse import urlsplit

import pytest

from vitpipe.ui.app import create_app
from vitpipe.ui.safety import is_local


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("::", False)]
)
def test_is_local(host, local):
    assert is_local(host) is local


def test_another_name_for_this_machine_is_refused(runs):
    client = create_app(runs).test_client()
    for host in ("evil.example:8471", "localhost.evil.example", "", "[::1"):
        assert client.get("/", headers={"Host": host}).status_code == 400
    for host in ("localhost:8471", "127.0.0.1:8471", "[::1]:8471"):
        assert client.get("/", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("method", ["post", "put", "delete", "patch", "options"])
def test_methods_other_than_get_and_head_are_rejected(runs, method):
    client = create_app(runs).test_client()
    assert getattr(client, method)("/").status_code == 405
    assert client.head("/").status_code == 200


def test_a_server_for_other_machines_requires_the_token(runs):
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


def test_pages_load_nothing_from_other_servers(runs):
    client = create_app(runs).test_client()
    policy = client.get("/").headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert "script-src 'self';" in client.get("/sample/charts").headers["Content-Security-Policy"]
    assert client.get("/none").headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize(
    ("asked", "location"),
    [
        ("/?pipeline=sample&token=right&state=failed", "/?pipeline=sample&state=failed"),
        ("/sample/runs/sample-run-028?token=right", "/sample/runs/sample-run-028"),
        ("/%5Cevil.example/?token=right", "/%5Cevil.example/"),
        (
            "/sample/charts?token=right&_external=1&_scheme=javascript&endpoint=x&store=y",
            "/sample/charts?_external=1&_scheme=javascript&endpoint=x&store=y",
        ),
    ],
)
def test_the_token_redirects_to_the_same_page(runs, asked, location):
    answer = create_app(runs, "0.0.0.0", "right").test_client().get(asked)
    assert (answer.status_code, answer.location) == (303, location)


@pytest.mark.parametrize(
    "query", ["_external=1&_scheme=javascript", "_method=POST", "_anchor=x", "endpoint=x", "self=x"]
)
def test_no_query_changes_how_links_of_a_page_are_built(runs, query):
    page = create_app(runs).test_client().get(f"/?{query}")
    assert page.status_code == 200 and 'href="/?page=2"' in page.text


TARGETS = [
    "//evil.example",
    "///evil.example/",
    "/%2f%2fevil.example",
    "/%2fevil.example",
    "/%09/evil.example",
    "/%5cevil.example",
    "/\\evil.example",
    "/;@evil.example",
    "/%0d%0aSet-Cookie:x",
    "/sample/runs/%00",
    "/sample/runs/x/report/%00",
    "/-/%00",
    "/-/%0a",
    "/%7f/",
    "/%c2%9b/",
    "/sample",
    "/sample/artifacts/",
    "/a/../b",
    "/./sample",
    "/%ff%fe/",
    "/sample/artifacts?type=%00",
    "/?pipeline=%00",
    "/?page=%00",
    "/?%0d%0a=1",
    "http://evil.example/",
    "http://evil.example//x",
    "//evil.example/sample/charts",
    "/@evil.example/charts",
    "/sample/artifacts/1/up%0a",
    "*",
    "/?",
    "/-/explain/%0d",
]
HEADERS = [
    "",
    "Host: evil.example\r\n",
    "X-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: javascript\r\n",
    "X-Forwarded-Prefix: //evil.example\r\nForwarded: host=evil.example\r\nX-Original-URL: //evil.example\r\n",
]


@pytest.mark.parametrize("token", [None, "right"])
@pytest.mark.parametrize("headers", HEADERS)
def test_no_address_leads_away_or_breaks_the_server(runs, serve, token, headers):
    address = urlsplit(serve(create_app(runs, "127.0.0.1", token)))
    for target in TARGETS:
        separator = "&" if "?" in target else "?"
        for asked in target, f"{target}{separator}token=right":
            own = headers if headers.startswith("Host") else f"Host: {address.netloc}\r\n{headers}"
            with socket.create_connection((address.hostname, address.port), timeout=30) as connection:
                connection.sendall(f"GET {asked} HTTP/1.0\r\n{own}\r\n".encode("latin-1"))
                answer = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
            head = answer.partition("\r\n\r\n")[0]
            status = int(head.split()[1])
            assert status in (200, 302, 303, 400, 403, 404), (asked, head)
            locations = re.findall(r"^location: *([^\r]*)", head, re.IGNORECASE | re.MULTILINE)
            assert len(locations) == (status in (302, 303))
            for location in locations:
                assert re.match(r"/(?![/\\\t])[!-~]*$", location), (asked, location)
            assert "Traceback" not in answer and "Set-Cookie:x" not in head
