"""RunReport: the last node of every run that did not crash, which writes a page about the run."""

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
    """`report.html` and `report.json`; its property `page` names the copy below the run folder."""

    TYPE_NAME = "RunReport"


class Executor(base_executor.BaseExecutor):
    """Asks the store itself: an input of a step that was skipped would not resolve, and TFX would fail this one."""

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        report = artifact_utils.get_single_instance(output_dict["report"])
        run_id = self._context.pipeline_run_id
        folder = Path(exec_properties["reports"], run_id)
        with reader(Address.parse(exec_properties["store"])) as store:
            run = store.run(run_id)
            assert run is not None  # this very execution is in it
            write(store, run, [Path(report.uri), folder])
        report.set_string_custom_property("page", str(folder / PAGE))


class RunReportSpec(ComponentSpec):
    PARAMETERS: ClassVar = {"store": ExecutionParameter(type=str), "reports": ExecutionParameter(type=str)}
    INPUTS: ClassVar[dict[str, ChannelParameter]] = {}
    OUTPUTS: ClassVar = {"report": ChannelParameter(type=RunPage)}


class RunReport(base_component.BaseComponent):
    """Writes the report of its run to its output, and to `reports/<run id>/`.

    Args:
        store: address of ML Metadata, without a password.
        reports: absolute path of the folder of reports.
    """

    SPEC_CLASS = RunReportSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(self, store: str, reports: str):
        super().__init__(RunReportSpec(store=store, reports=reports, report=types.Channel(type=RunPage)))


def write(store: Reader, run: Run, folders: list[Path]) -> None:
    """Both files into each folder, whole or not at all."""
    report = collect(store, run)
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in (DATA, report.as_json()), (PAGE, render(report, folder)):
            with atomic_write(folder / name) as file:
                file.write(text.encode())
