"""Export of a pushed model to another format, which is kept only if it answers as the model does."""

import hashlib
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from components.data.ingest import tfrecord
from components.errors import DataRefused, ExportRefused, NotFound, UsageError
from components.model.evaluator.judgement import Check, GateSettings, ModelFigures, judge
from components.model.serving_folder import ModelRecord, read_record
from pipeline.console.logs import redirected
from pipeline.metadata.address import Address
from pipeline.metadata.garbage import is_own_folder
from pipeline.metadata.properties import UnreadableError
from pipeline.metadata.records import Artifact, Run
from pipeline.metadata.stores import find_run, server
from pipeline.pushed_models import all_pushed, check, pushed_artifact
from pipeline.result.run_result import RunResult
from pipeline.run_lock import lock_for_changes
from trainer.disk import sync_tree

Format = Literal["litert"]
EXPORT = "export.json"  # the comparison with the model, beside the exported file
MOST_DIFFERENCE = 0.001  # default bound of the difference of probabilities, without int8

_DIFFERENCE = "largest difference of probabilities"  # name of a check
_BATCH = 64
_CALIBRATION = 200  # images of the train split from which the ranges of int8 activations are measured
_TIMED = 50  # answers from which the latency is measured
_NOT_TIMED = 5  # answers before them, while caches fill


@dataclass(frozen=True)
class Comparison:
    """Comparison of an exported model with the pushed one, on the test images of the model gate."""

    examples: int
    same_class: int  # examples that both models answer with the same class
    largest_difference: float  # of any probability
    accuracy: float
    model_accuracy: float  # that of the pushed model
    milliseconds: float  # median latency for one image
    model_milliseconds: float  # that of the pushed model, by its signature `serving_images`
    bytes: int
    model_bytes: int  # of the graph and the variables of the pushed model
    checks: list[Check]


@dataclass(frozen=True)
class Export:
    """An exported model."""

    pipeline: str
    version: int  # of the pushed model
    format: Format
    int8: bool
    file: Path
    sha256: str
    artifact: int  # id of the ExportedModel artifact in ML Metadata
    comparison: Comparison


def export(
    name: str,
    *,
    to: Format = "litert",
    int8: bool = False,
    max_difference: float | None = None,
    runs: Path = Path("runs"),
) -> Export:
    """Convert a pushed model to another format, and compare both on the test images of the model gate.

    The exported model must satisfy the bounds of the model gate like a model of its own. If a person overruled the
    gate, the bounds that the pushed model itself misses do not count.

    Args:
        name: name of a pipeline for its newest version, or PIPELINE/VERSION.
        to: the format. `litert` is LiteRT, which was called TensorFlow Lite.
        int8: quantize weights and activations to int8, calibrated with images of the train split.
        max_difference: largest difference of a probability; None for 0.001, or for no bound with `int8`.
        runs: folder of the run folders.

    Returns:
        The export, which ML Metadata records as an artifact that was made from the pushed model.

    Raises:
        UsageError: if there is no such model, or its run or its examples no longer exist.
        AnotherRun: if a run of the pipeline is running, or another command changes its models or artifacts.
        DataRefused: if the pushed model was modified.
        ExportRefused: if the model cannot be converted, or the exported one misses a bound. No file is left then.
        StoreError: if ML Metadata cannot be read or written.
    """
    if max_difference is not None and not 0 <= max_difference <= 1:
        raise UsageError(f"--max-difference {max_difference:g}: it must be between 0 and 1, as a probability is")
    folder = _version_folder(name, runs)
    run_folder = folder.parent.parent.resolve()
    pipeline = folder.parent.parent.name
    address = server() or Address(file=run_folder / "metadata.db")
    # A run could remove the version, and gc its examples, between the checks and the export.
    with lock_for_changes(run_folder, pipeline, address):
        return _export(name, folder, run_folder, to, int8, max_difference, runs)


def _export(
    name: str, folder: Path, run_folder: Path, to: Format, int8: bool, max_difference: float | None, runs: Path
) -> Export:
    """Export the model of a version folder. The caller holds the lock of the run folder."""
    check(folder)
    record = read_record(folder)
    address, run = find_run(record.run_id, runs)
    result = RunResult(run)
    try:
        gate = GateSettings.model_validate(result.settings.get("gate"))
    except ValidationError as error:
        raise UnreadableError(f"the bounds of the model gate in run {run.name} cannot be read: {error}") from None
    test = _examples(run, "TestExampleGen", run_folder / "root")
    train = _examples(run, "ImportExampleGen", run_folder / "root") if int8 else None
    made_from = pushed_artifact(record, run)
    if made_from is None:
        raise NotFound(
            f"{folder}: ML Metadata knows neither this push nor its model, {record.model.place}, so no export of it "
            "can be recorded: name a version whose artifacts exist, see `vitpipe models verify`"
        )
    inputs = [made_from, ("test_examples", test), *([("examples", train)] if train else [])]

    from pipeline.metadata.standalone_record import EXPORT as KIND
    from pipeline.metadata.standalone_record import StandaloneRecorder

    bound = max_difference if max_difference is not None or int8 else MOST_DIFFERENCE
    recorder = StandaloneRecorder(address, result.pipeline, run_folder / "root", KIND)
    recorder.remove_killed()  # none is running, because the caller holds the lock
    with recorder.recorded([(channel, artifact.id) for channel, artifact in inputs]) as output:
        with redirected(Path(os.devnull)):  # the converter prints
            content, comparison = _convert(folder, record, gate, test, train, bound)
        _refuse(name, comparison, int8)
        output.folder.mkdir(parents=True)
        file = output.folder / "model.tflite"
        file.write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        facts: dict[str, Any] = {
            "version": record.version,
            "run_id": record.run_id,
            "format": to,
            "int8": int8,
            "classes": record.classes,
            "sha256": digest,
            "comparison": asdict(comparison) | {"checks": [one.model_dump() for one in comparison.checks]},
        }
        (output.folder / EXPORT).write_text(json.dumps(facts, indent=1, allow_nan=False) + "\n")
        sync_tree(output.folder)
        output.properties |= {
            "version": record.version,
            "format": f"{to}, int8" if int8 else to,
            "sha256": digest,
            "model_id": record.model.model_dump_json(),
            "accuracy": comparison.accuracy,
            "largest_difference": comparison.largest_difference,
        }
    return Export(result.pipeline, record.version, to, int8, file, digest, output.artifact, comparison)


def _version_folder(name: str, runs: Path) -> Path:
    pushed = all_pushed(runs)
    chosen = next((folder for key, folder in pushed.items() if name in (key, key.partition("/")[0])), None)
    if chosen is None:
        known = ", ".join(pushed) or "none"
        raise NotFound(f"{name} is not a pushed model below {runs}: name a pipeline, or one of its versions ({known})")
    return chosen


def _examples(run: Run, node: str, root: Path) -> Artifact:
    """Return the examples that a step of the run copied."""
    examples = run.output(node, "examples")
    if examples is None or examples.state != "live" or not Path(examples.uri).is_dir():
        where = examples.uri if examples else "not recorded"
        raise UsageError(
            f"the examples of {node} in run {run.name} no longer exist ({where}): train again, and export that model"
        )
    if not is_own_folder(examples.uri, root):
        raise UsageError(f"the examples of {node} in run {run.name} are at {examples.uri!r}, outside {root}")
    return examples


def _convert(
    folder: Path, record: ModelRecord, gate: GateSettings, test: Artifact, train: Artifact | None, bound: float | None
) -> tuple[bytes, Comparison]:
    """Return the converted model and its comparison with the pushed one.

    Raises:
        ExportRefused: if the model cannot be converted.
        DataRefused: if the model does not load, or an example cannot be read.
    """
    import numpy as np
    import tensorflow as tf

    from trainer.framing import Framing
    from trainer.litert import LiteRTModel, convert
    from trainer.preprocessing import decode_batch
    from trainer.saved_model import open_saved_model
    from trainer.serving import load_vit

    try:
        framing = Framing.of(load_vit(str(folder)).config)
        model = open_saved_model(folder, serving_bytes="image_bytes", serving_images="images")
    except (FileNotFoundError, ValueError) as error:
        raise DataRefused(f"{error}: push or restore version {record.version} again") from None
    calibration = None
    if train is not None:
        pixels, valid = decode_batch(tf.constant(_sample(Path(train.uri, "Split-train"))), framing)
        calibration = pixels.numpy()[valid.numpy()]
    try:
        content = convert(folder, calibration)
    except ValueError as error:
        raise ExportRefused(str(error)) from None
    threads = len(os.sched_getaffinity(0))
    exported = LiteRTModel(content, threads)

    labels: list[int] = []
    answers: dict[str, list[Any]] = {"exported": [], "model": []}
    examples = tfrecord.read_split(Path(test.uri, "Split-test"))
    while batch := list(islice(examples, _BATCH)):
        encoded = tf.constant([example.image for example in batch])
        of_model = model.signatures["serving_bytes"](image_bytes=encoded)
        pixels, valid = decode_batch(encoded, framing)
        answers["model"] += [*of_model["probabilities"].numpy()]
        # An image that does not decode has probabilities 0, in both models.
        answers["exported"] += [
            exported(image) if decodes else np.zeros(len(record.classes), np.float32)
            for image, decodes in zip(pixels.numpy(), valid.numpy(), strict=True)
        ]
        labels += [example.label for example in batch]
    first = pixels.numpy()[0]

    def ask_model() -> object:
        return model.signatures["serving_images"](images=tf.constant(first[None]))["probabilities"].numpy()

    files = [folder / "saved_model.pb", *(folder / "variables").iterdir()]
    return content, _compare(
        np.array(labels),
        np.stack(answers["exported"]),
        np.stack(answers["model"]),
        record,
        gate,
        bound,
        milliseconds=_milliseconds(lambda: exported(first)),
        model_milliseconds=_milliseconds(ask_model),
        bytes=len(content),
        model_bytes=sum(file.stat().st_size for file in files),
    )


def _compare(
    labels: Any,
    exported: Any,
    model: Any,
    record: ModelRecord,
    gate: GateSettings,
    bound: float | None,
    **measured: Any,
) -> Comparison:
    """Return the comparison of two models, whose answers are float32 [N, classes]."""
    import numpy as np

    from components.model.evaluator.measures import Sums, compare, predicted_classes

    finite = np.isfinite(exported).all(axis=1)
    exported = np.where(finite[:, None], exported, np.float32(0))
    # An answer that is not finite has the largest difference that two probabilities can have.
    difference = float(np.where(finite, np.abs(exported - model).max(axis=1), 1.0).max())

    def figures(probabilities: Any) -> ModelFigures:
        return Sums.of(labels, probabilities).figures(record.classes, gate.confidence, {})

    own, of_model = figures(exported), figures(model)
    classes, classes_of_model = predicted_classes(exported), predicted_classes(model)
    comparison = compare(labels, classes, classes_of_model, gate.confidence)
    missed_by_model = {one.name for one in judge(gate, of_model).checks if not one.passed} if record.override else set()
    checks = [
        one.model_copy(update={"name": one.name.replace("the serving model", "the pushed model")})
        for one in judge(gate, own, of_model, comparison).checks
        if one.name not in missed_by_model
    ]
    checks.append(Check(name="answers that are not finite", value=int((~finite).sum()), bound=0, sense="at most"))
    if bound is not None:
        checks.append(Check(name=_DIFFERENCE, value=difference, bound=bound, sense="at most"))
    return Comparison(
        examples=len(labels),
        same_class=int((classes == classes_of_model).sum()),
        largest_difference=difference,
        accuracy=own.accuracy,
        model_accuracy=of_model.accuracy,
        checks=checks,
        **measured,
    )


def _refuse(name: str, comparison: Comparison, int8: bool) -> None:
    """Raise ExportRefused with advice if the exported model misses a bound."""
    failed = [one for one in comparison.checks if not one.passed]
    if not failed:
        return
    advice = []
    if any(one.name == _DIFFERENCE for one in failed):
        advice.append("Allow a larger difference with --max-difference.")
    if any(one.name != _DIFFERENCE for one in failed):
        advice.append("Export it without --int8, or train again." if int8 else "Train again.")
    raise ExportRefused(
        f"{name} is not exported, because the exported model misses {len(failed)} of {len(comparison.checks)} bounds. "
        f"No file is left. {' '.join(advice)}",
        *map(str, failed),
    )


def _sample(split: Path) -> list[bytes]:
    """Return random images of a split, the same ones each time. Only they are in memory (reservoir sampling)."""
    draw = random.Random(0)
    chosen: list[bytes] = []
    for number, example in enumerate(tfrecord.read_split(split)):
        if number < _CALIBRATION:
            chosen.append(example.image)
        elif (place := draw.randrange(number + 1)) < _CALIBRATION:
            chosen[place] = example.image
    return chosen


def _milliseconds(answer: Callable[[], object]) -> float:
    """Return the median time of an answer."""
    times = []
    for number in range(_NOT_TIMED + _TIMED):
        begin = time.perf_counter()
        answer()
        if number >= _NOT_TIMED:
            times.append(time.perf_counter() - begin)
    return sorted(times)[len(times) // 2] * 1000
