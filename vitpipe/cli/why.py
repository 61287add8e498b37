"""`vitpipe why`: an explanation in words of why a run's model was or was not blessed."""

from pathlib import Path
from typing import Any, Literal

import typer

from components.model.evaluator.judgement import Check
from components.model.serving_folder import CARD, read_record
from pipeline.console.logs import display_path
from pipeline.console.terminal import print_json, print_line
from pipeline.metadata.properties import UnreadableError
from pipeline.metadata.stores import find_run
from pipeline.result.run_result import RunResult
from pipeline.result.summary import summarise
from trainer.trials import describe
from vitpipe.cli.options import Json, RunName, Runs
from vitpipe.cli.panels import LOOK, example

app = typer.Typer()


@app.command(rich_help_panel=LOOK, epilog=example("vitpipe why last"))
def why(run: RunName, runs: Runs = Path("runs"), as_json: Json = False) -> None:
    """Explain why the model of a run was or was not blessed.

    Lists all checks of the model with their values, confidence intervals and bounds, and the problems that the data
    gate and the serving check reported.
    """
    address, record = find_run(run, runs)
    result = RunResult(record)
    if as_json:
        print_json(_as_json(result))
        return
    print_line(f"run {result.name} of {result.pipeline}")
    parts = {"The verdict on the data": _data, "The verdict on the model": _model, "The serving check": _serving}
    for part, lines in parts.items():
        try:
            for line in lines(result):
                print_line(line)
        except (
            UnreadableError,
            ValueError,
            ArithmeticError,
        ) as error:  # the last two: figures that contradict each other
            print_line(f"{part} cannot be read: {str(error).splitlines()[0]}")
    summary = summarise(result)
    if summary.pushed:
        print_line(f"The model was pushed as version {summary.pushed}.")
        if card := _card(address.run_folder(runs, summary.pipeline) / "serving" / summary.pushed, result.name):
            print_line(f"Its model card is {display_path(card)}.")
    for reason in summary.unreadable:
        print_line(f"Part of the run's record cannot be read: {reason}.")


def _card(version_folder: Path, run: str) -> Path | None:
    """Return the model card of a pushed version; None if it is missing, or belongs to another run.

    After a run folder was removed and created again, another run may have pushed the same version.
    """
    card = version_folder / CARD
    try:
        return card if card.is_file() and read_record(version_folder).run_id == run else None
    except ValueError:  # the record cannot be read
        return None


def _as_json(result: RunResult) -> dict[str, Any]:
    summary = summarise(result)
    verdicts: dict[str, Any] = {"run": result.name, "pipeline": result.pipeline}
    unreadable = list(summary.unreadable)

    def add(part: Literal["data", "model", "override", "serving"]) -> None:
        try:
            if (verdict := result.recorded(part)) is not None:
                verdicts[part] = verdict
        except UnreadableError as error:
            if str(error) not in unreadable:
                unreadable.append(str(error))

    add("data")
    if backbone := result.backbone:
        verdicts["backbone"] = {
            "source": backbone.source,
            "content_digest": backbone.digest,
            "run_id": backbone.run,
        }
    if tuning := result.tuning or result.tuned:
        verdicts["tuning"] = {
            "run": tuning.run,
            "trial": tuning.trial,
            "trials": tuning.trials,
            "accuracy": tuning.accuracy,
            "values": tuning.values,
        }
    add("model")
    if result.record.output("Evaluator", "blessing"):
        verdicts["baseline"] = result.baseline or None
    add("override")
    add("serving")
    return {**verdicts, "pushed": summary.pushed, "unreadable": unreadable}


def _data(result: RunResult) -> list[str]:
    if (data := result.data) is None:
        return ["There is no verdict on the data: the run crashed, is running, or could not read the data."]
    findings = [finding for finding in data.findings if finding.level != "ok"]
    first = "The data passed." if data.passed else "The data was refused, so nothing was trained."
    return [first, *(f"  {finding.level}: {finding}" for finding in findings)]


def _model(result: RunResult) -> list[str]:
    if tuning := result.tuning:
        return [
            "The run searched for better settings, and evaluated no model on the test images.",
            f"Trial {tuning.trial} of {tuning.trials} is the best, with accuracy {tuning.accuracy:.4f} on val: "
            f"{describe(tuning.values)}.",
        ]
    judgement = result.judgement
    if judgement is None:
        return ["There is no verdict on a model: none was evaluated."]
    figures = judgement.candidate
    correct = round(figures.accuracy * figures.examples)
    lines = [
        f"The model was {'blessed' if judgement.blessed else 'not blessed'}: "
        f"it classified {correct:,} of {figures.examples:,} test images correctly.",
        *(f"  {_words(check, judgement.confidence)}" for check in judgement.checks),
        *(f"  warning: {warning}" for warning in judgement.warnings),
        f"  without a bound: top-3 accuracy {figures.top_3:.4f}, log loss {figures.log_loss:.4f}",
    ]
    if figures.looks_accuracy:
        thirds = ", ".join(f"{third} {accuracy:.4f}" for third, accuracy in figures.looks_accuracy.items())
        lines.append(f"  without a bound: accuracy by thirds of the images, {thirds}")
    if backbone := result.backbone:
        of_run = f", the model of run {backbone.run}" if backbone.run else ""
        how = "accepted without training: it is" if backbone.accepted else "fine-tuned from"
        lines.append(f"The model was {how} {backbone.source}{of_run}.")
    if tuned := result.tuned:
        lines.append(f"It was trained with the values of the tuning {tuned.run}: {describe(tuned.values)}.")
    if start := result.warm_start:
        lines.append(f"The training was a {start}.")
    if override := result.override:
        lines.append(f"A person blessed the model at {override.at}: {override.reason}")
    baseline = result.baseline
    if baseline and judgement.comparison:
        scope = f", {judgement.comparison.scope}" if judgement.comparison.shared else ""
        return [*lines, f"The model was compared with the serving one, {display_path(Path(baseline))}{scope}."]
    if baseline:
        return [*lines, f"A comparison with the serving model, {display_path(Path(baseline))}, was not possible."]
    if judgement.incomparable:
        return [*lines, "A comparison with the serving model was not possible."]
    return [*lines, "No model was serving, so there was no comparison."]


def _serving(result: RunResult) -> list[str]:
    if (serving := result.serving) is None:
        return []
    failed = [f"  failed: {check}" for check in serving.checks if not check.passed]
    return [f"The model {'can' if serving.servable else 'cannot'} be served.", *failed]


def _words(check: Check, confidence: float) -> str:
    verdict = "passed" if check.satisfied else "below the bound, which may be noise" if check.noise else "failed"
    interval = ""
    if check.interval:
        interval = f", {check.interval[0]:.4f} to {check.interval[1]:.4f} with {confidence:.0%} confidence"
    detail = f" ({check.detail})" if check.detail else ""
    return f"{verdict}: {check.name}{detail} is {check.value:.4f}{interval}; it must be {check.sense} {check.bound:.4f}"
