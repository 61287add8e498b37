"""Draw a folder of images to try `own_images.sh` with: 200 JPEG files of each of three patterns.

python examples/generate_images.py data/patterns-images
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

PATTERNS = ("checks", "dots", "stripes")


def draw(pattern: str, random: np.random.Generator) -> Image.Image:
    """Return an image of a pattern in two random colours, with a random size, scale, rotation and noise."""
    width, height = random.integers(48, 128, size=2)
    y, x = np.mgrid[:height, :width]
    angle = random.uniform(0, np.pi)
    period = random.uniform(0.15, 0.4) * min(width, height)
    across = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period + random.uniform(0, 6))
    along = np.sin((y * np.cos(angle) - x * np.sin(angle)) * 2 * np.pi / period + random.uniform(0, 6))
    value = {"checks": across * along, "dots": across + along - 1, "stripes": across}[pattern]
    dark, bright = random.integers(0, 100, size=3), random.integers(155, 256, size=3)
    pixels = np.where(value[..., None] > 0, bright, dark) + random.normal(0, 15, size=(height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def main(folder: Path) -> None:
    """Write the images to `folder/<pattern>/<number>.jpg`."""
    random = np.random.default_rng(seed=0)
    for pattern in PATTERNS:
        (folder / pattern).mkdir(parents=True, exist_ok=True)
        for number in range(200):
            draw(pattern, random).save(folder / pattern / f"{number:03}.jpg", quality=90)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
