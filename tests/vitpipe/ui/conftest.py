import threading
from contextlib import ExitStack, suppress

import pytest

from tests.helpers.stores import make_store
from vitpipe.ui.server import create_server

REPORT = "<!doctype html><title>A report</title><h1>A report</h1><script>document.title = 'ran'</script>"


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Two pipelines: 30 runs, the last but one with a report, and 3."""
    folder = tmp_path_factory.mktemp("runs")
    names = make_store(folder / "sample" / "metadata.db")
    make_store(folder / "other" / "metadata.db", "other", runs=3)
    report = folder / "sample" / "reports" / names[28] / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text(REPORT)
    return folder


@pytest.fixture(scope="module")
def serve():
    """A function that serves an app until the tests of the module have ended, and gives its address."""
    with ExitStack() as served:

        def serve(app, token=None):
            server = create_server(app, "127.0.0.1", 0, token)
            served.callback(server.close)

            def run():
                with suppress(OSError):  # its sockets are closed while it waits for them
                    server.run()

            threading.Thread(target=run, daemon=True).start()
            return f"http://127.0.0.1:{server.effective_port}"

        yield serve


@pytest.fixture
def page(chromium, address):
    """A page of the module's `address`, that fails the test which made it complain."""
    context = chromium.new_context(base_url=address, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert [line for line in complaints if " 422 " not in line] == []  # what is wrong with an image is told so
