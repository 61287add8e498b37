"""Picture of some training images, each beside its augmented versions."""

import os
from collections import Counter
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from components.data import ingest
from components.data.ingest import manifest
from components.errors import UsageError
from pipeline.console.logs import redirected
from pipeline.settings import Settings
from trainer.framing import Framing
from vitpipe.inputs import read_examples

_ROWS = 8  # images on the sheet; an even number, because Mixup and CutMix mix pairs of images
_CANDIDATES = 1000  # the images are chosen from the first ones of the span
_PLAIN, _MIXED = 6, 3  # augmented versions of each image, without and with Mixup and CutMix
_TILE, _LARGEST_TILE = 96, 224  # smallest and largest side of a tile, in pixels
_LINE = 14  # height of a line of text, in pixels
_GAP = 6  # pixels between tiles


def draw(settings: Settings) -> Image.Image:
    """Draw some training images beside their augmented versions, one row for each image.

    Args:
        settings: the settings of a run. `data`, `augment`, `model` and `training.seed` are used.

    Returns:
        The picture, in RGB.

    Raises:
        SettingsError: if the data or the span are missing.
        UsageError: if the span has fewer than two training images.
        DataRefused: if the span is damaged.
    """
    span = ingest.span_folder(settings.data.dir, settings.chosen_span())
    names = manifest.read(span).class_names
    size = settings.model.image_size
    images, labels = _choose_images(span, settings.model.framing.at(settings.augment.stored_size or size))
    columns = _augment_images(images, np.eye(len(names), dtype="float32")[labels], settings)
    grid = [("original", images, [names[label] for label in labels])]
    for number, (pixels, targets) in enumerate(columns):
        mixed = number >= _PLAIN
        captions = [_target_text(target, names) for target in targets] if mixed else [""] * len(labels)
        grid.append(("mixed" if mixed else "augmented", pixels, captions))
    # Whole multiples keep the pixels of small images equally large.
    side = min(size * -(-_TILE // size), _LARGEST_TILE)
    return _draw_sheet(grid, side)


def _choose_images(span: Path, framing: Framing) -> tuple[np.ndarray, np.ndarray]:
    """Return training images of as many classes as possible: uint8 [N, S, S, 3], and labels int64 [N]."""
    with redirected(Path(os.devnull)):
        from trainer.preprocessing import decode

        rows = list(islice(read_examples(span, "train"), _CANDIDATES))
        # Take the first image of every class before the second image of any class.
        counts: Counter[int] = Counter()
        turns = []
        for row in rows:
            turns.append(counts[row.label])
            counts[row.label] += 1
        chosen = np.argsort(turns, kind="stable")[: min(_ROWS, len(rows) // 2 * 2)]
        if len(chosen):
            images = np.stack([decode(rows[row].image, framing).numpy() for row in chosen])
            return images, np.array([rows[row].label for row in chosen])
    raise UsageError(f"{span} has fewer than two training images: name another folder with --data")


def _augment_images(images: np.ndarray, targets: np.ndarray, settings: Settings) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return versions of all images with their targets. The last `_MIXED` versions are mixed if the settings mix."""
    with redirected(Path(os.devnull)):
        from keras import ops

        from trainer.augment import augment, draws_per_image

        random = np.random.default_rng(settings.training.seed)
        versions = []
        for number in range(_PLAIN + _MIXED):
            draws = random.random((len(images), draws_per_image(settings.augment)), "float32")
            mixing = number >= _PLAIN and settings.augment.mixing_epochs > 0
            version = augment(images, targets, draws, settings.augment, settings.model.image_size, mixing)
            versions.append(tuple(map(ops.convert_to_numpy, version)))
    return versions


def _target_text(target: np.ndarray, names: tuple[str, ...]) -> str:
    """Return a line for each class with its share of the target, largest share first."""
    shares = [(share, name) for share, name in zip(target, names, strict=True) if share >= 0.005]
    return "\n".join(f"{share:.2f} {name}" for share, name in sorted(shares, reverse=True))


def _draw_sheet(columns: list[tuple[str, np.ndarray, list[str]]], side: int) -> Image.Image:
    """Draw columns of (heading, images, captions). Each image has its caption of up to two lines below it.

    Images are drawn as squares of `side` pixels: larger ones are reduced, and the pixels of smaller ones are repeated.
    """
    step_x, step_y = side + _GAP, side + 2 * _LINE + _GAP
    rows = len(columns[0][1])
    sheet = Image.new("RGB", (_GAP + len(columns) * step_x, _GAP + _LINE + rows * step_y), "white")
    for column, (heading, images, captions) in enumerate(columns):
        x = _GAP + column * step_x
        sheet.paste(_draw_text(heading, side, _LINE), (x, _GAP // 2))
        for row, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
            y = _GAP + _LINE + row * step_y
            tile = Image.fromarray(np.round(pixels).astype("uint8"))
            resampling = Image.Resampling.NEAREST if tile.width < side else Image.Resampling.BILINEAR
            sheet.paste(tile.resize((side, side), resampling), (x, y))
            sheet.paste(_draw_text(caption, side, 2 * _LINE), (x, y + side))
    return sheet


def _draw_text(text: str, width: int, height: int) -> Image.Image:
    """Draw black text on white. Text that does not fit is cut off."""
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).multiline_text((0, 0), text, "black", ImageFont.load_default(11), spacing=2)
    return image
