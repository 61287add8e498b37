"""Photographs for tests and benchmarks: a handwritten digit in front of a blurred and noisy scene, as JPEG.

The digit is the class. Its colour also depends on the class, so that a small model learns the classes from few images.
Photographs of 500x375 pixels have about 46 kB, as those of ImageNet.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

CLASS_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


@cache
def _digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the digits of scikit-learn, uint8 [1797, 8, 8] from 0 to 255, and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.round(digits.images * (255 / 16)).astype(np.uint8), digits.target


def photograph(label: int, seed: int, size: tuple[int, int] = (500, 375), quality: int | None = None) -> bytes:
    """Return a photograph as JPEG. The same arguments lead to the same bytes.

    Args:
        label: The digit, 0 to 9.
        seed: Seed of everything else.
        size: Width and height in pixels.
        quality: Quality of the JPEG. None: a random quality from 75 to 92.
    """
    rng = np.random.default_rng((seed, label))
    width, height = size

    def blurred_noise(cell: int) -> Image.Image:
        small = rng.integers(0, 256, (max(height // cell, 2), max(width // cell, 2), 3), np.uint8)
        return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)

    grain = Image.frombytes("RGB", size, rng.bytes(width * height * 3))
    scene = Image.blend(Image.blend(blurred_noise(height // 4), blurred_noise(8), 0.25), grain, 0.13)

    images, targets = _digits()
    side = int(min(size) * rng.uniform(0.6, 0.9))
    digit = Image.fromarray(rng.choice(images[targets == label])).resize((side, side), Image.Resampling.BICUBIC)
    hue = round((label / len(CLASS_NAMES) + rng.uniform(-0.03, 0.03)) * 256) % 256
    colour = Image.new("HSV", (side, side), (hue, 220, 230)).convert("RGB")
    corner = (int(rng.integers(0, width - side + 1)), int(rng.integers(0, height - side + 1)))
    scene.paste(colour, corner, digit)

    buffer = io.BytesIO()
    scene.save(buffer, "JPEG", quality=quality or int(rng.integers(75, 93)))
    return buffer.getvalue()


def write_photographs(folder: Path, count: int, size: tuple[int, int] = (500, 375)) -> None:
    """Write an image folder of ten classes, such as three/00013.jpg.

    Args:
        folder: The folder to write to.
        count: Number of all photographs.
        size: Width and height in pixels.
    """

    def write(number: int) -> None:
        label = number % len(CLASS_NAMES)
        (folder / CLASS_NAMES[label] / f"{number:05}.jpg").write_bytes(photograph(label, number, size))

    for name in CLASS_NAMES:
        (folder / name).mkdir(parents=True)
    with ThreadPoolExecutor() as pool:  # NumPy and Pillow release the lock of the interpreter
        for _ in pool.map(write, range(count)):
            pass
