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
from vitpipe.cli.panels import LOOK, example

app = typer.Typer()


@app.command(rich_help_panel=LOOK, epilog=example("vitpipe ui", "vitpipe ui --host 0.0.0.0 --port 8080"))
def ui(
    runs: Runs = Path("runs"),
    host: Annotated[
        str,
        typer.Option(
            metavar="HOST",
            help="Address to listen on. If other machines can reach it, the printed URL contains an access token.",
        ),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(min=0, max=65535, metavar="PORT", help="Port to listen on; 0 picks a free one.")
    ] = 8471,
    show: Annotated[bool, typer.Option("--open/--no-open", help="Open the page in a browser.")] = True,
) -> None:
    """Browse runs, artifacts and lineage in a web browser, and explain the models.

    Stop the server with Ctrl-C.
    """
    from vitpipe.ui.app import create_app
    from vitpipe.ui.safety import is_local
    from vitpipe.ui.server import create_server

    token = None if is_local(host) else secrets.token_urlsafe()
    try:
        server = create_server(create_app(runs, host, token), host, port, token)
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot listen on {host}, port {port} ({error}): choose another --port or --host") from None
    # A server with several sockets, for a name with several addresses, has no `effective_port`.
    effective_port = getattr(server, "effective_port", port)
    url_host = f"[{host}]" if ":" in host else host
    url = f"http://{url_host}:{effective_port}/" + (f"?token={token}" if token else "")
    Console(stderr=True, soft_wrap=True).print(Text.assemble((url, "bold"), " (stop with Ctrl-C)"))
    # With a token the page is meant for another machine, and without a terminal nobody is watching this screen.
    if show and token is None and Console().is_terminal:
        webbrowser.open(url)
    server.run()
