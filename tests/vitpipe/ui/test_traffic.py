"""The pages of a report of the monitor and of the pushed model that it is about."""

import re

import pytest

from pipeline.metadata.reader import reader
from pipeline.metadata.stores import stores
from tests.helpers.monitor_reports import FIXES, record_report, window
from tests.helpers.stores import make_store, put_push
from vitpipe.ui.app import create_app

PROBLEM = {"reason": "an answer without <a time>", "count": 1234, "places": ["day.jsonl:7", "day.jsonl:9"]}


@pytest.fixture(scope="module")
def traffic_runs(tmp_path_factory):
    """Runs folder with a report of 16 windows. Windows 5, 6 and 12 have an alert, window 9 has a warning."""
    folder = tmp_path_factory.mktemp("traffic")
    make_store(folder / "sample" / "metadata.db", runs=1)
    windows = [window(number) for number in range(1, 17)]
    windows[4], windows[5] = window(5, brightness=0.5), window(6, brightness=0.8, errors=0.15)
    windows[8], windows[11] = window(9, errors=0.12), window(12, errors=0.4)
    record_report(folder, windows, [PROBLEM])
    return folder


@pytest.fixture
def report(traffic_runs):
    """Return the id of the report."""
    with reader(stores(traffic_runs)["sample"]) as store:
        return store.artifacts("MonitorReport")[0].id


@pytest.fixture(scope="module")
def address(serve, traffic_runs):
    return serve(create_app(traffic_runs))


def get(runs, artifact):
    return create_app(runs).test_client().get(f"/sample/artifacts/{artifact}").text


def test_windows_are_marked_and_each_fix_is_named_once(traffic_runs, report):
    text = get(traffic_runs, report)
    cells = re.findall(r'<li><a class="(\w+)" href="#window-\d+-(\d+)" title="(.*?)" [^>]*>\d+ (.)</a>', text)
    assert [int(number) for _, number, _, _ in cells] == [*range(1, 17)]
    marked = {int(number): (level, mark) for level, number, _, mark in cells if level != "ok"}
    assert marked == {5: ("stop", "✕"), 6: ("stop", "✕"), 9: ("warning", "!"), 12: ("stop", "✕")}
    assert f"Window {report}, 6 from 2026-01-01 06:00:00 UTC: alert drift_brightness, warning errors" == cells[5][2]
    assert all(text.count(f'<tr id="window-{report}-{number}">') == 1 for number in range(1, 17))
    rows = text[text.index("Alerts and warnings") :]
    assert [rows.count(fix) for fix in FIXES.values()] == [1, 2]  # errors have an alert and a warning
    assert (
        "drift_brightness is 0.8, allowed is at most 0.2" in rows and "errors is 0.12, allowed is at most 0.1" in rows
    )
    assert text.count("name a table with --labels") == 1


def test_pictures_of_every_window_with_an_alert_are_shown(traffic_runs, report):
    text = get(traffic_runs, report)
    assert [int(number) for number in re.findall(rf"<summary>Window {report}, (\d+): ", text)] == [12, 6, 5]
    assert text.count('<img src="data:image') == 3 * 8 and text.count("<details open>") == 1


def test_problems_of_the_logs_are_shown(traffic_runs, report):
    text = get(traffic_runs, report)
    assert "1,234" in text and "an answer without &lt;a time&gt;" in text and "day.jsonl:7, day.jsonl:9" in text


def test_the_page_of_a_pushed_model_joins_its_reports(tmp_path):
    make_store(tmp_path / "sample" / "metadata.db", runs=1)
    put_push(stores(tmp_path)["sample"], "sample", "1")
    first = record_report(tmp_path, [window(1), window(2, version=2)], [PROBLEM])
    more = [PROBLEM | {"count": 5678}, PROBLEM | {"reason": "a damaged record"}]
    second = record_report(tmp_path, [window(3, brightness=0.5, pictures=0)], more)
    with reader(stores(tmp_path)["sample"]) as store:
        pushed = store.artifacts("PushedModel")[0]
    text = get(tmp_path, pushed.id)
    assert re.findall(r'<tr id="(window-\d+-\d+)">', text) == [f"window-{second}-3", f"window-{first}-1"]
    problems = text[text.index("Parts of the logs") :]
    assert "5,678" in problems and "1,234" in problems and problems.count("an answer without") == 1
    assert "a damaged record" in problems and '<img src="data:image' not in text


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_cell_leads_to_the_row_of_its_window(page, report, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"/sample/artifacts/{report}")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.get_by_role("link", name="Window").nth(5).click()
    assert page.locator("tr:target").inner_text().startswith(f"{report}, 6")
    page.locator("tr:target").get_by_role("link", name="drift_brightness").click()
    assert "drift_brightness is 0.8" in page.locator("tr:target").inner_text()
    closed = page.locator("details img").last
    assert not closed.is_visible()
    page.locator("summary").last.click()
    assert closed.is_visible()
