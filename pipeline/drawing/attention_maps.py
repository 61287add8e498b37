"""Attention maps as pictures with one scale of colours: equal values have the same colour in every picture."""

import base64
import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from trainer.explain import upsample

TICKS = (0, 1, 2, 4, 8, 16)  # ticks of the legend, in multiples of even attention; larger values have the last colour
_SIDE = 256  # smallest side of a picture, in pixels
_GAP = 3  # pixels between tiles
# RGBA colours from transparent yellow to nearly opaque red.
_LEVEL = np.linspace(0, 1, 256)[:, None]
_RAMP = np.round(
    np.hstack([255 - 55 * _LEVEL, 220 * (1 - _LEVEL), 60 * (1 - _LEVEL), 242 * np.minimum(1, 1.25 * _LEVEL)])
).astype("uint8")


def scale_position(times: float | np.ndarray) -> float | np.ndarray:
    """Return the position of a multiple of even attention on the scale of colours, from 0 to 1.

    A scale of attention itself would leave most maps without colour: even attention to 64 patches is 0.016 for each,
    and means and rollouts are near it. The square root makes differences between small values visible, too.
    """
    shares: float | np.ndarray = np.sqrt(np.clip(times / TICKS[-1], 0, 1))
    return shares


def colour_map(patches: np.ndarray, side: int) -> Image.Image:
    """Return a transparent picture of attention, to be laid over an image.

    Args:
        patches: attention to each patch, float [patches].
        side: side of the image, in pixels.
    """
    times = upsample(patches, side) * patches.size
    picture = Image.fromarray(np.round(255 * scale_position(times)).astype("uint8"), "L")
    picture.putpalette(_RAMP.tobytes(), "RGBA")
    return picture


def overlay(pixels: np.ndarray, patches: np.ndarray) -> Image.Image:
    """Return an image in grey with a picture of attention over it.

    Args:
        pixels: the image, uint8 [size, size, 3].
        patches: attention to each patch, float [patches].
    """
    under = enlarge(pixels).convert("L").convert("RGBA")
    return Image.alpha_composite(under, colour_map(patches, under.width).convert("RGBA")).convert("RGB")


def draw_grid(pixels: np.ndarray, grid: int) -> Image.Image:
    """Return an image with the borders of its patches.

    Args:
        pixels: the image, uint8 [size, size, 3].
        grid: number of patches on each side.
    """
    picture = enlarge(pixels)
    draw = ImageDraw.Draw(picture)
    for line in range(1, grid):
        at = line * picture.width // grid
        for shift, colour in enumerate(("black", "white")):  # at least one of them is visible on any image
            draw.line([(at + shift, 0), (at + shift, picture.width)], colour)
            draw.line([(0, at + shift), (picture.width, at + shift)], colour)
    return picture


def enlarge(pixels: np.ndarray) -> Image.Image:
    """Return an image, uint8 [size, size, 3], enlarged to at least 256 pixels on each side."""
    side = pixels.shape[0] * max(1, -(-_SIDE // pixels.shape[0]))
    return Image.fromarray(pixels).resize((side, side), Image.Resampling.NEAREST)


def legend() -> dict[str, Any]:
    """Return the legend that `scale.html` shows: a picture of the colours, and the position of each tick, 0 to 1."""
    ramp = Image.fromarray(np.arange(256, dtype="uint8")[None], "L")
    ramp.putpalette(_RAMP.tobytes(), "RGBA")
    return {"ramp": data_uri(ramp), "ticks": {tick: float(scale_position(tick)) for tick in TICKS}}


def similarities(cosines: np.ndarray) -> Image.Image:
    """Return a picture with a map for each patch, at its place, of its similarity to all patches.

    Args:
        cosines: float [patches, patches]. In the picture, -1 is blue, 0 is white and 1 is red.
    """
    grid = round(len(cosines) ** 0.5)
    values = np.clip(cosines, -1, 1)[..., None]
    away = np.where(values > 0, np.array([178, 24, 43]), np.array([33, 102, 172]))
    colours = np.round(255 + abs(values) * (away - 255)).astype("uint8")
    return _sheet(colours.reshape(-1, grid, grid, 3), grid)


def filters(components: np.ndarray, columns: int = 7) -> Image.Image:
    """Return a picture of filters in rows. In each filter, the weight of the largest magnitude has full colour.

    Args:
        components: the filters, float [n, patch_size, patch_size, 3].
        columns: number of filters in a row.
    """
    strongest = abs(components).max((1, 2, 3), keepdims=True)
    return _sheet(np.round(127.5 + 127.5 * components / strongest).astype("uint8"), columns)


def _sheet(tiles: np.ndarray, columns: int) -> Image.Image:
    """Return tiles, uint8 [n, side, side, 3], enlarged and in rows, with grey between them."""
    side = tiles.shape[1] * max(1, 2 * _SIDE // (columns * tiles.shape[1]))
    step = side + _GAP
    sheet = Image.new("RGB", (columns * step - _GAP, -(-len(tiles) // columns) * step - _GAP), "#808080")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        picture = Image.fromarray(tile).resize((side, side), Image.Resampling.NEAREST)
        sheet.paste(picture, (column * step, row * step))
    return sheet


def data_uri(picture: Image.Image) -> str:
    """Return a picture as the data URI of a PNG file."""
    out = io.BytesIO()
    picture.save(out, "PNG")
    return f"data:image/png;base64,{base64.b64encode(out.getvalue()).decode()}"
