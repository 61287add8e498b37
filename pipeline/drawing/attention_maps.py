"""Attention maps in colour, on one scale: equal values have the same colour in every picture."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from trainer.explain import upsample

TICKS = (0, 1, 2, 4, 8, 16)  # of the legend, multiples of even attention; the last and more have the last colour
_SIDE = 256  # pixels of a picture, at least
_GAP = 3  # pixels
# From yellow to red and from nothing to nearly opaque.
_LEVEL = np.linspace(0, 1, 256)[:, None]
_RAMP = np.round(
    np.hstack([255 - 55 * _LEVEL, 220 * (1 - _LEVEL), 60 * (1 - _LEVEL), 242 * np.minimum(1, 1.25 * _LEVEL)])
).astype("uint8")


def place(times: float | np.ndarray) -> float | np.ndarray:
    """Of a multiple of even attention on the scale of colours, 0 to 1.

    Attention itself, 0 to 1, would leave most maps without colour: even attention to 64 patches is 0.016 for each, and
    a mean or a rollout is near it. The square root keeps apart what is small, too.
    """
    shares: float | np.ndarray = np.sqrt(np.clip(times / TICKS[-1], 0, 1))
    return shares


def colour_map(patches: np.ndarray, side: int) -> Image.Image:
    """A map of patches [patches] with transparency, to be laid over an image of `side` pixels."""
    times = upsample(patches, side) * patches.size
    picture = Image.fromarray(np.round(255 * place(times)).astype("uint8"), "L")
    picture.putpalette(_RAMP.tobytes(), "RGBA")
    return picture


def overlay(pixels: np.ndarray, patches: np.ndarray) -> Image.Image:
    """A map of patches over an image uint8 [size, size, 3] in grey."""
    under = enlarge(pixels).convert("L").convert("RGBA")
    return Image.alpha_composite(under, colour_map(patches, under.width).convert("RGBA")).convert("RGB")


def draw_grid(pixels: np.ndarray, grid: int) -> Image.Image:
    """An image uint8 [size, size, 3] with the borders of its grid x grid patches."""
    picture = enlarge(pixels)
    draw = ImageDraw.Draw(picture)
    for line in range(1, grid):
        at = line * picture.width // grid
        for shift, colour in enumerate(("black", "white")):  # one of them is seen on any image
            draw.line([(at + shift, 0), (at + shift, picture.width)], colour)
            draw.line([(0, at + shift), (picture.width, at + shift)], colour)
    return picture


def enlarge(pixels: np.ndarray) -> Image.Image:
    side = pixels.shape[0] * max(1, -(-_SIDE // pixels.shape[0]))
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


def legend() -> dict[str, Any]:
    """What `scale.html` draws: the colours from the left to the right, and the places of the ticks, 0 to 1."""
    ramp = Image.fromarray(np.arange(256, dtype="uint8")[None], "L")
    ramp.putpalette(_RAMP.tobytes(), "RGBA")
    return {"ramp": data_uri(ramp), "ticks": {tick: float(place(tick)) for tick in TICKS}}


def similarities(cosines: np.ndarray) -> Image.Image:
    """For each patch, at its place, its similarity [patches, patches] to all: blue -1, white 0, red 1."""
    grid = round(len(cosines) ** 0.5)
    values = np.clip(cosines, -1, 1)[..., None]
    away = np.where(values > 0, np.array([178, 24, 43]), np.array([33, 102, 172]))
    colours = np.round(255 + abs(values) * (away - 255)).astype("uint8")
    return _sheet(colours.reshape(-1, grid, grid, 3), grid)


def filters(components: np.ndarray, columns: int = 7) -> Image.Image:
    """Components [n, patch_size, patch_size, 3] in rows, each stretched so that its largest weight is full colour."""
    strongest = abs(components).max((1, 2, 3), keepdims=True)
    return _sheet(np.round(127.5 + 127.5 * components / strongest).astype("uint8"), columns)


def _sheet(tiles: np.ndarray, columns: int) -> Image.Image:
    """Tiles uint8 [n, side, side, 3] in rows of `columns`, enlarged, with grey between them."""
    side = tiles.shape[1] * max(1, 2 * _SIDE // (columns * tiles.shape[1]))
    step = side + _GAP
    sheet = Image.new("RGB", (columns * step - _GAP, -(-len(tiles) // columns) * step - _GAP), "#808080")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        picture = Image.fromarray(tile).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(picture, (column * step, row * step))
    return sheet


def data_uri(picture: Image.Image) -> str:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
