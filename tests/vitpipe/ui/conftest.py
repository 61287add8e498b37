import threading
from contextlib import ExitStack, suppress

import pytest

from tests.helpers.stores import make_store
from vitpipe.ui.server import create_server

REPORT = "<!doctype html><title>A report</title><h1>A report</h1><script>document.title = 'ran'</script>"


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Runs folder of two pipelines: one with 30 runs, of which the second newest has a report, and one with 3."""
    folder = tmp_path_factory.mktemp("runs")
    names = make_store(folder / "sample" / "metadata.db")
    make_store(folder / "other" / "metadata.db", "other", runs=3)
    report = folder / "sample" / "reports" / names[28] / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text(REPORT)
    return folder


@pytest.fixture(scope="module")
def serve():
    """Function that serves an app until the tests of the module have ended, and returns its address."""
    with ExitStack() as served:

        def serve(app, token=None):
            server = create_server(app, "127.0.0.1", 0, token)
            served.callback(server.close)

            def run():
                with suppress(OSError):  # its sockets are closed while it waits
                    server.run()

            threading.Thread(target=run, daemon=True).start()
            return f"http://127.0.0.1:{server.effective_port}"

        yield serve


@pytest.fixture
def page(chromium, address):
    """Browser page of the module's `address`. A test fails if the page logs an error."""
    context = chromium.new_context(base_url=address, viewport={"width": 1280, "height": 900})
    page = context.new_page()
    complaints = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    yield page
    context.close()
    assert [line for line in complaints if " 422 " not in line] == []  # 422 is the answer to an unusable image
