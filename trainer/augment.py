"""Training augmentation as batched `keras.ops`, a choice for each image. Keras 3 only: runs on any backend.

Images are [N, height, width, 3] in any dtype with pixels from 0 to 255; shape and dtype are kept.
"""

from keras import layers, ops, random


def random_flip(images, seed):
    """Mirror each image left to right with probability one half."""
    flip = random.uniform((ops.shape(images)[0], 1, 1, 1), seed=seed) < 0.5
    return ops.where(flip, ops.flip(images, axis=2), images)


def random_crop(images, padding, seed):
    """Pad each image by `padding` black pixels a side and cut a window of the old size out of it at random."""
    height, width = images.shape[1:3]
    padded = ops.pad(images, [(0, 0), (padding, padding), (padding, padding), (0, 0)])
    corner = random.randint((ops.shape(images)[0], 2), 0, 2 * padding + 1, seed=seed)
    rows = corner[:, 0:1] + ops.arange(height)
    columns = corner[:, 1:2] + ops.arange(width)
    window = ops.take_along_axis(padded, rows[:, :, None, None], axis=1)
    return ops.take_along_axis(window, columns[:, None, :, None], axis=2)


class Augment(layers.Layer):
    """The augmentation of a training run as a layer, so that it is compiled into the step and runs on its device.

    Does nothing outside training.
    """

    def __init__(self, crop_padding, flip, seed, **kwargs):
        super().__init__(autocast=False, **kwargs)  # pixels stay as they are stored
        self.crop_padding, self.flip = crop_padding, flip
        self.seed_generator = random.SeedGenerator(seed)

    def call(self, images, training=None):
        if training and self.crop_padding:
            images = random_crop(images, self.crop_padding, self.seed_generator)
        if training and self.flip:
            images = random_flip(images, self.seed_generator)
        return images
