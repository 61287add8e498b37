"""Pushed version of a model that is monitored: its reference, its bounds and the open windows of its traffic."""

from collections.abc import Sequence
from pathlib import Path

from components.data.gate.bounds import DataGateSettings
from components.errors import DataRefused
from components.model.serving_folder import ModelRecord, read_record
from pipeline.metadata.address import Address
from pipeline.metadata.records import Artifact, Run
from pipeline.metadata.stores import find_run
from pipeline.monitoring.arguments import WindowSize, is_engine_setting
from pipeline.monitoring.log_files import Problems
from pipeline.monitoring.reference import Reference, read_reference
from pipeline.monitoring.windows import Windows
from pipeline.pushed_models import pushed_artifact
from pipeline.result.run_result import RunResult
from pipeline.settings import LayeredSettings, Source, explicit_sources, merge_sources
from pipeline.settings.monitor import MonitorSettings


class Bounds(LayeredSettings):
    """Settings that the checks of a window use."""

    data_gate: DataGateSettings = DataGateSettings()
    monitor: MonitorSettings = MonitorSettings()


class MonitoredVersion:
    """Pushed version, with the reference, the bounds and the open windows of its traffic.

    Args:
        folder: folder of the pushed version.
        runs: folder of the run folders.
        overrides: settings as `a.b=c`, which override those that the run recorded.
        size: size of a window.
        problems: counts answers that no window can take, see `Windows`.
        keep_open: see `Windows`.

    Raises:
        UsageError: if the run or its reference no longer exists, or a setting is wrong.
        DataRefused: if the record of the version cannot be read.
    """

    def __init__(
        self,
        folder: Path,
        runs: Path,
        overrides: Sequence[str],
        size: WindowSize,
        problems: Problems,
        keep_open: bool,
    ) -> None:
        try:
            self.record: ModelRecord = read_record(folder)
        except ValueError as error:
            raise DataRefused(str(error)) from None
        address, run = find_run(self.record.run_id, runs)
        self.address: Address = address
        self.artifact: tuple[str, Artifact] | None = pushed_artifact(self.record, run)
        self.reference: Reference = read_reference(self.record, run)
        self.bounds: Bounds = _bounds(run, overrides)
        self.windows = Windows(self.record.version, len(self.record.classes), *size, problems, keep_open)


def _bounds(run: Run, overrides: Sequence[str]) -> Bounds:
    recorded = RunResult(run).settings
    values = {group: recorded[group] for group in Bounds.model_fields if group in recorded}
    flags = [flag for flag in overrides if not is_engine_setting(flag)]
    explicit = explicit_sources(flags, groups=Bounds.model_fields)
    return merge_sources(Bounds, [*explicit, Source(values, f"run {run.name}")])
