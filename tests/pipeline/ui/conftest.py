import pytest

from tests.stores import make_store

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
