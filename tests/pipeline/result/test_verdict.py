from dataclasses import replace

import pytest

from components.errors import Exit
from pipeline.metadata.properties import UnreadableError
from pipeline.metadata.records import Artifact, Execution, Run
from pipeline.outcome import NodeState, Outcome
from pipeline.result.run_result import WARNING, RunResult
from pipeline.result.verdict import verdict

RUN = Run(1, "20261125-120000-0000", "sample", 0, {}, ())


def test_a_node_that_failed_is_a_crash_with_its_name_and_message():
    outcomes = [
        Outcome("Transform", NodeState.COMPLETE, 1.0, 1),
        Outcome("Trainer", NodeState.FAILED, 1.0, error="ValueError: too hot"),
    ]
    result = verdict(RunResult(RUN, outcomes))
    assert (result.exit, result.node) == (Exit.CRASHED, "Trainer")
    assert result.lines == ["crashed in Trainer: ValueError: too hot"]


def test_a_run_without_gates_succeeds():
    outcomes = [Outcome("Transform", NodeState.COMPLETE, 1.0, 1)]
    assert verdict(RunResult(RUN, outcomes)).exit is Exit.OK


def test_the_verdict_repeats_the_warning_from_the_start_of_a_run():
    run = replace(RUN, facts={WARNING: "the files of 3 artifact(s) are gone"})
    assert verdict(RunResult(run, [])).lines == ["warning: the files of 3 artifact(s) are gone"]


def test_data_that_is_refused_while_it_is_read_is_not_a_crash():
    outcomes = [Outcome("ImportExampleGen", NodeState.FAILED, 1.0, error="span-2: cut", data_refused=True)]
    result = verdict(RunResult(RUN, outcomes))
    assert (result.exit, result.lines) == (Exit.DATA_REFUSED, ["data refused, nothing trained: span-2: cut"])


def test_a_failed_report_does_not_change_the_verdict():
    passed = [Outcome("Transform", NodeState.COMPLETE, 1.0, 1)]
    refused = [Outcome("ImportExampleGen", NodeState.FAILED, 1.0, error="span-2: cut", data_refused=True)]
    report = Outcome("RunReport", NodeState.FAILED, 1.0, error="OSError: disk full")
    for outcomes in passed, refused:
        result = verdict(RunResult(RUN, [*outcomes, report]))
        assert (result.exit, result.node) == (
            verdict(RunResult(RUN, outcomes)).exit,
            verdict(RunResult(RUN, outcomes)).node,
        )
        assert result.lines[-1].startswith("warning: RunReport failed") and "OSError: disk full" in result.lines[-1]


@pytest.mark.parametrize(
    ("node", "output", "kind"),
    [
        ("DataGate", "verdict", "DataVerdict"),
        ("Evaluator", "blessing", "ModelBlessing"),
        ("ServingCheck", "blessing", "InfraBlessing"),
    ],
)
def test_a_gate_without_its_record_does_not_count_as_passed(node, output, kind):
    artifact = Artifact(1, kind, "/runs/sample/root", "live", "", 0, 0, {"passed": 1, "blessed": 1})
    gates = [Execution(1, "DataGate", "DataGate", "complete", 0, 0, {}, {}, {})]
    gates.append(Execution(2, node, node, "complete", 0, 0, {}, {}, {output: (artifact,)}))
    with pytest.raises(UnreadableError, match="is missing"):
        verdict(RunResult(replace(RUN, executions=tuple(gates))))


def test_a_run_of_another_pipeline_has_no_verdicts():
    blessing = Artifact(1, "ModelBlessing", "/taxi", "live", "", 0, 0, {"blessed": 1})
    evaluator = Execution(1, "Evaluator", "Evaluator", "complete", 0, 0, {}, {}, {"blessing": (blessing,)})
    result = RunResult(replace(RUN, executions=(evaluator,)))
    assert (result.judgement, result.data, result.serving, result.blessed) == (None, None, None, True)
    assert verdict(result).exit is Exit.OK
