"""What a run came to: an exit code, and in words which check, the value, the bound and where to look."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ml_metadata import MetadataStore

from components.data_bounds import PAGE, Finding
from components.gate import OVERRIDE, Check, Judgement
from pipeline.exits import Exit
from pipeline.logs import shown
from pipeline.metadata import outputs
from pipeline.node import Outcome, State


@dataclass(frozen=True)
class Verdict:
    exit: Exit
    lines: list[str]
    node: str = ""  # whose log says more


def verdict(store: MetadataStore, outcomes: Sequence[Outcome]) -> Verdict:
    """Read the verdict from the artifacts of the run: a cached step counts as much as one that ran."""
    by_node = {outcome.node: outcome for outcome in outcomes}
    for outcome in outcomes:
        if outcome.data_refused:
            return Verdict(Exit.DATA_REFUSED, [f"data refused, nothing trained: {outcome.error}"], outcome.node)
        if outcome.state is State.FAILED:
            return Verdict(Exit.CRASHED, [f"crashed in {outcome.node}: {outcome.error}"], outcome.node)

    lines = []
    if (data_gate := by_node.get("DataGate")) and data_gate.execution_id:
        [weighed] = outputs(store, data_gate.execution_id)["verdict"]
        page = f"the span's page: {shown(Path(weighed.uri, PAGE))}"
        findings = [Finding.model_validate(finding) for finding in json.loads(str(weighed.properties["findings"]))]
        if not weighed.properties["passed"]:
            stopping = [f"  {finding}" for finding in findings if finding.level == "stop"]
            return Verdict(Exit.DATA_REFUSED, ["data refused, nothing trained:", *stopping, page], "DataGate")
        lines = [f"{finding.level}: {finding}" for finding in findings if finding.level in ("warning", "accepted")]
        lines.append(page)

    if (evaluator := by_node.get("Evaluator")) and evaluator.execution_id:
        [blessing] = outputs(store, evaluator.execution_id)["blessing"]
        judgement = Judgement.model_validate_json(str(blessing.properties["judgement"]))
        lines += [f"warning: {warning}" for warning in judgement.warnings]
        if not blessing.properties["blessed"]:
            serves = blessing.properties.get("baseline_model_id") == blessing.properties["current_model_id"]
            trained = by_node["Trainer"].execution_id
            assert trained is not None  # a model was weighed
            [model] = outputs(store, trained)["model"]
            if serves and OVERRIDE in model.properties:
                reason = json.loads(str(model.properties[OVERRIDE]))["reason"]
                return Verdict(Exit.OK, [*lines, f"nothing to push: this model serves, blessed by a person: {reason}"])
            failed = [f"  {check}" for check in judgement.checks if not check.passed]
            return Verdict(Exit.NOT_BLESSED, [*lines, "not blessed, nothing pushed:", *failed], "Evaluator")
        if OVERRIDE in blessing.properties:
            lines.append(f"blessed by a person: {json.loads(str(blessing.properties[OVERRIDE]))['reason']}")
        else:
            lines.append(f"blessed: {'; '.join(str(check) for check in judgement.checks)}")

    if (serving := by_node.get("ServingCheck")) and serving.execution_id:
        [infra] = outputs(store, serving.execution_id)["blessing"]
        if not infra.properties["blessed"]:
            checks = [Check.model_validate(check) for check in json.loads(str(infra.properties["checks"]))]
            failed = [f"  {check}" for check in checks if not check.passed]
            return Verdict(Exit.NOT_SERVABLE, [*lines, "cannot be served, nothing pushed:", *failed], "ServingCheck")

    if (pusher := by_node.get("Pusher")) and pusher.execution_id:
        [pushed] = outputs(store, pusher.execution_id)["pushed_model"]
        version = pushed.properties["pushed_version"]
        where = shown(Path(str(pushed.properties["pushed_destination"])))
        if pushed.properties["pushed"]:
            lines.append(f"pushed version {version} to {where}")
        elif pushed.properties["withdrawn"]:
            lines.append(f"not pushed: this model was rolled back; version {version} in {where} serves")
        else:
            lines.append(f"nothing to push: version {version} in {where} is this very model")
    if (trainer := by_node.get("Trainer")) and trainer.state is State.CACHED:
        lines.insert(0, "nothing trained: this model was made by an earlier run")
    return Verdict(Exit.OK, lines)
