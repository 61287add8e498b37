"""The pages in a browser, used with a mouse, with a keyboard and on a small screen."""

import pytest
from ml_metadata import MetadataStore

from pipeline.metadata.address import Address
from pipeline.metadata.writer import record
from pipeline.result.run_result import this_process
from tests.helpers.stores import make_store
from vitpipe.ui.app import create_app

pytestmark = pytest.mark.browser
PAGES = (
    "/",
    "/?pipeline=sample&state=failed",
    "/sample/runs/sample-run-028",
    "/sample/artifacts",
    "/sample/artifacts/2",
    "/sample/artifacts/5/up",
    "/sample/artifacts/1/down",
    "/sample/charts",
)


@pytest.fixture(scope="module")
def address(serve, runs):
    return serve(create_app(runs))


def test_lineage_is_walked_by_clicking(page):
    page.goto("/?pipeline=other")
    page.get_by_role("link", name="other-run-000").click()
    page.locator("#execution-5").get_by_role("link", name="PushedModel").click()
    page.get_by_role("link", name="origin").click()
    page.locator(".picture a", has_text="Examples").click()
    assert page.locator("h1").inner_text() == "Origin of Examples 1"
    page.get_by_role("link", name="Descendants").click()
    page.locator(".picture a", has_text="ModelBlessing").first.click()
    assert page.locator("h1").inner_text().startswith("Descendants of ModelBlessing")
    page.go_back()
    page.locator(".picture a:has(.execution)", has_text="Trainer").first.click()
    assert page.url.endswith("/other/runs/other-run-000#execution-3")
    assert page.locator("tr:target").inner_text().startswith("Trainer")


def test_pages_work_with_a_keyboard_alone(page):
    page.goto("/?pipeline=other")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "other-run-002":
            break
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url("**/other/runs/other-run-002")
    page.locator(".picture").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url("**#execution-*")


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_screen(page, width):
    page.set_viewport_size({"width": width, "height": 800})
    for path in PAGES:
        page.goto(path)
        if "charts" in path:
            page.wait_for_selector(".main-svg")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_charts_lead_to_runs(page):
    page.goto("/sample/charts")
    page.locator("#chart-0 .point").first.wait_for()
    assert page.locator("#chart-0 .point").count() == 26  # 30 runs, of which 4 failed
    box = page.locator("#chart-0 .point").first.bounding_box()
    page.mouse.move(box["x"] + 4, box["y"] + 4)
    page.mouse.click(box["x"] + 4, box["y"] + 4)
    page.wait_for_url("**/sample/runs/sample-run-*")


def test_colours_follow_the_colour_scheme(page):
    light, dark = (ground_and_text(page, scheme) for scheme in ("light", "dark"))
    assert min(light[0]) > 240 > 100 > max(light[1])
    assert max(dark[0]) < 50 < 200 < min(dark[1])


def ground_and_text(page, scheme):
    page.emulate_media(color_scheme=scheme)
    page.goto("/")
    style = "getComputedStyle(document.body)"
    return [
        [int(part) for part in page.evaluate(f"{style}.{name}.match(/\\d+/g)")] for name in ("backgroundColor", "color")
    ]


def test_a_report_runs_its_script_without_access_to_the_page(page):
    page.goto("/sample/runs/sample-run-028")
    page.locator("iframe").scroll_into_view_if_needed()
    [frame] = [frame for frame in page.frames if frame.parent_frame]
    frame.wait_for_function("document.title == 'ran'")
    assert frame.evaluate("window.origin") == "null"


def test_the_list_is_renewed_while_a_run_is_running(page, serve, tmp_path):
    file = tmp_path / "now" / "metadata.db"
    [*_, name] = make_store(file, "now", runs=3, process=this_process())
    page.goto(serve(create_app(tmp_path)))
    row = page.locator("tr", has_text=name)
    assert "running" in row.inner_text()
    record(MetadataStore(Address(file=file).connection_config()), name, exit="0")
    row.get_by_text("done").wait_for(timeout=10_000)
