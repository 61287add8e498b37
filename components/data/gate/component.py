"""DataGate component, which decides whether a model may be trained on a span, and records the reasons."""

import json
from collections import Counter
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
import pyarrow as pa
import pyarrow.dataset
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import artifacts
from components.artifacts import split_folders
from components.data.gate.bounds import DATA_FOLDER, LEAVE_OUT, PAGE, DataGateSettings
from components.data.gate.checks import DataVerdict, judge
from components.data.gate.page import render, sampled_classes
from components.data.ingest.images import REMARKS
from components.data.ingest.source import SPLITS
from components.data.labels.suspects import read_figures as read_label_figures
from components.data.pictures import ExamplePicture, Exhibit, read_pictures, readable_id
from components.data.span_properties import SPAN_FOLDER
from components.data.statistics.component import CONFLICTS, EXHIBITS, TWINS
from components.data.statistics.exhibits import MAX_EXHIBITS, SAMPLES, in_order
from components.data.statistics.figures import TABLE, Conflicts, read_figures, remove_leaks
from components.data.statistics.leaks import leave_out_mask

VERDICT = "verdict.json"

_SAMPLES = 8  # sample pictures of each class on the page


def find_verdict(folder: Path) -> DataVerdict | None:
    """Return the verdict in the folder of an artifact; None if it no longer exists or cannot be read."""
    try:
        return DataVerdict.model_validate_json((folder / VERDICT).read_text("utf-8"))
    except (OSError, ValueError):  # ValueError: invalid JSON or UTF-8, or the format of another version
        return None


class Executor(base_executor.BaseExecutor):
    """Executor that checks a span and writes the verdict and its page.

    The step completes even if the data is refused, because TFX deletes the outputs of a failed step and nobody could
    read the reasons. The verdict then has `passed` 0, and the condition in the graph skips the later nodes.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        """Check the span, and write the verdict, the page and the ids that are left out of training.

        Args:
            input_dict: `examples`, `test_examples`, `statistics`, `anomalies`, and `previous` and `suspects`, which
                may be absent.
            output_dict: `verdict`.
            exec_properties: `settings` and `accepted`, both in JSON.
        """
        settings = DataGateSettings.model_validate_json(exec_properties["settings"])
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        folder = Path(statistics.uri)
        figures = read_figures(folder)
        twins = pd.read_parquet(folder / TWINS)
        conflicts = pd.read_parquet(folder / CONFLICTS)
        left_out: list[bytes] = []
        if settings.leave_out_leaks:
            left_out = sorted(set(twins.id[leave_out_mask(twins)]))
            figures = remove_leaks(figures, _count(folder, left_out))
            twins = twins[:0]
            conflicts = _without(conflicts, left_out)
        exact = int(conflicts.exact.sum())
        figures = figures.model_copy(update={"conflicts": Conflicts(exact=exact, near=len(conflicts) - exact)})
        selected = in_order(pd.read_parquet(folder / EXHIBITS))
        exhibits = _exhibits(selected, twins, conflicts, list(figures.splits["train"].labels), settings)
        previous = [_read_verdict(verdict).figures for verdict in input_dict.get("previous", [])]
        decision = judge(
            settings,
            figures,
            _anomalies(artifact_utils.get_single_instance(input_dict["anomalies"])),
            previous=previous[0] if previous else None,
            accepted=json.loads(exec_properties["accepted"]),
            left_out=len(left_out),
            examples={
                check: [f"{exhibit.picture.name!r} ({exhibit.note})" for exhibit in affected[:3]]
                for check, affected in exhibits.items()
            },
            labels=next((read_label_figures(Path(each.uri)) for each in input_dict.get("suspects", [])), None),
        )
        verdict = artifact_utils.get_single_instance(output_dict["verdict"])
        verdict.span, verdict.passed = figures.span, int(decision.passed)
        verdict.set_string_custom_property(DATA_FOLDER, _data_folder(input_dict["examples"]))
        verdict.set_string_custom_property(
            "findings", json.dumps([finding.model_dump(mode="json") for finding in decision.findings])
        )
        out = Path(verdict.uri)
        (out / VERDICT).write_text(decision.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (out / LEAVE_OUT).write_text(json.dumps([id.decode("utf-8", "surrogateescape") for id in left_out]))
        samples = _samples(selected, figures.splits["train"].labels)
        shown = chain.from_iterable([*exhibits.values(), *samples.values()])
        read_pictures(split_folders([*input_dict["examples"], *input_dict["test_examples"]]), shown)
        page = render(decision, previous[0] if previous else None, samples, exhibits)
        (out / PAGE).write_text(page, encoding="utf-8")


class DataGateSpec(ComponentSpec):
    """Inputs, output and parameters of DataGate."""

    PARAMETERS: ClassVar = {"settings": ExecutionParameter(type=str), "accepted": ExecutionParameter(type=str)}
    INPUTS: ClassVar = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "test_examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=artifacts.ImageStatisticsArtifact),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "previous": ChannelParameter(type=artifacts.DataVerdictArtifact, optional=True),
        "suspects": ChannelParameter(type=artifacts.LabelSuspectsArtifact, optional=True),
    }
    OUTPUTS: ClassVar = {"verdict": ChannelParameter(type=artifacts.DataVerdictArtifact)}


class DataGate(base_component.BaseComponent):
    """Component that checks a span before a model is trained on it.

    Args:
        examples: raw examples of train and val, whose pictures the page shows.
        test_examples: raw examples of the gate span's test split.
        statistics: ImageStatistics of both.
        anomalies: anomalies that TFDV found.
        previous: the verdict on the span to compare with. The channel may be empty.
        suspects: result of LabelCheck. None: the share of wrong labels is not checked.
        settings: the bounds.
        accepted: a person's reason for each check that must not stop this run.
    """

    SPEC_CLASS = DataGateSpec
    EXECUTOR_SPEC = executor_spec.ExecutorClassSpec(Executor)

    def __init__(
        self,
        examples: types.BaseChannel,
        test_examples: types.BaseChannel,
        statistics: types.BaseChannel,
        anomalies: types.BaseChannel,
        previous: types.BaseChannel,
        suspects: types.BaseChannel | None,
        settings: DataGateSettings,
        accepted: dict[str, str],
    ) -> None:
        super().__init__(
            DataGateSpec(
                examples=examples,
                test_examples=test_examples,
                statistics=statistics,
                anomalies=anomalies,
                previous=previous,
                suspects=suspects,
                settings=settings.model_dump_json(),
                accepted=json.dumps(accepted, sort_keys=True),
                verdict=types.Channel(type=artifacts.DataVerdictArtifact),
            )
        )


def _data_folder(examples: list[types.Artifact]) -> str:
    """Return the path of the data folder that the examples come from."""
    return str(Path(artifact_utils.get_single_instance(examples).get_string_custom_property(SPAN_FOLDER)).parent)


def _read_verdict(artifact: types.Artifact) -> DataVerdict:
    return DataVerdict.model_validate_json((Path(artifact.uri) / VERDICT).read_text("utf-8"))


def _anomalies(artifact: types.Artifact) -> list[str]:
    """Return descriptions of the anomalies that TFDV found in any split."""
    found = []
    for split in artifact_utils.decode_split_names(artifact.split_names):
        [file] = Path(artifact_utils.get_split_uri([artifact], split)).iterdir()
        anomalies = anomalies_pb2.Anomalies.FromString(file.read_bytes())
        found += [
            f"{feature} in {split}: {info.description or info.short_description}"
            for feature, info in sorted(anomalies.anomaly_info.items())
        ]
        if anomalies.HasField("dataset_anomaly_info"):
            found.append(f"{split}: {anomalies.dataset_anomaly_info.description}")
    return found


def _without(conflicts: pd.DataFrame, left_out: list[bytes]) -> pd.DataFrame:
    """Return the conflicts between images that are not left out. The test set is never left out."""
    is_left_out = conflicts.id.isin(left_out) & (conflicts.split != "test")
    twin_is_left_out = conflicts.twin_id.isin(left_out) & (conflicts.twin_split != "test")
    return conflicts[~is_left_out & ~twin_is_left_out]


def _exhibits(
    selected: pd.DataFrame, twins: pd.DataFrame, conflicts: pd.DataFrame, names: list[str], settings: DataGateSettings
) -> dict[str, list[Exhibit]]:
    """Return the first affected examples of each check that affects any."""
    leaking = _sorted(twins[~leave_out_mask(twins)], "correlation")
    bound = settings.image_side
    smallest = max((side for side in (bound.warn, bound.stop) if side is not None), default=0)
    affected = {str(check): table for check, table in selected.groupby("check", sort=False)}
    if "image_side" in affected:
        table = affected["image_side"]
        affected["image_side"] = table[table[["width", "height"]].min(axis=1) < smallest]

    def name_twin(row: Any) -> str:
        return f"{readable_id(row.twin_id)!r} in {row.twin_split}"

    def name_class(number: int) -> str:
        return names[number] if 0 <= number < len(names) else str(number)

    def describe_conflict(row: Any) -> str:
        alike = "shows the same" if row.exact else f"shows nearly the same (correlation {row.correlation:.2f})"
        return (
            f"labelled {name_class(row.label)}; {name_twin(row)} {alike} and is labelled {name_class(row.twin_label)}"
        )

    def describe_near_leak(row: Any) -> str:
        return f"nearly equals {name_twin(row)}, correlation {row.correlation:.2f}"

    def describe_size(row: Any) -> str:
        return f"{row.width:.0f}x{row.height:.0f}"

    notes = {
        "undecodable": lambda row: row.reason,
        "outside_labels": lambda row: f"label {row.label}",
        "repeated_ids": lambda row: "repeats an earlier id",
        "image_side": describe_size,
        **dict.fromkeys(REMARKS, describe_size),
        "duplicates": lambda row: "repeats an earlier image",
    }
    exhibits = {check: _to_exhibits(affected.get(check, selected[:0]), note) for check, note in notes.items()}
    exhibits |= {
        "conflicting_labels": _to_exhibits(_sorted(conflicts, "exact"), describe_conflict),
        "exact_leaks": _to_exhibits(leaking[leaking.exact], lambda row: f"equals {name_twin(row)}"),
        "near_leaks": _to_exhibits(leaking[~leaking.exact], describe_near_leak),
    }
    return {check: shown for check, shown in exhibits.items() if shown}


def _sorted(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Sort twins or conflicts by a column, the largest first, then as the page shows images."""
    order = table.assign(order=table.split.map(SPLITS.index))
    return order.sort_values([column, "order", "id"], ascending=[False, True, True])


def _to_exhibits(table: pd.DataFrame, note: Callable[[Any], str]) -> list[Exhibit]:
    return [
        Exhibit(
            ExamplePicture(row.split, row.id, row.shard, row.offset),
            note(row),
            ExamplePicture(row.twin_split, row.twin_id, row.twin_shard, row.twin_offset)
            if "twin_id" in table
            else None,
        )
        for row in table.head(MAX_EXHIBITS).itertuples()
    ]


def _samples(selected: pd.DataFrame, labels: dict[str, int]) -> dict[str, list[Exhibit]]:
    samples = selected[selected.check == SAMPLES]
    chosen = {*sampled_classes(labels)}
    return {
        name: [
            Exhibit(ExamplePicture(row.split, row.id, row.shard, row.offset))
            for row in samples[samples.label == label].head(_SAMPLES).itertuples()
        ]
        for label, name in enumerate(labels)
        if name in chosen
    }


def _count(folder: Path, left_out: list[bytes]) -> Counter[tuple[str, int]]:
    """Count the images of train and val with these ids, by split and label."""
    table, field = pa.dataset.dataset(folder / TABLE), pa.dataset.field
    is_left_out = field("id").isin(pa.array(left_out, pa.binary())) & (field("split") != "test")
    batches = table.to_batches(columns=["split", "label"], filter=is_left_out)
    return Counter(
        pair for batch in batches for pair in zip(batch["split"].to_pylist(), batch["label"].to_pylist(), strict=True)
    )
