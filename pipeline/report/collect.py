"""Collection of a report's contents from ML Metadata and the artifacts that it names."""

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.dataset

from components.data.gate.component import VERDICT
from components.data.ingest import tfrecord
from components.data.pictures import ExamplePicture
from components.model.evaluator.measures import PREDICTIONS, confidence_bins, predicted_classes
from pipeline.drawing.graph import lineage_svg
from pipeline.metadata.neighbours import nearest_part
from pipeline.metadata.reader import Reader
from pipeline.metadata.records import Artifact, Run
from pipeline.outcome import REPORT
from pipeline.report.mistakes import explain_mistakes
from pipeline.report.model import Data, Mistake, Node, Picture, Report
from pipeline.result.figures import Bin, Epoch
from pipeline.result.run_result import EXIT, PROCESS, STATE_OF_EXIT, RunResult
from pipeline.result.verdict import verdict
from trainer.history import FILE as HISTORY
from trainer.trials import describe, read_trials

_SAMPLES = 8  # pictures of each class
_MOST_SAMPLES = 160  # pictures of all classes, which limits the size of a page with a thousand classes
_MISTAKES = 24
_EXPLAINED = 6  # mistakes with attention maps
_BOXES = 120  # boxes of the lineage that are shown; after warm starts it contains all earlier models


def collect(store: Reader, run: Run) -> Report:
    """Return the report of a run.

    Args:
        store: reader of the store that has the run.
        run: the run, which must not have crashed.
    """
    result = RunResult(run)
    ending = verdict(result)
    executions = [execution for execution in run.executions if execution.node != REPORT]
    judgement = result.judgement
    names = judgement.candidate.classes if judgement else []
    predictions = _predictions(run)
    subjects = (
        ("Pusher", "pushed_model"),
        ("Trainer", "model"),
        ("Tuner", "best_hyperparameters"),
        ("DataGate", "verdict"),
    )
    subject = next((artifact for node, name in subjects if (artifact := run.output(node, name))), None)
    data = _data(result)
    mistakes: list[Mistake] = []
    unexplained = ""
    if not result.is_tuning:
        mistakes, unexplained = _mistakes(
            predictions, names, run.output("TestExampleGen", "examples"), run.output("Trainer", "model")
        )
    classes = names or (list(next(iter(data.labels.values()))) if data else [])
    return Report(
        run=run.name,
        pipeline=run.pipeline,
        started=run.started,
        seconds=(max((execution.updated_ms for execution in executions), default=run.started_ms) - run.started_ms)
        / 1000,
        state=STATE_OF_EXIT[ending.exit],
        verdict=ending.lines,
        facts={
            name: str(value) for name, value in sorted(run.facts.items()) if name not in ("settings", EXIT, PROCESS)
        },
        settings=result.settings,
        data=data,
        samples=_samples(run.output("ImportExampleGen", "examples"), classes),
        warm_start=str(result.warm_start or ""),
        trials=tuple(read_trials(result.trials)) if result.trials else (),
        tuned=f"{result.tuned.run}: {describe(result.tuned.values)}" if result.tuned else "",
        history=_history(run),
        judgement=judgement,
        override=result.override,
        calibration=_calibration(predictions),
        mistakes=mistakes,
        unexplained=unexplained,
        serving=result.serving.checks if result.serving else [],
        nodes=[Node(name=execution.node, state=execution.state, seconds=execution.seconds) for execution in executions],
        lineage_of=f"{subject.type} {subject.id}" if subject else "",
        lineage=lineage_svg(nearest_part(store.lineage(subject.id), _BOXES)) if subject else "",
    )


def _data(result: RunResult) -> Data | None:
    if (verdict_on_data := result.data) is None:
        return None
    recorded = json.loads((verdict_on_data.folder / VERDICT).read_text("utf-8"))
    return Data(
        span=recorded["figures"]["span"],
        earlier_spans=result.trained_on.earlier if result.trained_on else (),
        gate_span=recorded["figures"]["gate_span"],
        previous_span=recorded["previous_span"],
        labels={split: figures["labels"] for split, figures in recorded["figures"]["splits"].items()},
        findings=verdict_on_data.findings,
        page=str(verdict_on_data.page),
    )


def _samples(examples: Artifact | None, classes: list[str]) -> dict[str, list[Picture]]:
    """Return the first training images of each class, or of the first classes if there are very many."""
    if examples is None or not classes:
        return {}
    each = max(1, min(_SAMPLES, _MOST_SAMPLES // len(classes)))
    samples: dict[int, list[Picture]] = {label: [] for label in range(min(len(classes), _MOST_SAMPLES))}
    missing = len(samples) * each
    for example in _raw(examples, "train"):
        of_class = samples.get(example.label)
        if of_class is not None and len(of_class) < each:
            of_class.append(_picture("train", example.id, example.image))
            missing -= 1
            if not missing:
                break
    return {classes[label]: pictures for label, pictures in samples.items()}


def _history(run: Run) -> list[Epoch]:
    trained = run.output("Trainer", "model_run")
    if trained is None:
        return []
    return [Epoch.model_validate_json(line) for line in Path(trained.uri, HISTORY).read_text().splitlines()]


def _predictions(run: Run) -> pd.DataFrame | None:
    """Return the candidate's answers on the test set: id, label, answer (-1 if it did not decode) and confidence."""
    evaluation = run.output("Evaluator", "evaluation")
    if evaluation is None:
        return None
    tables = []
    for batch in pyarrow.dataset.dataset(Path(evaluation.uri, PREDICTIONS)).to_batches(
        columns=["id", "label", "candidate"]
    ):
        table = batch.to_pandas()
        probabilities = np.stack(table.pop("candidate").to_list())
        tables.append(table.assign(answer=predicted_classes(probabilities), confidence=probabilities.max(axis=1)))
    return pd.concat(tables, ignore_index=True)


def _calibration(predictions: pd.DataFrame | None) -> list[Bin]:
    if predictions is None:
        return []
    correct = predictions.answer == predictions.label
    rows = pd.DataFrame({"confidence": predictions.confidence, "correct": correct})
    bins = rows.groupby(confidence_bins(predictions.confidence.to_numpy()))
    return [
        Bin(examples=len(of_bin), confidence=of_bin.confidence.mean(), accuracy=of_bin.correct.mean())
        for _, of_bin in bins
    ]


def _mistakes(
    predictions: pd.DataFrame | None, names: list[str], examples: Artifact | None, model: Artifact | None
) -> tuple[list[Mistake], str]:
    """Return the mistakes, the most confident first, and a sentence if none has attention maps."""
    if predictions is None or examples is None:
        return [], "No mistakes are shown: the run did not test a model."
    wrong = predictions[(predictions.answer != predictions.label) & (predictions.answer >= 0)]
    worst = list(wrong.sort_values("confidence", ascending=False, kind="stable").head(_MISTAKES).itertuples())
    if not worst:
        return [], ""
    wanted = {row.id for row in worst}
    images = {example.id: example.image for example in _raw(examples, "test") if example.id in wanted}
    explained, unexplained = explain_mistakes(model, names, [images[row.id] for row in worst[:_EXPLAINED]])
    mistakes = [
        Mistake(
            picture=_picture("test", row.id, images[row.id]),
            label=names[row.label],
            answer=names[row.answer],
            confidence=row.confidence,
            explained=image,
        )
        for row, image in zip_longest(worst, explained)
    ]
    return mistakes, unexplained


def _raw(examples: Artifact, split: str) -> Iterator[tfrecord.RawExample]:
    return tfrecord.read_split(Path(examples.uri, f"Split-{split}"))


def _picture(split: str, id: bytes, image: bytes) -> Picture:
    picture = ExamplePicture(split, id, image=image)
    return Picture(id=picture.name, source=picture.source)
