"""`vitpipe ui`: web pages that show ML Metadata, served on this machine."""

import secrets
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from components.errors import UsageError
from pipeline.console.terminal import Console
from vitpipe.cli.options import Runs


def ui(
    runs: Runs = Path("runs"),
    host: Annotated[
        str, typer.Option(help="Address to listen at; another than this machine's own needs the token it prints.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8471,
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open it in a browser.")] = True,
) -> None:
    """Walk through runs, artifacts and lineage in a browser, and see what a model looks at. Ends with Ctrl-C."""
    from vitpipe.ui.app import create_app
    from vitpipe.ui.safety import is_local
    from vitpipe.ui.server import create_server

    token = None if is_local(host) else secrets.token_urlsafe()
    try:
        server = create_server(create_app(runs, host, token), host, port, token)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot listen at {host}, port {port} ({error}): name another --port or --host") from None
    listening = getattr(server, "effective_port", port)  # of several sockets, where a name has several addresses
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening}/" + (f"?token={token}" if token else "")
    Console(stderr=True, soft_wrap=True).print(Text.assemble((url, "bold"), " (Ctrl-C ends it)"))
    # Elsewhere nobody sits before this screen.
    if show and token is None and Console().is_terminal:
        webbrowser.open(url)
    server.run()
