import io

import numpy as np
import pytest
from PIL import Image

from components.data.ingest.images import DAMAGED, examine
from tests.helpers.spans import bomb, encoded, picture

NAMES = ["cat", "dog", "fox"]


def test_invalid_images_get_a_reason_and_do_not_affect_others(measured):
    jpeg = encoded(picture(0), "JPEG")
    rows = measured(train=[(jpeg, 0), (b"", 0), (b"<html>", 0), (bomb(), 0), (jpeg[:200], 0), (encoded(picture(1)), 1)])
    assert rows.reason.tolist() == [
        "",
        "not a PNG or JPEG image",
        "not a PNG or JPEG image",
        "a PNG of more than 16,777,216 pixels",
        "cut or damaged",
        "",
    ]
    assert rows.id.tolist() == [b"train-%d" % n for n in range(6)]
    assert rows.width.dropna().tolist() == [32, 32]


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_whose_second_half_is_zeros(measured, progressive):
    """Pillow and TensorFlow decode such a file, because its end mark is intact."""
    whole = encoded(picture(0, 96), "JPEG", progressive=progressive)
    half = len(whole) // 2
    damaged = whole[:half] + bytes(len(whole) - 2 - half) + whole[-2:]
    Image.open(io.BytesIO(damaged)).load()
    rows = measured(train=[(whole, 0), (damaged, 1)])
    assert rows.reason.tolist() == ["", examine(damaged)[0]] == ["", DAMAGED]
    assert rows.digest.isna().tolist() == [False, True]


def test_colour_brightness_and_sharpness_are_measured_on_the_pixels(measured):
    pixels = picture(0)
    [row] = measured(train=[(encoded(pixels), 2)]).itertuples()
    assert (row.format, row.width, row.height, row.label) == ("PNG RGB", 32, 32, 2)
    np.testing.assert_allclose(row.mean, pixels.mean((0, 1)))
    np.testing.assert_allclose(row.mean_square, (pixels.astype(float) ** 2).mean((0, 1)))
    assert row.brightness == pytest.approx((pixels @ [0.299, 0.587, 0.114]).mean(), rel=1e-5)
    [flat] = measured(train=[(encoded(np.full((32, 32, 3), 90, "uint8")), 0)]).itertuples()
    assert flat.sharpness == 0 < row.sharpness


def test_images_of_any_size_and_mode_are_measured(measured):
    grey = Image.fromarray(picture(0, 50)).convert("L")
    rows = measured(
        train=[
            (encoded(picture(0, 64), "JPEG"), 0),
            (encoded(np.asarray(grey)), 0),
            (encoded(np.asarray(Image.fromarray(picture(1)).convert("RGBA"))), 0),
            (encoded(np.zeros((1, 1, 3), "uint8")), 0),
        ]
    )
    assert (rows.reason == "").all()
    assert rows.format.tolist() == ["JPEG RGB", "PNG L", "PNG RGBA", "PNG RGB"]
    assert rows.height.tolist() == [64, 50, 32, 1]
