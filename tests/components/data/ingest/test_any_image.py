"""Property tests: every PNG or JPEG that Pillow writes is accepted, and every accepted image decodes in TensorFlow."""

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, event, given, reject, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from components.data.ingest.images import BadImage, as_seen, check, open_image
from tests.helpers.damage import damaged, mostly

SIDE = 16  # images of this size are not resized
sides = mostly(SIDE, st.integers(1, 40))
texts = st.text(st.characters(codec="latin-1", exclude_characters="\0"), max_size=12)


@st.composite
def pictures(draw: st.DrawFn, modes: list[str]) -> Image.Image:
    """Noise, a gradient or one colour, in one of these modes."""
    width, height = draw(sides), draw(sides)
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    match draw(st.sampled_from(["noise", "smooth", "flat"])):
        case "noise":
            pixels = rng.integers(0, 256, (height, width, 4), "uint8")
        case "smooth":
            pixels = np.add.outer(np.arange(height) * 3, np.arange(width) * 2)[..., None].repeat(4, 2).astype("uint8")
        case _:
            pixels = np.full((height, width, 4), draw(st.integers(0, 255)), "uint8")
    image, mode = Image.fromarray(pixels, "RGBA"), draw(st.sampled_from(modes))
    if mode == "I;16":
        return Image.fromarray(pixels[..., 0].astype("uint16") * draw(st.sampled_from([1, 16, 257])))
    if mode == "P":
        return image.convert("RGB").quantize(draw(st.sampled_from([2, 4, 16, 200])))
    return image.convert(mode)


@st.composite
def exifs(draw: st.DrawFn) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = draw(st.integers(0, 9))
    return exif.tobytes()


def encoded(image: Image.Image, format: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


@st.composite
def pngs(draw: st.DrawFn) -> bytes:
    image = draw(pictures(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]))
    options: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "compress_level": st.integers(0, 9),
                "optimize": st.booleans(),
                "dpi": st.tuples(st.integers(1, 600), st.integers(1, 600)),
                "exif": exifs(),
                "icc_profile": st.binary(max_size=60),
            },
        )
    )
    if draw(st.booleans()):
        info = PngImagePlugin.PngInfo()
        info.add_text(draw(st.sampled_from(["Comment", "Title"])), draw(texts), zip=draw(st.booleans()))
        options["pnginfo"] = info
    if image.mode in ("P", "L") and draw(st.booleans()):
        options["transparency"] = draw(st.integers(0, 1 if image.mode == "P" else 255))
    if draw(mostly(False, st.just(True))):
        options |= {"save_all": True, "append_images": [image.rotate(180)]}
    return encoded(image, "PNG", options)


@st.composite
def jpegs(draw: st.DrawFn) -> bytes:
    image = draw(pictures(["L", "RGB", "RGB", "CMYK"]))
    options = draw(
        st.fixed_dictionaries(
            {"quality": st.integers(1, 100)},
            optional={
                "progressive": st.booleans(),
                "optimize": st.booleans(),
                "subsampling": st.sampled_from(["4:4:4", "4:2:2", "4:2:0"]),
                "restart_marker_rows": st.integers(1, 3),
                "restart_marker_blocks": st.integers(1, 5),
                "keep_rgb": st.booleans(),
                "comment": st.binary(max_size=60),
                "dpi": st.tuples(st.integers(1, 600), st.integers(1, 600)),
                "exif": exifs(),
                "icc_profile": st.binary(max_size=60),
            },
        )
    )
    try:
        return encoded(image, "JPEG", options)
    except OSError:  # options that contradict each other
        reject()


def decoded(images: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Pixels of SIDE x SIDE, and whether each image decodes, in the graph of training and serving."""
    tf = pytest.importorskip("tensorflow")
    from trainer.framing import Framing
    from trainer.preprocessing import decode_batch

    pixels, valid = decode_batch(tf.constant(images), Framing(SIDE))
    return pixels.numpy(), valid.numpy()


def differs(image: bytes, pixels: np.ndarray) -> bool:
    """Return whether the pixels of a SIDE x SIDE image differ from those that Pillow decodes.

    Transparency may be rounded in another way. TensorFlow converts CMYK in another way than Pillow.
    """
    picture = open_image(image)
    if picture.size != (SIDE, SIDE):
        return False
    difference = np.abs(np.asarray(as_seen(picture)).astype(int) - pixels)
    return bool(difference.max() > (16 if picture.mode == "CMYK" else picture.has_transparency_data))


# Each example is a batch of images. A failure names the wrong images, and shrinking a batch would take minutes.
BATCHES = settings(max_examples=settings().max_examples // 8, phases=[Phase.explicit, Phase.generate])


@BATCHES
@given(images=st.lists(pngs() | jpegs(), min_size=5, max_size=20))
def test_images_that_pillow_writes_are_accepted_and_decode_to_equal_pixels(images):
    pixels, valid = decoded(images)
    for image in images:
        check(image)
    assert valid.all()
    assert [image for image, found in zip(images, pixels, strict=True) if differs(image, found)] == []


@BATCHES
@given(images=st.lists((pngs() | jpegs()).flatmap(damaged), min_size=5, max_size=20))
def test_damaged_images_that_are_accepted_decode(images):
    pixels, valid = decoded(images)
    wrong = []
    for image, found, decodes in zip(images, pixels, valid, strict=True):
        try:
            check(image)
        except BadImage:
            continue
        event("accepted")
        if not decodes or (image.startswith(b"\x89PNG") and differs(image, found)):
            wrong.append(image)
    assert wrong == []
