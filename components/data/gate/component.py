"""The DataGate component. It alone decides whether a span may be trained on, and records everything it compared."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from tensorflow_metadata.proto.v0 import anomalies_pb2
from tfx import types
from tfx.dsl.components.base import base_component, base_executor, executor_spec
from tfx.types import artifact_utils, standard_artifacts
from tfx.types.component_spec import ChannelParameter, ComponentSpec, ExecutionParameter

from components import artifacts
from components.data.example_gen import SPAN_FOLDER
from components.data.gate.bounds import DATA_FOLDER, LEAVE_OUT, PAGE, DataGateSettings
from components.data.gate.checks import DataVerdict, judge
from components.data.gate.page import MOST_SHOWN, ExamplePicture, Exhibit, readable, render, shown_classes
from components.data.ingest import tfrecord
from components.data.ingest.images import REMARKS
from components.data.statistics.component import CONFLICTS, FIGURES, TWINS, read_table
from components.data.statistics.figures import Conflicts, ImageFigures, repeated_ids, without_images
from components.data.statistics.leaks import gives_way

VERDICT = "verdict.json"

_SAMPLES = 8  # pictures of each class


class Executor(base_executor.BaseExecutor):
    """Judges, and draws the page.

    Data that fail do not fail the step: TFX would delete its outputs, and nobody could read why. It completes with
    `passed` 0, and what follows is skipped.
    """

    def Do(
        self,
        input_dict: dict[str, list[types.Artifact]],
        output_dict: dict[str, list[types.Artifact]],
        exec_properties: dict[str, Any],
    ) -> None:
        settings = DataGateSettings.model_validate_json(exec_properties["settings"])
        statistics = artifact_utils.get_single_instance(input_dict["statistics"])
        folder = Path(statistics.uri)
        figures = ImageFigures.model_validate_json((folder / FIGURES).read_text("utf-8"))
        twins = pd.read_parquet(folder / TWINS)
        conflicts = pd.read_parquet(folder / CONFLICTS)
        images = read_table(folder, ["split", "id", "label", "reason", "width", "height", "digest", "remarks"])
        left_out: list[bytes] = []
        if settings.leave_out_leaks:
            left_out = sorted(set(twins.id[gives_way(twins)]))
            figures = without_images(figures, images, images.id.isin(left_out) & (images.split != "test"))
            twins = twins[:0]
            conflicts = _without(conflicts, left_out)
        exact = int(conflicts.exact.sum())
        figures = figures.model_copy(update={"conflicts": Conflicts(exact=exact, near=len(conflicts) - exact)})
        exhibits = _exhibits(images, twins, conflicts, list(figures.splits["train"].labels), settings)
        previous = [_read_verdict(verdict).figures for verdict in input_dict.get("previous", [])]
        judged = judge(
            settings,
            figures,
            _anomalies(artifact_utils.get_single_instance(input_dict["anomalies"])),
            previous=previous[0] if previous else None,
            accepted=json.loads(exec_properties["accepted"]),
            left_out=len(left_out),
            examples={
                check: [f"{one.picture.name!r} ({one.note})" for one in shown[:3]] for check, shown in exhibits.items()
            },
        )
        verdict = artifact_utils.get_single_instance(output_dict["verdict"])
        verdict.span, verdict.passed = figures.span, int(judged.passed)
        verdict.set_string_custom_property(DATA_FOLDER, _data_folder(input_dict["examples"]))
        verdict.set_string_custom_property(
            "findings", json.dumps([finding.model_dump(mode="json") for finding in judged.findings])
        )
        out = Path(verdict.uri)
        (out / VERDICT).write_text(judged.model_dump_json(indent=1) + "\n", encoding="utf-8")
        (out / LEAVE_OUT).write_text(json.dumps([id.decode("utf-8", "surrogateescape") for id in left_out]))
        samples = _samples(images, figures.splits["train"].labels)
        _fill_in([*input_dict["examples"], *input_dict["test_examples"]], [*exhibits.values(), *samples.values()])
        (out / PAGE).write_text(render(judged, previous[0] if previous else None, samples, exhibits), encoding="utf-8")


class DataGateSpec(ComponentSpec):
    PARAMETERS: ClassVar = {"settings": ExecutionParameter(type=str), "accepted": ExecutionParameter(type=str)}
    INPUTS: ClassVar = {
        "examples": ChannelParameter(type=standard_artifacts.Examples),
        "test_examples": ChannelParameter(type=standard_artifacts.Examples),
        "statistics": ChannelParameter(type=artifacts.ImageStatisticsArtifact),
        "anomalies": ChannelParameter(type=standard_artifacts.ExampleAnomalies),
        "previous": ChannelParameter(type=artifacts.DataVerdictArtifact, optional=True),
    }
    OUTPUTS: ClassVar = {"verdict": ChannelParameter(type=artifacts.DataVerdictArtifact)}


class DataGate(base_component.BaseComponent):
    """Weighs a span before anything is trained on it.

    Args:
        examples, test_examples: raw examples, for their pictures.
        statistics: of both.
        anomalies: TFDV's.
        previous: the verdict on the span to compare with; the channel may be empty.
        settings: the bounds.
        accepted: a person's words for each check that shall not stop this run.
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
        settings: DataGateSettings,
        accepted: dict[str, str],
    ):
        super().__init__(
            DataGateSpec(
                examples=examples,
                test_examples=test_examples,
                statistics=statistics,
                anomalies=anomalies,
                previous=previous,
                settings=settings.model_dump_json(),
                accepted=json.dumps(accepted, sort_keys=True),
                verdict=types.Channel(type=artifacts.DataVerdictArtifact),
            )
        )


def _data_folder(examples: list[types.Artifact]) -> str:
    """Where the spans lie that this one is compared with."""
    return str(Path(artifact_utils.get_single_instance(examples).get_string_custom_property(SPAN_FOLDER)).parent)


def _read_verdict(artifact: types.Artifact) -> DataVerdict:
    return DataVerdict.model_validate_json((Path(artifact.uri) / VERDICT).read_text("utf-8"))


def _anomalies(artifact: types.Artifact) -> list[str]:
    """TFDV's anomalies of every split, in words."""
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
    gone = conflicts.id.isin(left_out) & (conflicts.split != "test")
    twin_gone = conflicts.twin_id.isin(left_out) & (conflicts.twin_split != "test")
    return conflicts[~gone & ~twin_gone]


def _exhibits(
    images: pd.DataFrame, twins: pd.DataFrame, conflicts: pd.DataFrame, names: list[str], settings: DataGateSettings
) -> dict[str, list[Exhibit]]:
    """The first examples that each check is about."""
    good = images[images.reason == ""]
    leaking = twins[~gives_way(twins)].sort_values("correlation", ascending=False)
    repeated = good[good.duplicated(["split", "digest"])]
    bound = settings.image_side
    smallest = max((side for side in (bound.warn, bound.stop) if side is not None), default=0)
    small = good[good[["width", "height"]].min(axis=1) < smallest]

    def twin(row: Any) -> str:
        return f"{readable(row.twin_id)!r} in {row.twin_split}"

    def label(number: int) -> str:
        return names[number] if 0 <= number < len(names) else str(number)

    def conflict(row: Any) -> str:
        alike = "shows the same" if row.exact else f"shows nearly the same, {row.correlation:.2f},"
        return f"labelled {label(row.label)}; {twin(row)} {alike} and is labelled {label(row.twin_label)}"

    shown = {
        "undecodable": _rows(images[images.reason != ""], lambda row: row.reason),
        "outside_labels": _rows(images[~images.label.between(0, len(names) - 1)], lambda row: f"label {row.label}"),
        "repeated_ids": _rows(images[repeated_ids(images)], lambda row: "once more"),
        "image_side": _rows(small, lambda row: f"{row.width:.0f}x{row.height:.0f}"),
        **{
            check: _rows(good[[check in of for of in good.remarks]], lambda row: f"{row.width:.0f}x{row.height:.0f}")
            for check in REMARKS
        },
        "duplicates": _rows(repeated[repeated.split == "train"], lambda row: "once more"),
        "conflicting_labels": _rows(conflicts.sort_values("exact", ascending=False, kind="stable"), conflict),
        "exact_leaks": _rows(leaking[leaking.exact], lambda row: f"is {twin(row)}"),
        "near_leaks": _rows(leaking[~leaking.exact], lambda row: f"like {twin(row)}, {row.correlation:.2f}"),
    }
    return {check: rows for check, rows in shown.items() if rows}


def _rows(table: pd.DataFrame, note: Callable[[Any], str]) -> list[Exhibit]:
    return [
        Exhibit(
            ExamplePicture(row.split, row.id),
            note(row),
            ExamplePicture(row.twin_split, row.twin_id) if "twin_id" in table else None,
        )
        for row in table.head(MOST_SHOWN).itertuples()
    ]


def _samples(images: pd.DataFrame, labels: dict[str, int]) -> dict[str, list[Exhibit]]:
    train = images[(images.split == "train") & (images.reason == "")]
    shown = {*shown_classes(labels)}
    return {
        name: [
            Exhibit(ExamplePicture(row.split, row.id))
            for row in train[train.label == label].head(_SAMPLES).itertuples()
        ]
        for label, name in enumerate(labels)
        if name in shown
    }


def _fill_in(examples: Iterable[types.Artifact], exhibits: Iterable[list[Exhibit]]) -> None:
    """Puts their pictures into the exhibits."""
    wanted: dict[tuple[str, bytes], list[ExamplePicture]] = {}
    for exhibit in (exhibit for shown in exhibits for exhibit in shown):
        for picture in exhibit.pictures:
            wanted.setdefault((picture.split, picture.id), []).append(picture)
    for artifact in examples:
        for split in artifact_utils.decode_split_names(artifact.split_names):
            for example in tfrecord.read_split(Path(artifact_utils.get_split_uri([artifact], split))):
                for picture in wanted.get((split, example.id), ()):
                    picture.image = example.image
