"""CPU time of the augmentations for photographs, compared with Pillow and with tf.image in a tf.data pipeline.

    python benchmarks/augment.py

Images of 256 pixels are augmented to 224 pixels. `docs/benchmarks.md` has the figures; with RECORD=1 a measurement is
added to them.
"""

import os
import time
from collections.abc import Callable

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"

import numpy as np
import record
import tensorflow as tf
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from trainer.augment import augment, crop_boxes, draws_per_image
from trainer.settings import AugmentSettings

STORED, SIZE, IMAGES, ROUNDS = 256, 224, 64, 5
SCALE, RATIO, JITTER = (0.08, 1.0), (3 / 4, 4 / 3), 0.3
OFF = {"crop_padding": 0, "flip": False, "randaugment_ops": 0, "mixup": 0, "cutmix": 0, "erase": 0}
PARTS = {
    "resized crop": {"resized_crop_scale": SCALE},
    "three-augment": {"three_augment": True},
    "colour jitter": {"colour_jitter": JITTER},
}
PARTS["all, with flip"] = {"flip": True} | PARTS["resized crop"] | PARTS["three-augment"] | PARTS["colour jitter"]

Run = Callable[[], object]


def ours(part: dict[str, object], images: np.ndarray) -> Run:
    """Prepare the compiled augmentation of a whole batch.

    Args:
        part: Settings that differ from `OFF`.
        images: uint8 [N, side, side, 3].

    Returns:
        A function that augments the batch once.
    """
    settings = AugmentSettings(**OFF | part)
    targets = np.eye(2, dtype="float32")[np.arange(len(images)) % 2]
    draws = np.random.default_rng(0).random((len(images), draws_per_image(settings)), "float32")
    compiled = tf.function(lambda *batch: augment(*batch, settings, SIZE, False)[0], jit_compile=True)
    batch = [tf.constant(values) for values in (images, targets, draws)]
    return lambda: compiled(*batch).numpy()


def pillow(part: dict[str, object], images: np.ndarray) -> Run:
    """Prepare the same augmentation with Pillow, one image after the other. See `ours` for the arguments."""
    pictures = [Image.fromarray(image) for image in images]
    draws, boxes = random_choices()

    def augment_one(image: Image.Image, draw: np.ndarray, box: tuple[float, ...]) -> Image.Image:
        if "resized_crop_scale" in part:
            image = image.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box)
        if "flip" in part and draw[0] < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if "three_augment" in part:
            if draw[1] < 1 / 3:
                image = ImageOps.grayscale(image).convert("RGB")
            elif draw[1] < 2 / 3:
                image = ImageOps.solarize(image)
            else:
                image = image.filter(ImageFilter.GaussianBlur(0.1 + 1.9 * float(draw[2])))
        if "colour_jitter" in part:
            enhancers = ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color
            for enhancer, value in zip(enhancers, draw[3:], strict=True):
                image = enhancer(image).enhance(1 - JITTER + 2 * JITTER * value)
        return image

    return lambda: np.stack([np.array(augment_one(*row)) for row in zip(pictures, draws, boxes, strict=True)])


def tf_data(part: dict[str, object], images: np.ndarray) -> Run:
    """Prepare the same augmentation with tf.image in a tf.data pipeline. See `ours` for the arguments."""
    draws, boxes = random_choices()
    offsets = tf.range(-8, 9, dtype=tf.float32)

    def blur(image: tf.Tensor, sigma: tf.Tensor) -> tf.Tensor:
        weights = tf.nn.softmax(-0.5 * (offsets / sigma) ** 2)
        padded = tf.pad(image, [[8, 8], [8, 8], [0, 0]], "SYMMETRIC")[None]
        for shape in (17, 1), (1, 17):
            kernel = tf.tile(tf.reshape(weights, (*shape, 1, 1)), (1, 1, 3, 1))
            padded = tf.nn.depthwise_conv2d(padded, kernel, [1, 1, 1, 1], "VALID")
        return tf.reshape(padded, tf.shape(image))

    def augment_one(image: tf.Tensor, draw: tf.Tensor, box: tf.Tensor) -> tf.Tensor:
        if "resized_crop_scale" in part:
            left, top, right, bottom = tf.unstack(tf.cast(tf.round(box), tf.int32))
            image = tf.image.resize(image[top:bottom, left:right], (SIZE, SIZE), antialias=True)
        image = tf.cast(image, tf.float32)
        if "flip" in part:
            image = tf.cond(draw[0] < 0.5, lambda: image[:, ::-1], lambda: image)
        if "three_augment" in part:
            grey, solarize = (
                lambda: tf.tile(tf.image.rgb_to_grayscale(image), (1, 1, 3)),
                lambda: tf.where(image < 128, image, 255 - image),
            )
            branches = [grey, solarize, lambda: blur(image, 0.1 + 1.9 * draw[2])]
            image = tf.switch_case(tf.cast(draw[1] * 3, tf.int32), branches)
        if "colour_jitter" in part:
            brightness, contrast, saturation = tf.unstack(1 - JITTER + 2 * JITTER * draw[3:])
            image = tf.image.adjust_contrast(tf.clip_by_value(image * brightness, 0, 255), contrast)
            image = tf.image.adjust_saturation(tf.clip_by_value(image, 0, 255) / 255, saturation) * 255
        return tf.ensure_shape(image, (SIZE, SIZE, 3))

    rows = tf.data.Dataset.from_tensor_slices((images, draws, np.array(boxes, "float32")))
    batches = rows.map(augment_one, num_parallel_calls=tf.data.AUTOTUNE).batch(len(images))
    return lambda: next(batches.as_numpy_iterator())


def random_choices() -> tuple[np.ndarray, list[tuple[float, ...]]]:
    """Return random numbers, float32 [IMAGES, 6], and rectangles of resized crops."""
    generator = np.random.default_rng(1)
    edges = crop_boxes(generator.random((IMAGES, 4), "float32"), STORED, SCALE, RATIO)
    boxes = [tuple(map(float, box)) for box in zip(*map(np.array, edges), strict=True)]
    return generator.random((IMAGES, 6), "float32"), boxes


def cpu_milliseconds(run: Run) -> float:
    """Return the least CPU time of several calls, summed over all threads, in milliseconds per image."""
    run()
    seconds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return min(seconds) / IMAGES * 1000


def main() -> None:
    """Measure all augmentations and print the table."""
    coarse = np.random.default_rng(0).integers(0, 256, (IMAGES, 24, 24, 3), "uint8")
    rows = []
    for name, part in PARTS.items():
        side = STORED if "resized_crop_scale" in part else SIZE
        pictures = [Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC) for image in coarse]
        images = np.stack([np.array(picture) for picture in pictures])
        figures = [cpu_milliseconds(prepare(part, images)) for prepare in (ours, pillow, tf_data)]
        print(f"{name}: {figures[0]:.2f} ms an image, Pillow {figures[1]:.2f} ms, tf.data {figures[2]:.2f} ms")
        rows.append([name, *(f"{figure:.2f}" for figure in figures)])
    columns = ["augmentation", "ours, CPU ms an image", "Pillow", "tf.image in tf.data"]
    note = f"From {STORED} to {SIZE} pixels, batches of {IMAGES}; CPU time of all threads, least of {ROUNDS} rounds."
    record.write("augmentation", columns, rows, note)


if __name__ == "__main__":
    main()
