"""`vitpipe why`: in words, why a run's model was or was not blessed."""

from pathlib import Path
from typing import Any, Literal

from components.model.evaluator.judgement import Check
from pipeline.console.logs import display_path
from pipeline.console.terminal import print_json, print_line
from pipeline.metadata.properties import UnreadableError
from pipeline.metadata.stores import find_run
from pipeline.result.run_result import RunResult
from pipeline.result.summary import summarise
from vitpipe.cli.options import Json, RunName, Runs


def why(
    run: RunName,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Which checks a run's data and model kept and missed, with values, intervals and bounds."""
    _, found = find_run(run, runs)
    result = RunResult(found)
    if as_json:
        print_json(_as_json(result))
        return
    print_line(f"run {result.name} of {result.pipeline}")
    parts = {"The verdict on the data": _data, "The verdict on the model": _model, "The serving check": _serving}
    for part, lines in parts.items():
        try:
            for line in lines(result):
                print_line(line)
        except (UnreadableError, ValueError, ArithmeticError) as error:  # the last two come from contradicting figures
            print_line(f"{part} cannot be read: {str(error).splitlines()[0]}")
    summary = summarise(result)
    if summary.pushed:
        print_line(f"It was pushed as version {summary.pushed}.")
    for reason in summary.unreadable:
        print_line(f"The record of the run itself: {reason}.")


def _as_json(result: RunResult) -> dict[str, Any]:
    summary = summarise(result)
    weighed: dict[str, Any] = {"run": result.name, "pipeline": result.pipeline}
    unreadable = list(summary.unreadable)

    def add(part: Literal["data", "model", "override", "serving"]) -> None:
        try:
            if (found := result.recorded(part)) is not None:
                weighed[part] = found
        except UnreadableError as error:
            if str(error) not in unreadable:
                unreadable.append(str(error))

    add("data")
    if backbone := result.backbone:
        weighed["backbone"] = {
            "source": backbone.source,
            "content_digest": backbone.digest,
            "run_id": backbone.run,
        }
    add("model")
    if result.record.output("Evaluator", "blessing"):
        weighed["baseline"] = result.baseline or None
    add("override")
    add("serving")
    return {**weighed, "pushed": summary.pushed, "unreadable": unreadable}


def _data(result: RunResult) -> list[str]:
    if (data := result.data) is None:
        return ["The data gate has no verdict: the run crashed or is running, or its data could not be read."]
    missed = [finding for finding in data.findings if finding.level != "ok"]
    first = "The data passed." if data.passed else "The data were refused, nothing was trained."
    return [first, *(f"  {finding.level}: {finding}" for finding in missed)]


def _model(result: RunResult) -> list[str]:
    judgement = result.judgement
    if judgement is None:
        return ["There is no verdict on a model: none was weighed."]
    figures = judgement.candidate
    right = round(figures.accuracy * figures.examples)
    lines = [
        f"The model was {'blessed' if judgement.blessed else 'not blessed'}: "
        f"{right:,} of {figures.examples:,} test images right.",
        *(f"  {_words(check, judgement.confidence)}" for check in judgement.checks),
        *(f"  warning: {warning}" for warning in judgement.warnings),
        f"  not bounded: top 3 {figures.top_3:.4f}, log loss {figures.log_loss:.4f}",
    ]
    if figures.looks_accuracy:
        looks = ", ".join(f"{look} {accuracy:.4f}" for look, accuracy in figures.looks_accuracy.items())
        lines.append(f"  not bounded: accuracy by thirds of the images, {looks}")
    if backbone := result.backbone:
        of_run = f", the model of run {backbone.run}" if backbone.run else ""
        lines.append(f"It was fine-tuned from {backbone.source}{of_run}.")
    if start := result.warm_start:
        lines.append(f"Its training: {start}.")
    if override := result.override:
        lines.append(f"A person blessed it at {override.at}: {override.reason}")
    baseline = result.baseline
    if baseline and judgement.comparison:
        scope = f", {judgement.comparison.scope}" if judgement.comparison.shared else ""
        return [*lines, f"It was weighed against the model serving then, {display_path(Path(baseline))}{scope}."]
    if baseline:
        return [*lines, f"The model serving then, {display_path(Path(baseline))}, could not be weighed against."]
    if judgement.incomparable:
        return [*lines, "The model serving then could not be weighed against."]
    return [*lines, "No model served then, so it was weighed against none."]


def _serving(result: RunResult) -> list[str]:
    if (serving := result.serving) is None:
        return []
    missed = [f"  missed: {check}" for check in serving.checks if not check.passed]
    return [f"It {'can' if serving.servable else 'cannot'} be served.", *missed]


def _words(check: Check, confidence: float) -> str:
    verdict = "kept" if check.satisfied else "below the bound, but no more than chance" if check.noise else "missed"
    interval = ""
    if check.interval:
        interval = f", {check.interval[0]:.4f} to {check.interval[1]:.4f} with {confidence:.0%} confidence"
    detail = f" ({check.detail})" if check.detail else ""
    return f"{verdict}: {check.name}{detail} is {check.value:.4f}{interval}; it must be {check.sense} {check.bound:.4f}"
