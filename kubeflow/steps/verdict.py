"""`python -m kubeflow.steps.verdict`: end with the exit code that `vitpipe run` would end with.

This step comes after all nodes, so it runs only if none of them failed. A run that a gate stopped fails here.
"""

from dataclasses import replace

from components.errors import Exit, StoreError
from kubeflow.steps import step
from kubeflow.steps.report import rewrite_report
from pipeline.console.logs import redirected
from pipeline.metadata.address import Address
from pipeline.metadata.writer import MetadataStore, record
from pipeline.outcome import REPORT
from pipeline.result.run_result import EXIT, STATE_OF_EXIT, RunResult
from pipeline.result.verdict import verdict


def main() -> None:
    """Run the step."""
    arguments = step.parse(step.run_parser(__doc__))
    address = Address.parse(arguments.store)
    run = step.read_run(address, arguments.run_id)
    assert run is not None  # its first step recorded it
    # The run has an exit code if a user has restarted its failed steps. That code is outdated, and left out here.
    facts = {name: value for name, value in run.facts.items() if name != EXIT}
    try:
        result = verdict(RunResult(replace(run, facts=facts)))
    except StoreError as error:
        step.end(Exit.CRASHED, str(error))
    record(MetadataStore(address.connection_config()), run.name, **{EXIT: str(int(result.exit))})
    with redirected(arguments.folder / "logs" / arguments.run_id / f"{REPORT}.log"):
        rewrite_report(address, replace(run, facts={**run.facts, EXIT: str(int(result.exit))}), arguments.folder)
    step.end(result.exit, *result.lines, STATE_OF_EXIT[result.exit])


if __name__ == "__main__":
    main()
