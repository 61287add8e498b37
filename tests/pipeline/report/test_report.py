"""Reports of small runs through the command."""

import re
import shutil

import pytest

from components.model.evaluator.judgement import Check
from pipeline.metadata.reader import reader
from pipeline.metadata.stores import find_run
from pipeline.report import page
from pipeline.report.collect import collect
from pipeline.report.model import Report
from tests.helpers.command import SHORT, report_page, vitpipe, with_settings

pytestmark = [pytest.mark.e2e, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def runs(short_run, tmp_path_factory):
    """Folder with two runs, and the page of each. The second run trains nothing and misses a bound."""
    folder = shutil.copytree(short_run[0], tmp_path_factory.mktemp("report"), dirs_exist_ok=True)
    second = vitpipe(folder, "run", "-c", "sample", *with_settings(SHORT | {"gate.accuracy": 1}))
    assert second.returncode == 4, second.stdout + second.stderr
    return folder, [report_page(folder, done) for done in (short_run[1], second)]


@pytest.fixture(scope="module")
def report(runs):
    return Report.read(runs[1][0].with_name("report.json"))


def test_a_report_agrees_with_the_store_and_the_artifacts(runs, report):
    folder, [first, _] = runs
    assert first == folder / "runs" / "sample" / "reports" / report.run / "report.html"
    assert report.state == "done" and report.verdict[-1].startswith("pushed version 1")
    assert [row.epoch for row in report.history] == [1, 2, 3, 4, 5, 6]
    assert sum(of_bin.examples for of_bin in report.calibration) == report.judgement.candidate.examples == 173
    wrong = 173 - round(173 * report.judgement.candidate.accuracy)
    assert len(report.mistakes) == min(wrong, 24)
    assert report.mistakes[0].confidence == max(mistake.confidence for mistake in report.mistakes)
    assert all(mistake.label != mistake.answer for mistake in report.mistakes)
    assert all(mistake.explained for mistake in report.mistakes[:6]) and report.unexplained == ""
    assert sum(report.data.labels["train"].values()) == 1421
    assert len(report.samples) == 10 and all(len(pictures) == 8 for pictures in report.samples.values())
    assert {"Trainer", "Pusher"} < {node.name for node in report.nodes}
    assert "latency in ms" in {check.name for check in report.serving}


def test_the_page_is_one_file_that_needs_no_network(runs):
    html = runs[1][0].read_text()
    assert len(html) < 8 << 20
    assert not re.search(r"<(script|link|img|iframe)[^>]*(src|href)=[\"']?(https?:)?//", html)
    for heading in "Data", "Training", "Gate", "Classes", "Calibration", "Most confident mistakes", "Lineage":
        assert f">{heading}</h2>" in html
    assert html.count("data:image/png;base64,") >= 80
    link = re.search(r'<a href="([^"]+data\.html)">', html)[1]
    assert (runs[1][0].parent / link).is_file()


def test_the_artifact_is_the_same_report(runs, report):
    files = list((runs[0] / "runs" / "sample" / "root" / "RunReport" / "report").glob("*/report.json"))
    assert report in [Report.read(file) for file in files]


def test_names_from_the_data_are_escaped(report, tmp_path):
    named = report.model_copy(update={"samples": {"<script>alert(1)</script>": []}})
    html = page.render(named, tmp_path)
    assert "<b>&lt;script&gt;alert(1)" in html and "<script>alert(1)" not in html


def test_a_model_that_was_not_pushed_is_explained_too(runs):
    unblessed = Report.read(runs[1][1].with_name("report.json"))
    assert unblessed.state == "not blessed" and all(mistake.explained for mistake in unblessed.mistakes[:6])


def test_a_report_without_the_model_has_everything_else(runs, report):
    address, run = find_run(report.run, runs[0] / "runs")
    [model] = (runs[0] / "runs" / "sample" / "root" / "Trainer" / "model").iterdir()
    away = model.rename(runs[0] / "model")
    try:
        with reader(address) as store:
            without = collect(store, run)
    finally:
        away.rename(model)
    assert "no longer exists" in without.unexplained
    assert not any(mistake.explained for mistake in without.mistakes)
    plain = [mistake.model_copy(update={"explained": None}) for mistake in report.mistakes]
    assert (without.mistakes, without.judgement, without.samples) == (plain, report.judgement, report.samples)


def test_an_infinite_figure_survives_json(report, tmp_path):
    broken = report.model_copy(update={"serving": [Check(name="difference", value=float("inf"), bound=1)]})
    (tmp_path / "report.json").write_text(broken.as_json())
    assert Report.read(tmp_path / "report.json") == broken


def test_the_command_finds_the_page_and_opens_it(runs, report):
    folder, [_, second] = runs
    found = vitpipe(folder, "report", report.run, "--no-open")
    assert (found.returncode, found.stdout) == (0, f"runs/sample/reports/{report.run}/report.html\n")
    opened = vitpipe(folder, "report", "last", BROWSER="echo opened %s")
    assert opened.stdout.splitlines()[-1] == f"opened {second.as_uri()}"
    unknown = vitpipe(folder, "report", report.run[:-1], "--no-open")
    assert unknown.returncode == 2 and f"did you mean {report.run}" in unknown.stderr


def test_two_runs_side_by_side(runs, report):
    folder, [first, second] = runs
    other = second.parent.name
    done = vitpipe(folder, "report", report.run, other, "--no-open")
    assert done.stdout == f"runs/sample/reports/{report.run}/against-{other}.html\n", done.stderr
    html = first.with_name(f"against-{other}.html").read_text()
    assert '<td>gate.accuracy</td><td class="long">0.0</td><td class="long">1.0</td>' in html
    assert "<td>training.epochs</td>" not in html and "not blessed" in html and "Accuracy on val" in html


def test_a_report_that_cannot_be_written_does_not_change_the_verdict(short_run, tmp_path):
    folder = shutil.copytree(short_run[0], tmp_path / "folder")
    reports = folder / "runs" / "sample" / "reports"
    shutil.rmtree(reports)
    reports.write_text("a file where the folder should be")
    done = vitpipe(folder, "run", "-c", "sample", *with_settings(SHORT | {"training.seed": 1, "gate.tolerance": 1}))
    assert done.returncode == 0, done.stderr
    assert "pushed version 2" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("warning: RunReport failed")
    gone = vitpipe(folder, "report", "last", "--no-open")
    assert gone.returncode == 2 and "has no report" in gone.stderr
