"""Explanations of a model: pages with its attention over chosen images, or over its test set."""

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

IMAGES = 1000  # default number of test images on a model's page
CURVES = 200  # default number of these images in which patches are deleted and inserted


@dataclass(frozen=True)
class ExplainedImage:
    """One image of an explanation.

    Attributes:
        image: the file or id, as the caller wrote it.
        reason: why the image is not valid; empty if it is.
        remarks: names of `components.data.ingest.images.REMARKS` that apply to the image.
        figures: class, probabilities and attention of the image, as `pipeline.drawing.explain_images.figures` returns
            them; empty if the image is not valid.
    """

    image: str
    reason: str
    remarks: tuple[str, ...]
    figures: dict[str, Any]

    @property
    def valid(self) -> bool:
        """True if the image decodes."""
        return bool(self.figures)


@dataclass(frozen=True)
class ExplainedImages:
    """Attention of a model over chosen images.

    Attributes:
        model: the folder or file of the model.
        page: the page that shows the attention; None if no image is valid.
        images: the images, in the order in which the caller named them.
    """

    model: Path
    page: Path | None
    images: list[ExplainedImage]


@dataclass(frozen=True)
class ExplainedModel:
    """Attention of a model over its test images.

    Attributes:
        model: the folder or file of the model.
        page: the page that shows the figures.
        figures: the attention, and how faithful it is to the model's answers.
    """

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
    """Draw the attention of every block and head over each image, on one page.

    Args:
        images: PNG or JPEG files, or ids of examples in `data`.
        model: folder of a SavedModel, a `.keras` file, or a Trainer's `model_run` folder. None: the newest pushed
            model.
        runs: folder of the run folders.
        data: data folder, or one of its spans. None: the span that the model gate evaluated the model on.
        out: folder to write the page and its pictures to.
        trust_model: load a SavedModel even if it was not pushed here. Such a model can read and write files as it runs.

    Returns:
        The page, and the figures of each image.

    Raises:
        UsageError: if a file, id, model or data folder is missing, a model is not trusted, or `out` cannot be written.
        DataRefused: if the model was changed after its push or does not load, or the data is damaged.
    """
    folder = inputs.find_model(model or newest_pushed(runs), trust_model)
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
            span = inputs.find_gate_span(folder, runs)
        except UsageError as error:
            raise UsageError(f"{ids[0]} is not a file, and cannot be looked up as an example's id: {error}") from None
    encoded = {**files, **(inputs.find_images(span, ids) if span and ids else {})}
    examined = {name: examine(encoded[name]) for name in images}
    with redirected(Path(os.devnull)):
        from pipeline.drawing.explain_images import figures, write
        from pipeline.explainable_model import open_model

        opened = open_model(folder, manifest.read(span).class_names if span else None)
        found = opened.explain([b"" if examined[name][0] else encoded[name] for name in images])
        valid = [name for name, decodes in zip(images, found.valid, strict=True) if decodes]
        rows = figures(opened, valid, found)
        page = _write(out, lambda: write(opened, rows, found, out)) if rows else None
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
        model: folder of a SavedModel, a `.keras` file, or a Trainer's `model_run` folder. None: the newest pushed
            model.
        runs: folder of the run folders.
        data: data folder, or one of its spans. None: the span that the model gate evaluated the model on.
        out: folder to write the page and its pictures to.
        images: number of test images to use. The first ones of the split are taken.
        curves: number of these images in which patches are deleted and inserted. 0: do not measure this.
        trust_model: load a SavedModel even if it was not pushed here. Such a model can read and write files as it runs.
        display: shows the progress. None: print nothing.

    Returns:
        The page, and the figures that it shows.

    Raises:
        UsageError: if a model or data folder is missing, a model is not trusted or has other classes than the data, or
            `out` cannot be written.
        DataRefused: if the model was changed after its push or does not load, or the data is damaged or has no test
            images.
    """
    folder = inputs.find_model(model or newest_pushed(runs), trust_model)
    from itertools import islice

    from components.data.ingest import manifest

    span = inputs.find_span(data) if data else inputs.find_gate_span(folder, runs)
    names = manifest.read(span).class_names
    tests = list(islice(inputs.read_examples(span, "test"), images))
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
        progress = display.activity if display else lambda _: None
        encoded, labels = [example.image for example in tests], [example.label for example in tests]
        figures = measure(opened, str(span), encoded, labels, min(curves, images), progress)
        page = _write(out, lambda: write(opened, figures, out))
    return ExplainedModel(folder, page, figures)


def _write(out: Path, write: Callable[[], Path]) -> Path:
    try:
        return write()
    except OSError as error:
        raise UsageError(f"{out} cannot be written ({error.strerror}): name another folder with --out") from None
