"""What a run came to: an exit code, and in words which check, the value, the bound and where to look."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from components.data.gate.bounds import PAGE, Finding
from components.errors import Exit
from components.model.evaluator.judgement import OVERRIDE, Check, Judgement, Override
from pipeline.console.logs import shown
from pipeline.metadata.properties import read, read_flag, read_text
from pipeline.metadata.records import Run
from pipeline.outcome import REFUSED, REPORT, Outcome, State
from pipeline.result.summary import EXIT, WARNING
from trainer.warm_start import WARM_START, WarmStart


@dataclass(frozen=True)
class Verdict:
    exit: Exit
    lines: list[str]
    node: str = ""  # whose log says more


def verdict(run: Run, outcomes: Sequence[Outcome]) -> Verdict:
    """Read the verdict from the artifacts of the run: a cached step counts as much as one that ran.

    A report that failed changes nothing in what the run came to, and is told of.
    Raises Unreadable if a recorded verdict is not in the format of this version.
    """
    found = _of_run(run, [outcome for outcome in outcomes if outcome.node != REPORT])
    lines = [*found.lines]
    if report := run.output(REPORT, "report"):
        lines.append(f"the report: {shown(Path(read_text(report.properties, 'page')))}")
    lines += [
        f"warning: {REPORT} failed, so there is no report: {outcome.error}; look in its log, {REPORT}.log"
        for outcome in outcomes
        if outcome.node == REPORT and outcome.state is State.FAILED
    ]
    return replace(found, lines=lines)


def outcomes(run: Run) -> list[Outcome]:
    """Of the nodes that failed, as ML Metadata knows them: all else the verdict reads from the artifacts."""
    return [
        Outcome(
            one.node,
            State.FAILED,
            one.seconds,
            one.id,
            str(one.properties.get(REFUSED, "see its log")),
            data_refused=REFUSED in one.properties,
        )
        for one in run.executions
        if one.state == "failed" and one.node != REPORT and run.node(one.node) == one
    ]


def warm_start(run: Run) -> WarmStart | None:
    """Return what the run's model took over from the model that served before; None for one trained from scratch."""
    model = run.output("Trainer", "model")
    if model is None or WARM_START not in model.properties:
        return None
    return read(model.properties, WARM_START, WarmStart)


def _of_run(run: Run, outcomes: Sequence[Outcome]) -> Verdict:
    for outcome in outcomes:
        if outcome.data_refused:
            return Verdict(Exit.DATA_REFUSED, [f"data refused, nothing trained: {outcome.error}"], outcome.node)
        if outcome.state is State.FAILED:
            return Verdict(Exit.CRASHED, [f"crashed in {outcome.node}: {outcome.error}"], outcome.node)
    if run.facts.get(EXIT) == str(int(Exit.CRASHED)):
        return Verdict(Exit.CRASHED, ["crashed in a step that left no trace in ML Metadata: its own log says more"])

    lines = [f"warning: {run.facts[WARNING]}"] if WARNING in run.facts else []
    if start := warm_start(run):
        lines.append(str(start))
    if weighed := run.output("DataGate", "verdict"):
        page = f"the span's page: {shown(Path(weighed.uri, PAGE))}"
        findings = read(weighed.properties, "findings", list[Finding])
        if not read_flag(weighed.properties, "passed"):
            stopping = [f"  {finding}" for finding in findings if finding.level == "stop"]
            return Verdict(Exit.DATA_REFUSED, ["data refused, nothing trained:", *stopping, page], "DataGate")
        lines += [f"{finding.level}: {finding}" for finding in findings if finding.level in ("warning", "accepted")]
        lines.append(page)

    if blessing := run.output("Evaluator", "blessing"):
        judgement = read(blessing.properties, "judgement", Judgement)
        lines += [f"warning: {warning}" for warning in judgement.warnings]
        if not read_flag(blessing.properties, "blessed"):
            current = read_text(blessing.properties, "current_model_id")
            serves = str(blessing.properties.get("baseline_model_id")) == current
            model = run.output("Trainer", "model")
            if serves and model and OVERRIDE in model.properties:
                reason = read(model.properties, OVERRIDE, Override).reason
                return Verdict(Exit.OK, [*lines, f"nothing to push: this model serves, blessed by a person: {reason}"])
            failed = [f"  {check}" for check in judgement.checks if not check.passed]
            return Verdict(Exit.NOT_BLESSED, [*lines, "not blessed, nothing pushed:", *failed], "Evaluator")
        if OVERRIDE in blessing.properties:
            lines.append(f"blessed by a person: {read(blessing.properties, OVERRIDE, Override).reason}")
        else:
            lines.append(f"blessed: {'; '.join(str(check) for check in judgement.checks)}")

    if (infra := run.output("ServingCheck", "blessing")) and not read_flag(infra.properties, "blessed"):
        checks = read(infra.properties, "checks", list[Check])
        failed = [f"  {check}" for check in checks if not check.passed]
        return Verdict(Exit.NOT_SERVABLE, [*lines, "cannot be served, nothing pushed:", *failed], "ServingCheck")

    if pushed := run.output("Pusher", "pushed_model"):
        version = read_text(pushed.properties, "pushed_version")
        where = shown(Path(read_text(pushed.properties, "pushed_destination")))
        if read_flag(pushed.properties, "pushed"):
            lines.append(f"pushed version {version} to {where}")
        elif read_flag(pushed.properties, "withdrawn"):
            lines.append(f"not pushed: this model was rolled back; version {version} in {where} serves")
        else:
            lines.append(f"nothing to push: version {version} in {where} is this very model")
    if (trainer := run.node("Trainer")) and trainer.state == "cached":
        lines.insert(0, "nothing trained: this model was made by an earlier run")
    return Verdict(Exit.OK, lines)
