"""RunReport: the last node of every run that does not crash, which writes a report of the run."""

from pathlib import Path
from typing import Any, ClassVar

from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils
from tfx.types.artifact import Artifact
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from pipeline.metadata.address import Address
from pipeline.metadata.reader import Reader, reader
from pipeline.metadata.records import Run
from pipeline.report import DATA, PAGE
from pipeline.report.collect import collect
from pipeline.report.page import render
from trainer.disk import atomic_write


class RunPage(Artifact):
    """Artifact with `report.html` and `report.json`. Its property `page` is the path of the copy in the run folder."""

    TYPE_NAME = "RunReport"


class Executor(base_executor.BaseExecutor):
    """Executor that reads the store directly. With an input from a skipped step, TFX would fail this step."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Write the report of the run that this execution belongs to.

        Args:
            input_dict: empty.
            output_dict: the artifact `report`.
            exec_properties: `store` and `reports`, see `RunReport`.
        """
        report = artifact_utils.get_single_instance(output_dict["report"])
        run_id = self._context.pipeline_run_id
        folder = Path(exec_properties["reports"], run_id)
        with reader(Address.parse(exec_properties["store"])) as store:
            run = store.run(run_id)
            assert run is not None  # this execution belongs to it
            write(store, run, [Path(report.uri), folder])
        report.set_string_custom_property("page", str(folder / PAGE))


class RunReportSpec(ComponentSpec):
    """Inputs, outputs and parameters of `RunReport`."""

    PARAMETERS: ClassVar = {"store": ExecutionParameter(type=str), "reports": ExecutionParameter(type=str)}
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {"report": ChannelParameter(type=RunPage)}


class RunReport(base_component.BaseComponent):
    """Component that writes the report of its run to its output, and to `reports/<run id>/`.

    Args:
        store: address of ML Metadata, without a password.
        reports: absolute path of the folder of reports.
    """

    SPEC_CLASS = RunReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, store: str, reports: str) -> None:
        super().__init__(RunReportSpec(store=store, reports=reports, report=types.Channel(type=RunPage)))


def write(store: Reader, run: Run, folders: list[Path]) -> None:
    """Write the page and the JSON of a run's report. No file is ever incomplete.

    Args:
        store: reader of the store that has the run.
        run: the run.
        folders: folders to write both files to.
    """
    report = collect(store, run)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (DATA, report.as_json()), (PAGE, render(report, folder)):
            with atomic_write(folder / name) as file:
                file.write(text.encode())
