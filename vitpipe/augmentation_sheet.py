"""Sheet of training images, each beside the augmented versions that the model sees in training."""

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
from vitpipe.inputs import examples

_ROWS = 8  # images; even, because neighbours are mixed
_LOOKED_AT = 1000  # images from which they are chosen, the first of the span
_PLAIN, _MIXED = 6, 3  # augmented versions of each, without and with Mixup and CutMix
_TILE = 96  # pixels a side, at least
_LINE = 14  # pixels, of a line of text
_GAP = 6


def draw(settings: Settings) -> Image.Image:
    """Draw training images beside what the model sees of them in training: a row for each image.

    Args:
        settings: they name the span and the augmentation.

    Raises:
        SettingsError: if the data or the span are missing.
        UsageError: if the span has fewer than two training images.
        DataRefused: if the span is damaged.
    """
    span = ingest.span_folder(settings.data.dir, settings.chosen_span())
    names = manifest.read(span).class_names
    images, labels = _some_images(span, settings.model.image_size)
    columns = _augmented(images, np.eye(len(names), dtype="float32")[labels], settings)
    grid = [("original", images, [names[label] for label in labels])]
    for number, (pixels, targets) in enumerate(columns):
        mixed = number >= _PLAIN
        captions = [_targets(target, names) for target in targets] if mixed else [""] * len(labels)
        grid.append(("mixed" if mixed else "augmented", pixels, captions))
    return _sheet(grid)


def _some_images(span: Path, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Training images of a span, of as many classes as there are: uint8 [N, size, size, 3]; labels int64 [N]."""
    with redirected(Path(os.devnull)):
        from trainer.preprocessing import decode

        rows = list(islice(examples(span, "train"), _LOOKED_AT))
        before: Counter[int] = Counter()
        turns = []  # the first image of every class comes before the second of any
        for row in rows:
            turns.append(before[row.label])
            before[row.label] += 1
        chosen = np.argsort(turns, kind="stable")[: min(_ROWS, len(rows) // 2 * 2)]
        if len(chosen):
            images = np.stack([decode(rows[row].image, size).numpy() for row in chosen])
            return images, np.array([rows[row].label for row in chosen])
    raise UsageError(f"{span} has fewer than two training images: name another folder with --data")


def _augmented(images: np.ndarray, targets: np.ndarray, settings: Settings) -> list[tuple[np.ndarray, np.ndarray]]:
    """Versions of the images and their targets, the last ones mixed, where the settings mix at all."""
    with redirected(Path(os.devnull)):
        from keras import ops

        from trainer.augment import augment, draws_per_image

        random = np.random.default_rng(settings.training.seed)
        versions = []
        for number in range(_PLAIN + _MIXED):
            draws = random.random((len(images), draws_per_image(settings.augment)), "float32")
            mixing = number >= _PLAIN and settings.augment.mixing_epochs > 0
            version = augment(images, targets, draws, settings.augment, mixing)
            versions.append(tuple(map(ops.convert_to_numpy, version)))
    return versions


def _targets(target: np.ndarray, names: tuple[str, ...]) -> str:
    """Classes and their shares, the largest first, a line each."""
    shares = [(share, name) for share, name in zip(target, names, strict=True) if share >= 0.005]
    return "\n".join(f"{share:.2f} {name}" for share, name in sorted(shares, reverse=True))


def _sheet(columns: list[tuple[str, np.ndarray, list[str]]]) -> Image.Image:
    """Tiles in columns of (heading, images, captions), a caption of up to two lines below each."""
    height, width = columns[0][1].shape[1:3]
    scale = max(1, -(-_TILE // width))
    tile_width, tile_height = width * scale, height * scale
    step_x, step_y = tile_width + _GAP, tile_height + 2 * _LINE + _GAP
    rows = len(columns[0][1])
    sheet = Image.new("RGB", (_GAP + len(columns) * step_x, _GAP + _LINE + rows * step_y), "white")
    for column, (heading, images, captions) in enumerate(columns):
        x = _GAP + column * step_x
        sheet.paste(_text(heading, tile_width, _LINE), (x, _GAP // 2))
        for row, (pixels, caption) in enumerate(zip(images, captions, strict=True)):
            y = _GAP + _LINE + row * step_y
            tile = Image.fromarray(np.round(pixels).astype("uint8"))
            sheet.paste(tile.resize((tile_width, tile_height), Image.Resampling.NEAREST), (x, y))
            sheet.paste(_text(caption, tile_width, 2 * _LINE), (x, y + tile_height))
    return sheet


def _text(text: str, width: int, height: int) -> Image.Image:
    """Text on white, cut where it does not fit."""
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).multiline_text((0, 0), text, "black", ImageFont.load_default(11), spacing=2)
    return image
