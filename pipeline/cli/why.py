"""`vitpipe why`: in words, why a run's model was or was not blessed."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from components.data_bounds import Finding
from components.gate import OVERRIDE, Check, Judgement
from pipeline.logs import shown
from pipeline.metadata.stores import find_run
from pipeline.terminal import print_line
from pipeline.verdict import warm_start
from trainer.warm_start import WarmStart


def why(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, as it was printed when it started.")],
    runs: Annotated[Path, typer.Option(help="Where the run folders are.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Which checks a run's data and model kept and missed, with values, intervals and bounds."""
    _, found = find_run(run, runs)
    weighed: dict[str, Any] = {}
    if verdict := found.output("DataGate", "verdict"):
        weighed["data"] = json.loads(str(verdict.properties["findings"]))
    if backbone := found.output("Backbone", "backbone"):
        weighed["backbone"] = {name: backbone.properties.get(name) for name in ("source", "content_digest", "run_id")}
    if start := warm_start(found):
        weighed["warm_start"] = start.model_dump()
    if blessing := found.output("Evaluator", "blessing"):
        weighed["model"] = json.loads(str(blessing.properties["judgement"]))
        weighed["baseline"] = blessing.properties.get("baseline_model_uri")
        if OVERRIDE in blessing.properties:
            weighed["override"] = json.loads(str(blessing.properties[OVERRIDE]))
    if infra := found.output("ServingCheck", "blessing"):
        weighed["serving"] = json.loads(str(infra.properties["checks"]))
    if as_json:
        print(json.dumps({"run": found.name, "pipeline": found.pipeline, **weighed}, indent=2))
        return
    print_line(f"run {found.name} of {found.pipeline}")
    for line in _data(weighed) + _model(weighed) + _serving(weighed):
        print_line(line)


def _data(weighed: dict[str, Any]) -> list[str]:
    if "data" not in weighed:
        return ["The data gate has no verdict: the run crashed or goes on, or its data could not be read."]
    findings = [Finding.model_validate(finding) for finding in weighed["data"]]
    missed = [finding for finding in findings if finding.level != "ok"]
    stopped = any(finding.level == "stop" for finding in missed)
    first = "The data were refused, nothing was trained." if stopped else "The data passed."
    return [first, *(f"  {finding.level}: {finding}" for finding in missed)]


def _model(weighed: dict[str, Any]) -> list[str]:
    if "model" not in weighed:
        return ["There is no verdict on a model: none was weighed."]
    judgement = Judgement.model_validate(weighed["model"])
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
    if backbone := weighed.get("backbone"):
        of_run = f", the model of run {backbone['run_id']}" if backbone["run_id"] else ""
        lines.append(f"It was fine-tuned from {backbone['source']}{of_run}.")
    if start := weighed.get("warm_start"):
        lines.append(f"Its training: {WarmStart.model_validate(start)}.")
    if override := weighed.get("override"):
        lines.append(f"A person blessed it at {override['at']}: {override['reason']}")
    if weighed["baseline"] and judgement.comparison:
        scope = f", {judgement.comparison.scope}" if judgement.comparison.shared else ""
        return [*lines, f"It was weighed against the model serving then, {shown(Path(weighed['baseline']))}{scope}."]
    if weighed["baseline"]:
        return [*lines, f"The model serving then, {shown(Path(weighed['baseline']))}, could not be weighed against."]
    if judgement.incomparable:
        return [*lines, "The model serving then could not be weighed against."]
    return [*lines, "No model served then, so it was weighed against none."]


def _serving(weighed: dict[str, Any]) -> list[str]:
    if "serving" not in weighed:
        return []
    checks = [Check.model_validate(check) for check in weighed["serving"]]
    missed = [f"  missed: {check}" for check in checks if not check.passed]
    return [f"It {'cannot' if missed else 'can'} be served.", *missed]


def _words(check: Check, confidence: float) -> str:
    verdict = "kept" if check.kept else "below the bound, but no more than chance" if check.noise else "missed"
    interval = ""
    if check.interval:
        interval = f", {check.interval[0]:.4f} to {check.interval[1]:.4f} with {confidence:.0%} confidence"
    detail = f" ({check.detail})" if check.detail else ""
    return f"{verdict}: {check.name}{detail} is {check.value:.4f}{interval}; it must be {check.sense} {check.bound:.4f}"
