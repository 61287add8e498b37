"""Access rules: who may send requests, and what a browser may do with an answer."""

from __future__ import annotations

import ipaddress
import re
import secrets
from urllib.parse import urlencode, urlsplit

from flask import Flask, Response, abort, redirect, request, url_for
from werkzeug.http import parse_cookie
from werkzeug.wrappers import Response as AnyResponse

_COOKIE = "vitpipe_token"
MAX_BODY = 16 * 2**20  # bytes of an image; 4096x4096 noisy pixels take 9 MB as a JPEG of quality 95
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Content type of an image. A form cannot send it, and the script of another site only if this server has agreed.
IMAGE = "application/octet-stream"
_PAGE = (
    "default-src 'none'; script-src 'self'; style-src 'self' {inline}; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# A report contains its own script and style. Without an origin it can neither read these pages nor send requests.
REPORT = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; frame-ancestors 'self'"
)
PAGE, CHARTS = _PAGE.format(inline=""), _PAGE.format(inline="'unsafe-inline'")  # Plotly writes styles


def is_local(host: str) -> bool:
    """Return whether only this machine can connect to a server at this host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def brings_token(cookies: str, token: str | None) -> bool:
    """Return whether a request with this `Cookie` header is admitted. Without a token, every request is."""
    return token is None or _same(parse_cookie(cookies).get(_COOKIE, ""), token)


def guard(app: Flask, host: str, token: str | None, posts: str) -> None:
    """Reject requests that may not be answered.

    Only GET and HEAD are answered, and POST at one endpoint. Without a token a request must name this machine; with a
    token it must have the token's cookie.

    Args:
        app: Application to protect.
        host: Host that the server listens at.
        token: Token that browsers must send; None if only this machine can connect.
        posts: Endpoint that accepts a POST, if a page of this server sends it.
    """
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY
    # A redirect to the canonical address of a route would be absolute, with the host that the request names.
    app.url_map.strict_slashes = app.url_map.merge_slashes = False

    @app.before_request
    def admitted() -> AnyResponse | None:
        words = [request.path, *(word for pair in request.args.items(multi=True) for word in pair)]
        if any(map(_CONTROL.search, words)):
            abort(
                400,
                "The address contains a control character, so it is not one of a page. Follow the links on the pages.",
            )
        reads = request.method in ("GET", "HEAD")
        if not reads and not (request.method == "POST" and request.endpoint == posts):
            abort(405)
        if token is None:
            # Otherwise another site could point its name to this machine and read the pages through a browser here.
            if _name(request.headers.get("Host", "")) not in ("localhost", "127.0.0.1", "::1", host):
                abort(400)
        elif reads and _same(request.args.get("token", ""), token):
            answer = redirect(_without_token(), 303)
            answer.set_cookie(_COOKIE, token, httponly=True, samesite="Lax")
            return answer
        elif not _same(request.cookies.get(_COOKIE, ""), token):
            abort(403)
        if not reads:
            _from_here()
        return None

    @app.after_request
    def marked(response: Response) -> Response:
        response.headers.setdefault("Content-Security-Policy", PAGE)
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        if response.mimetype == "text/html":
            response.headers["Cache-Control"] = "no-store"
        return response


def _without_token() -> str:
    """Return the address of the requested page without the token, built from the route and never from the path."""
    if request.endpoint is None:
        abort(404)
    query = [(name, value) for name, value in request.args.items(multi=True) if name != "token"]
    return url_for(request.endpoint, **(request.view_args or {})) + (f"?{urlencode(query)}" if query else "")


def _from_here() -> None:
    """Reject a POST that a page of another site has the browser send.

    A browser sends the origin of the page, which no page can change.
    """
    origin = request.headers.get("Origin", "").partition("://")[2]
    site = request.headers.get("Sec-Fetch-Site", "same-origin")  # older browsers do not send it
    if origin != request.headers["Host"] or site != "same-origin":
        abort(403, "Only a page of this server may send images to it. Open the page Explain an image.")
    if request.mimetype != IMAGE:
        abort(415)


def _name(host: str) -> str | None:
    """Return the name in a `Host` header, without the port. Flask's TRUSTED_HOSTS does not support IPv6 addresses."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _same(text: str, token: str) -> bool:
    return secrets.compare_digest(text.encode(), token.encode())
