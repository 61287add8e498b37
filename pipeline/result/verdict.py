"""Verdict of a run: its exit code, and lines with the failed check, the value, the bound and where to look."""

from dataclasses import dataclass, replace
from pathlib import Path

from components.errors import Exit
from pipeline.console.logs import display_path
from pipeline.outcome import REPORT, NodeState
from pipeline.result.run_result import RunResult
from trainer.trials import describe


@dataclass(frozen=True)
class Verdict:
    """Exit code of a run and its explanation."""

    exit: Exit
    lines: list[str]
    node: str = ""  # id of the node whose log has details; empty without such a node


def verdict(result: RunResult) -> Verdict:
    """Return the verdict of a run, read from its artifacts.

    A cached step counts like a step that ran. A failed report adds a line, and does not change the exit code.

    Raises:
        UnreadableError: if a recorded verdict is not in the format of this version.
    """
    conclusion = _without_report(result)
    lines = [*conclusion.lines]
    if result.report:
        lines.append(f"the report: {display_path(result.report)}")
    lines += [
        f"warning: {REPORT} failed, so there is no report: {outcome.error}; see its log, {REPORT}.log"
        for outcome in result.launched or ()
        if outcome.node == REPORT and outcome.state is NodeState.FAILED
    ]
    return replace(conclusion, lines=lines)


def _without_report(result: RunResult) -> Verdict:
    for outcome in result.failures:
        if outcome.data_refused:
            return Verdict(Exit.DATA_REFUSED, [f"data refused, nothing trained: {outcome.error}"], outcome.node)
        return Verdict(Exit.CRASHED, [f"crashed in {outcome.node}: {outcome.error}"], outcome.node)
    if result.exit is Exit.CRASHED:
        return Verdict(Exit.CRASHED, ["crashed in a step that left no trace in ML Metadata: see the step's own log"])

    lines = [f"warning: {result.warning}"] if result.warning else []
    if result.warm_start:
        lines.append(str(result.warm_start))
    if data := result.data:
        page = f"the span's page: {display_path(data.page)}"
        others = [
            f"{finding.level}: {finding}" for finding in data.findings if finding.level in ("warning", "accepted")
        ]
        if not result.data_passed:
            stopping = [f"  {finding}" for finding in data.findings if finding.level == "stop"]
            # A warning may explain the failed check: images of one colour are also duplicates.
            return Verdict(Exit.DATA_REFUSED, ["data refused, nothing trained:", *stopping, *others, page], "DataGate")
        lines += [*others, page]

    if tuning := result.tuning:
        lines.append(
            f"tuned: trial {tuning.trial} of {tuning.trials} is the best, with accuracy {tuning.accuracy:.4f} on val: "
            f"{describe(tuning.values)}"
        )
        return Verdict(Exit.OK, lines)
    if tuned := result.tuned:
        lines.append(f"trained with the values of the tuning {tuned.run}: {describe(tuned.values)}")
    if judgement := result.judgement:
        lines += [f"warning: {warning}" for warning in judgement.warnings]
        if not result.blessed:
            if override := result.earlier_override:
                words = f"nothing to push: this model serves, blessed by a person: {override.reason}"
                return Verdict(Exit.OK, [*lines, words])
            failed = [f"  {check}" for check in judgement.checks if not check.passed]
            return Verdict(Exit.NOT_BLESSED, [*lines, "not blessed, nothing pushed:", *failed], "Evaluator")
        if result.override:
            lines.append(f"blessed by a person: {result.override.reason}")
        else:
            lines.append(f"blessed: {'; '.join(str(check) for check in judgement.checks)}")

    if (serving := result.serving) and not result.servable:
        failed = [f"  {check}" for check in serving.checks if not check.passed]
        return Verdict(Exit.NOT_SERVABLE, [*lines, "cannot be served, nothing pushed:", *failed], "ServingCheck")

    if push := result.push:
        lines.append(_PUSH[push.state].format(version=push.version, folder=display_path(Path(push.destination))))
    if result.record.node("Trainer") and not result.trained:
        lines.insert(0, "nothing trained: this model was made by an earlier run")
    return Verdict(Exit.OK, lines)


_PUSH = {
    "pushed": "pushed version {version} to {folder}",
    "unchanged": "nothing to push: version {version} in {folder} is already this model",
    "withdrawn": "not pushed: this model was rolled back; version {version} in {folder} serves instead",
}
