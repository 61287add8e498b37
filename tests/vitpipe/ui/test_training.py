"""Training curves on the page of a run, also while the Trainer writes its history."""

import json
import math
import shutil
import subprocess
import time

import pytest

from pipeline.metadata.reader import reader
from pipeline.metadata.stores import stores
from pipeline.result.run_result import RunResult, this_process
from tests.helpers.command import SHORT, command, with_settings
from tests.helpers.stores import make_store
from trainer import history
from vitpipe.ui import training
from vitpipe.ui.app import create_app

ROW = {
    "loss": 1.0,
    "accuracy": 0.5,
    "val_loss": 1.2,
    "val_accuracy": 0.4,
    "learning_rate": 1e-3,
    "images_per_second": 900.0,
    "seconds": 1.5,
}


@pytest.fixture
def address(serve, tmp_path):
    return serve(create_app(tmp_path))


@pytest.fixture
def run(tmp_path):
    """Name of a run that is running, and the folder in which its Trainer writes the history."""
    file = tmp_path / "now" / "metadata.db"
    [*_, name] = make_store(file, "now", runs=3, process=this_process())
    trainer = read(tmp_path, name).record.node("Trainer")
    return name, file.parent / "root" / "Trainer" / "model_run" / str(trainer.id)


def read(runs, name):
    with reader(stores(runs)["now"]) as store:
        return RunResult(store.run(name))


def test_curves_grow_while_the_trainer_writes(page, run):
    name, folder = run
    page.goto(f"/now/runs/{name}")
    assert page.locator("svg.curves").count() == 0
    written = history.History(folder, epochs=5, earlier=[])
    written.add({"epoch": 1, **ROW})
    page.locator("svg.curves .hint").nth(1).wait_for(state="attached", timeout=10_000)  # one in each chart
    written.add({"epoch": 2, **ROW, "val_accuracy": 0.7})
    page.locator("svg.curves .hint").nth(3).wait_for(state="attached", timeout=10_000)
    titles = page.locator("svg.curves .hint title").all_text_contents()
    assert titles[1] == "epoch 2: train 50.00%, val 70.00%, its model is exported"


@pytest.mark.parametrize(
    "line",
    ["", "[]", '{"epoch": 2', json.dumps({"epoch": 2, **ROW, "loss": math.nan}), json.dumps({"epoch": 10**400, **ROW})],
)
def test_a_line_without_a_valid_epoch_is_skipped(run, tmp_path, line):
    name, folder = run
    folder.mkdir(parents=True)
    good = json.dumps({"epoch": 1, **ROW})
    (folder / history.FILE).write_text(f"{good}\n{line}")
    found = training.training(read(tmp_path, name))
    assert [epoch.epoch for epoch in found.epochs] == [1]
    assert create_app(tmp_path).test_client().get(f"/now/runs/{name}").status_code == 200


def test_a_training_on_val_shows_no_figures_of_val(run, tmp_path):
    name, folder = run
    written = history.History(folder, epochs=5, earlier=[])
    for number in (1, 2):
        written.add({"epoch": number, **{key: value for key, value in ROW.items() if not key.startswith("val")}})
    with (folder / history.FILE).open("a") as file:
        file.write(json.dumps({"epoch": 3, **ROW}) + "\n")  # no epoch of such a training has these figures
    found = training.training(read(tmp_path, name))
    assert [epoch.epoch for epoch in found.epochs] == [1, 2] and found.best.epoch == 2
    drawn = create_app(tmp_path).test_client().get(f"/now/runs/{name}").text
    assert "The training includes val" in drawn and "epoch 2: train 50.00%, its model is exported" in drawn
    assert "Best val accuracy" not in drawn


def test_the_file_name_equals_the_trainers():
    assert training.FILE == history.FILE


@pytest.mark.slow
@pytest.mark.browser
def test_curves_of_a_real_run_appear_while_it_trains(page, sample_data, tmp_path):
    shutil.copytree(sample_data / "data", tmp_path / "data")
    settings = {**SHORT, "training.epochs": 200, "runs": tmp_path}
    line, options = command(tmp_path, "run", "-c", "sample", *with_settings(settings))
    with subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options) as process:
        try:
            until = time.monotonic() + 300
            while not (tmp_path / "sample" / "metadata.db").exists() or not page.goto("/?pipeline=sample").ok:
                assert time.monotonic() < until and process.poll() is None
                time.sleep(1)
            page.locator("td a").first.wait_for(timeout=60_000)
            page.locator("td a").first.click()
            page.get_by_text("not started").first.wait_for(state="attached")
            page.locator("svg.curves .hint").nth(1).wait_for(state="attached", timeout=300_000)
            before = page.locator("svg.curves .hint").count()
            page.locator("svg.curves .hint").nth(before).wait_for(state="attached", timeout=60_000)
            assert "Trainer is running" in page.locator(".verdict").inner_text()
        finally:
            process.terminate()
