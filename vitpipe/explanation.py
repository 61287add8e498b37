"""Explanations of a model: its attention over some images, or over its test set, each as a page."""

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import DataRefused, UsageError
from pipeline.console.display import Display
from pipeline.console.logs import redirected
from pipeline.pushed_models import newest_pushed
from vitpipe import inputs

if TYPE_CHECKING:
    from pipeline.drawing.explain_model import AttentionFigures

IMAGES, CURVES = 1000, 200  # default numbers of test images, for a model's page and for its deletion and insertion


@dataclass(frozen=True)
class ExplainedImage:
    """One image of an explanation. If the image is not valid, `figures` is empty and `reason` says why."""

    image: str  # file or id, as the caller wrote it
    reason: str
    remarks: tuple[str, ...]  # names of `components.data.ingest.images.REMARKS`
    figures: dict[str, Any]  # see `pipeline.drawing.explain_images.figures`

    @property
    def valid(self) -> bool:
        """True if the image decodes."""
        return bool(self.figures)


@dataclass(frozen=True)
class ExplainedImages:
    """Attention of a model over some images; `page` is None if none of them is valid."""

    model: Path
    page: Path | None
    images: list[ExplainedImage]


@dataclass(frozen=True)
class ExplainedModel:
    """Attention of a model over its test images, in figures and on a page."""

    model: Path
    page: Path
    figures: "AttentionFigures"


def explain(
    images: Sequence[str],
    *,
    model: Path | None = None,
    runs: Path = Path("runs"),
    data: Path | None = None,
    out: Path = Path("explain"),
    trust_model: bool = False,
) -> ExplainedImages:
    """Draw the attention of every block and head over some images on one page.

    Args:
        images: PNG or JPEG files, or ids of examples in `data`.
        model: folder of a SavedModel, `.keras` file, or a Trainer's model_run; None for the newest pushed model.
        runs: folder of the run folders.
        data: data folder or one of its spans; None for the test data of the model's gate.
        out: folder of the page and its pictures.
        trust_model: load a SavedModel even if it was not pushed here. Such a model can read and write files as it runs.

    Raises:
        UsageError: if a file, id, model or data folder is missing, a model is not trusted, or `out` cannot be written.
        DataRefused: if the model was changed after its push, does not load, or the data are damaged.
    """
    folder = inputs.model(model or newest_pushed(runs), trust_model)
    from components.data.ingest import manifest
    from components.data.ingest.images import UNDECODABLE, examine

    files = {}
    for name in images:
        try:
            if Path(name).is_file():
                files[name] = Path(name).read_bytes()
        except OSError as error:
            raise UsageError(f"{name} cannot be read ({error.strerror}): name another file") from None
    ids = [name for name in images if name not in files]
    span = inputs.find_span(data) if data else None
    if ids and span is None:
        try:
            span = inputs.gate_span(folder, runs)
        except UsageError as error:
            raise UsageError(f"{ids[0]} is not a file, and cannot be looked up as an example's id: {error}") from None
    encoded = {**files, **(inputs.by_id(span, ids) if span and ids else {})}
    examined = {name: examine(encoded[name]) for name in images}
    with redirected(Path(os.devnull)):
        from pipeline.drawing.explain_images import figures, write
        from pipeline.explainable_model import open_model

        opened = open_model(folder, manifest.read(span).class_names if span else None)
        found = opened.explain([b"" if examined[name][0] else encoded[name] for name in images])
        valid = [name for name, decodes in zip(images, found.valid, strict=True) if decodes]
        rows = figures(opened, valid, found)
        page = _written(out, lambda: write(opened, rows, found, out)) if rows else None
    by_name = {row["image"]: row for row in rows}
    explained = [
        ExplainedImage(
            name, "" if name in by_name else examined[name][0] or UNDECODABLE, examined[name][1], by_name.get(name, {})
        )
        for name in images
    ]
    return ExplainedImages(folder, page, explained)


def explain_model(
    *,
    model: Path | None = None,
    runs: Path = Path("runs"),
    data: Path | None = None,
    out: Path = Path("explain"),
    images: int = IMAGES,
    curves: int = CURVES,
    trust_model: bool = False,
    display: Display | None = None,
) -> ExplainedModel:
    """Measure a model's attention over test images and how faithful it is to the answers, and draw both on one page.

    Args:
        model: folder of a SavedModel, `.keras` file, or a Trainer's model_run; None for the newest pushed model.
        runs: folder of the run folders.
        data: data folder or one of its spans; None for the test data of the model's gate.
        out: folder of the page and its pictures.
        images: number of test images, from the first one on.
        curves: number of these images in which patches are deleted and inserted; 0 for none.
        trust_model: load a SavedModel even if it was not pushed here. Such a model can read and write files as it runs.
        display: shows the progress; None for no output.

    Raises:
        UsageError: if a model or data folder is missing, a model is not trusted or has other classes than the data, or
            `out` cannot be written.
        DataRefused: if the model was changed after its push, does not load, or the data are damaged or hold no test
            images.
    """
    folder = inputs.model(model or newest_pushed(runs), trust_model)
    from itertools import islice

    from components.data.ingest import manifest

    span = inputs.find_span(data) if data else inputs.gate_span(folder, runs)
    names = manifest.read(span).class_names
    tests = list(islice(inputs.examples(span, "test"), images))
    if not tests:
        raise DataRefused(f"{span} has no test images: name other data with --data")
    if len(tests) < images and display:
        display.line(f"{span} has only {len(tests):,} test images, not the requested {images:,}")
    with redirected(Path(os.devnull)), display or nullcontext():
        from pipeline.drawing.explain_model import measure, write
        from pipeline.explainable_model import open_model

        opened = open_model(folder, names)
        if opened.classes != list(names):
            raise UsageError(f"{folder} has other classes than {span}: name data of the model's classes with --data")
        tell = display.activity if display else lambda _: None
        encoded, labels = [one.image for one in tests], [one.label for one in tests]
        figures = measure(opened, str(span), encoded, labels, min(curves, images), tell)
        page = _written(out, lambda: write(opened, figures, out))
    return ExplainedModel(folder, page, figures)


def _written(out: Path, write: Callable[[], Path]) -> Path:
    try:
        return write()
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}): name another folder with --out") from None
