"""`vitpipe why`: in words, why a run's model was or was not blessed."""

from pathlib import Path
from typing import Any

from components.data_bounds import Finding
from components.gate import OVERRIDE, Check, Judgement
from pipeline.cli.options import Json, RunName, Runs
from pipeline.logs import shown
from pipeline.metadata.stores import find_run
from pipeline.metadata.summary import summarise
from pipeline.metadata.values import Unreadable, read
from pipeline.metadata.views import Artifact, Run
from pipeline.report.model import Override
from pipeline.terminal import print_json, print_line
from pipeline.verdict import warm_start


def why(
    run: RunName,
    runs: Runs = Path("runs"),
    as_json: Json = False,
) -> None:
    """Which checks a run's data and model kept and missed, with values, intervals and bounds."""
    _, found = find_run(run, runs)
    if as_json:
        print_json(_as_json(found))
        return
    print_line(f"run {found.name} of {found.pipeline}")
    parts = {"The verdict on the data": _data, "The verdict on the model": _model, "The serving check": _serving}
    for part, lines in parts.items():
        try:
            for line in lines(found):
                print_line(line)
        except (Unreadable, ValueError, ArithmeticError) as error:  # the last two come from contradicting figures
            print_line(f"{part} cannot be read: {str(error).splitlines()[0]}")
    summary = summarise(found)
    if summary.pushed:
        print_line(f"It was pushed as version {summary.pushed}.")
    for reason in summary.unreadable:
        print_line(f"The record of the run itself: {reason}.")


def _as_json(run: Run) -> dict[str, Any]:
    summary = summarise(run)
    weighed: dict[str, Any] = {"run": run.name, "pipeline": run.pipeline}
    unreadable = list(summary.unreadable)

    def add(key: str, artifact: Artifact, name: str) -> None:
        try:
            weighed[key] = read(artifact.properties, name, Any)
        except Unreadable as error:
            if str(error) not in unreadable:
                unreadable.append(str(error))

    if verdict := run.output("DataGate", "verdict"):
        add("data", verdict, "findings")
    if backbone := run.output("Backbone", "backbone"):
        weighed["backbone"] = {name: backbone.properties.get(name) for name in ("source", "content_digest", "run_id")}
    if blessing := run.output("Evaluator", "blessing"):
        add("model", blessing, "judgement")
        weighed["baseline"] = blessing.properties.get("baseline_model_uri")
        if OVERRIDE in blessing.properties:
            add("override", blessing, OVERRIDE)
    if infra := run.output("ServingCheck", "blessing"):
        add("serving", infra, "checks")
    return {**weighed, "pushed": summary.pushed, "unreadable": unreadable}


def _data(run: Run) -> list[str]:
    verdict = run.output("DataGate", "verdict")
    if verdict is None:
        return ["The data gate has no verdict: the run crashed or goes on, or its data could not be read."]
    findings = read(verdict.properties, "findings", list[Finding])
    missed = [finding for finding in findings if finding.level != "ok"]
    stopped = any(finding.level == "stop" for finding in missed)
    first = "The data were refused, nothing was trained." if stopped else "The data passed."
    return [first, *(f"  {finding.level}: {finding}" for finding in missed)]


def _model(run: Run) -> list[str]:
    blessing = run.output("Evaluator", "blessing")
    if blessing is None:
        return ["There is no verdict on a model: none was weighed."]
    judgement = read(blessing.properties, "judgement", Judgement)
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
    if backbone := run.output("Backbone", "backbone"):
        source, maker = backbone.properties.get("source"), backbone.properties.get("run_id")
        of_run = f", the model of run {maker}" if maker else ""
        lines.append(f"It was fine-tuned from {source}{of_run}.")
    if start := warm_start(run):
        lines.append(f"Its training: {start}.")
    if OVERRIDE in blessing.properties:
        override = read(blessing.properties, OVERRIDE, Override)
        lines.append(f"A person blessed it at {override.at}: {override.reason}")
    baseline = str(blessing.properties.get("baseline_model_uri") or "")
    if baseline and judgement.comparison:
        scope = f", {judgement.comparison.scope}" if judgement.comparison.shared else ""
        return [*lines, f"It was weighed against the model serving then, {shown(Path(baseline))}{scope}."]
    if baseline:
        return [*lines, f"The model serving then, {shown(Path(baseline))}, could not be weighed against."]
    if judgement.incomparable:
        return [*lines, "The model serving then could not be weighed against."]
    return [*lines, "No model served then, so it was weighed against none."]


def _serving(run: Run) -> list[str]:
    infra = run.output("ServingCheck", "blessing")
    if infra is None:
        return []
    missed = [f"  missed: {check}" for check in read(infra.properties, "checks", list[Check]) if not check.passed]
    return [f"It {'cannot' if missed else 'can'} be served.", *missed]


def _words(check: Check, confidence: float) -> str:
    verdict = "kept" if check.kept else "below the bound, but no more than chance" if check.noise else "missed"
    interval = ""
    if check.interval:
        interval = f", {check.interval[0]:.4f} to {check.interval[1]:.4f} with {confidence:.0%} confidence"
    detail = f" ({check.detail})" if check.detail else ""
    return f"{verdict}: {check.name}{detail} is {check.value:.4f}{interval}; it must be {check.sense} {check.bound:.4f}"
