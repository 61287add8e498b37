import contextlib
import re
import sqlite3

import pytest

from pipeline.metadata.stores import stores
from tests.helpers.stores import make_store
from vitpipe.ui.app import create_app
from vitpipe.ui.history import moments


@pytest.fixture
def client(runs):
    return create_app(runs).test_client()


def run_links(html):
    return re.findall(r'<td class="nowrap"><a href="/([^"]+)/runs/([^"]+)">', html)


def test_runs_of_all_pipelines_come_newest_first_and_in_pages(client):
    pages = [run_links(client.get(f"/?page={number}").text) for number in (1, 2, 3)]
    assert [len(page) for page in pages] == [20, 13, 0]
    assert len(set(pages[0] + pages[1])) == 33
    assert pages[0][0] == ("sample", "sample-run-029")
    assert 'rel="next"' in client.get("/").text and 'rel="next"' not in client.get("/?page=2").text


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("pipeline=other", ["other-run-002", "other-run-001", "other-run-000"]),
        ("pipeline=sample&state=failed", [f"sample-run-{number:03}" for number in (27, 20, 13, 6)]),
        ("pipeline=other&blessed=no", ["other-run-001"]),
        ("pipeline=other&state=running", []),
    ],
)
def test_runs_are_filtered(client, query, expected):
    assert [run for _, run in run_links(client.get(f"/?{query}").text)] == expected


def test_filters_are_kept_from_page_to_page(client):
    first = client.get("/?pipeline=sample&blessed=yes")
    following = re.search(r'rel="next" href="([^"]+)"', first.text)
    if following:
        assert "blessed=yes" in following[1] and "pipeline=sample" in following[1]
    both = [run for number in (1, 2) for _, run in run_links(client.get(f"/?blessed=yes&page={number}").text)]
    assert len(both) == len(set(both)) > 10


def test_a_run_shows_verdict_training_and_gates_before_its_nodes(client):
    page = client.get("/sample/runs/sample-run-028").text
    parts = ['class="verdict warning"', 'id="training"', 'id="gates"', 'id="graph"', 'id="nodes"', 'id="report"']
    assert [page.count(part) for part in parts] == [1] * len(parts)
    assert sorted(parts, key=page.index) == parts


def test_a_run_shows_what_the_gate_measured_and_a_command_to_continue(client, runs):
    page = client.get("/sample/runs/sample-run-028").text
    row = re.search(r"<tr><td>accuracy</td>.*?</tr>", page, re.DOTALL)[0]
    assert '<span class="stop">missed</span>' in row and "0.8897" in row and "at least 1.0000" in row
    assert f"vitpipe bless sample-run-028 --runs {runs} --reason" in page


def test_a_run_is_compared_with_the_newest_earlier_run_that_measured_a_model(client):
    page = client.get("/sample/runs/sample-run-028").text
    part = page[page.index('id="comparison"') : page.index('id="graph"')]
    assert 'href="/sample/runs/sample-run-026"' in part  # run 27 failed before it measured a model
    for name, before, now in (("data.span", 27, 29), ("accuracy", "0.8889", "0.8897"), ("blessed", "true", "false")):
        assert f'<td>{name}</td><td class="wide soft">{before}</td><td class="wide">{now}</td>' in part
    for first_or_failed in ("sample-run-000", "sample-run-027"):
        assert 'id="comparison"' not in client.get(f"/sample/runs/{first_or_failed}").text


def test_a_comparison_escapes_the_values_of_settings(tmp_path):
    file = tmp_path / "other" / "metadata.db"
    make_store(file, "other", runs=2)
    with contextlib.closing(sqlite3.connect(file)) as database, database:
        changed = "UPDATE ContextProperty SET string_value = ? WHERE name = 'settings'"
        database.execute(f"{changed} AND string_value LIKE '%1%'", ['{"data": {"dir": "<b>one</b>"}}'])
    page = create_app(tmp_path).test_client().get("/other/runs/other-run-001").text
    assert "&lt;b&gt;one" in page[page.index('id="comparison"') : page.index('id="graph"')] and "<b>one" not in page


def test_a_run_shows_its_report(client):
    assert 'sandbox="allow-scripts"' in client.get("/sample/runs/sample-run-028").text
    assert "iframe" not in client.get("/sample/runs/sample-run-027").text
    assert '<span class="cached">cached</span>' in client.get("/sample/runs/sample-run-024").text


def test_a_report_has_no_origin_and_is_the_only_file_that_is_served(client, runs):
    report = client.get("/sample/runs/sample-run-028/report/report.html", buffered=True)
    assert report.status_code == 200 and report.headers["Content-Security-Policy"].startswith("sandbox allow-scripts;")
    link = runs / "sample" / "reports" / "sample-run-028" / "link"
    link.symlink_to(runs / "sample" / "metadata.db")
    for path in ("link", "../../../metadata.db", "..%2f..%2f..%2fmetadata.db", "%2fetc%2fpasswd"):
        answer = client.get(f"/sample/runs/sample-run-028/report/{path}", follow_redirects=True, buffered=True)
        assert answer.status_code == 404
    assert client.get("/sample/runs/../report/report.html").status_code == 404
    assert client.get("/sample/runs/sample-run-027/report/report.html").status_code == 404


def test_artifacts_are_filtered_and_paged(client):
    page = client.get("/sample/artifacts?type=PushedModel").text
    found = re.findall(r">(\w+) \d+</a></td>", page)
    assert set(found) == {"PushedModel"}
    assert "No artifact matches" in client.get("/sample/artifacts?state=deleted").text
    first, second = (
        set(re.findall(r'/artifacts/(\d+)"', client.get(f"/sample/artifacts?page={n}").text)) for n in (1, 2)
    )
    assert len(first) == len(second) == 20 and not first & second


def test_an_artifact_shows_the_steps_that_wrote_and_read_it(client):
    served = re.search(r"/artifacts/(\d+)", client.get("/other/artifacts?type=Model&page=1").text.split("<tbody>")[1])
    assert served
    page = client.get("/other/artifacts/3").text
    made, used = page.split("Written by")[1].split("Read by")
    assert "Trainer" in made and "Evaluator" in used and "Pusher" in used and "compared only" in used
    verdict = client.get("/other/artifacts/2").text
    assert "&#34;check&#34;: &#34;drift_brightness&#34;" in verdict


def test_lineage_links_to_artifacts_and_runs(client):
    page = client.get("/other/artifacts/5/up").text
    assert 'href="/other/artifacts/3/up"' in page and 'href="/other/runs/other-run-000#execution-' in page
    assert 'href="/other/artifacts/5/down"' in client.get("/other/artifacts/3/down").text


def test_charts_have_a_point_for_each_run(runs, client):
    found = moments(stores(runs)["sample"])
    assert len(found) == 30 and found[0].summary.run == "sample-run-000"
    assert found[10].drift == {"drift_brightness": 0.05, "drift_colour": 0.04}
    page = client.get("/sample/charts")
    assert "plotly.js" in page.text and "/sample/runs/sample-run-000" in page.text
    assert "plotly.js" not in client.get("/").text
    assert b"plotly.js v" in client.get("/-/plotly.js", buffered=True).data[:200]


@pytest.mark.parametrize(
    "path", ["/none/artifacts", "/sample/runs/none", "/sample/artifacts/9999", "/a/b/c", "/?pipeline=x"]
)
def test_missing_pages_are_not_found(client, path):
    answer = client.get(path)
    assert answer.status_code == 404 and "There is no" in answer.text


def test_a_damaged_store_is_reported_and_the_others_are_listed(tmp_path):
    make_store(tmp_path / "good" / "metadata.db", "good", runs=2)
    damaged = tmp_path / "bad" / "metadata.db"
    damaged.parent.mkdir()
    damaged.write_bytes(b"no database" * 1000)
    client = create_app(tmp_path).test_client()
    every = client.get("/")
    assert every.status_code == 200 and len(run_links(every.text)) == 2 and "is damaged" in every.text
    for path in ("/?pipeline=bad", "/bad/artifacts", "/bad/charts", "/bad/runs/x"):
        answer = client.get(path)
        assert answer.status_code == 503 and str(damaged) in answer.text


def test_a_locked_store_is_reported(tmp_path, monkeypatch):
    file = tmp_path / "good" / "metadata.db"
    make_store(file, "good", runs=1)
    monkeypatch.setattr("pipeline.metadata.address._TIMEOUT", 0.1)
    with contextlib.closing(sqlite3.connect(file)) as writer, writer:
        writer.execute("BEGIN EXCLUSIVE")
        answer = create_app(tmp_path).test_client().get("/good/artifacts")
    assert answer.status_code == 503 and "locked" in answer.text


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/", "vitpipe data prepare sample"),
        ("/-/explain", "vitpipe run -c sample"),
        ("/empty/charts", "vitpipe run -c sample"),
        ("/empty/artifacts", "No step has written an artifact yet"),
        ("/?pipeline=empty", "vitpipe run -c sample"),
        ("/?pipeline=empty&state=failed", "No run matches"),
    ],
)
def test_an_empty_page_names_the_next_command(tmp_path, path, command):
    if "empty" in path:
        make_store(tmp_path / "empty" / "metadata.db", "empty", runs=0)
    assert command in create_app(tmp_path).test_client().get(path).text


def test_an_artifact_without_lineage_leads_to_the_other_direction(client):
    page = client.get("/other/artifacts/5/down").text  # a pushed model, which nothing has read
    assert 'href="/other/artifacts/5/up">Origin' in page and "No step has made anything from this artifact" in page


def test_a_run_without_report_names_its_logs(client, runs):
    page = client.get("/sample/runs/sample-run-027").text
    assert "iframe" not in page and f"{runs}/sample/logs/sample-run-027" in page


def test_a_store_in_the_environment_replaces_those_below_runs(runs, monkeypatch):
    monkeypatch.setenv("VITPIPE_METADATA__ADDRESS", str(runs / "other" / "metadata.db"))
    client = create_app(runs).test_client()
    assert run_links(client.get("/").text)[0] == ("@server", "other-run-002")
    assert len(run_links(client.get("/?pipeline=other").text)) == 3
    assert run_links(client.get("/?pipeline=sample").text) == []
    for path in ("/@server/runs/other-run-000", "/@server/artifacts", "/@server/charts", "/@server/artifacts/1/down"):
        assert client.get(path).status_code == 200


def test_a_pipeline_named_dot_dot_does_not_lead_out_of_the_folder(tmp_path):
    make_store(tmp_path / "runs" / "good" / "metadata.db", "..", runs=1)
    report = tmp_path / "reports" / "..-run-000" / "report.html"
    report.parent.mkdir(parents=True)
    report.write_text("outside")
    client = create_app(tmp_path / "runs").test_client()
    assert client.get("/good/runs/..-run-000").status_code == 200
    assert client.get("/good/runs/..-run-000/report/report.html").status_code == 404
