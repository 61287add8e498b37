"""Pictures of a span's images on the pages of the data gate and of the label check."""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path

from components.data.ingest import tfrecord
from components.data.ingest.images import BadImage, as_seen, open_image

_MAX_PIXELS = 96  # longest side of a picture on a page, in pixels
_MAX_CHARACTERS = 200  # longest id or class name that a page shows complete


def readable_id(id: bytes) -> str:
    """Return an id as text, with escapes for bytes that are not UTF-8."""
    return id.decode("utf-8", "backslashreplace")


def shorten(text: str) -> str:
    """Return the text, without its middle if it is too long for the page."""
    half = _MAX_CHARACTERS // 2
    return text if len(text) <= _MAX_CHARACTERS else f"{text[:half]} ... {text[-half:]}"


@dataclass
class ExamplePicture:
    """Image of a span, as the page shows it.

    Args:
        split: the split that holds the image.
        id: its id.
        shard: name of its file in the folder of the split. It and `offset` are needed only to read the image.
        offset: place of its record in the shard, in bytes.
        image: its encoded bytes, which are empty until they have been read from the examples.
    """

    split: str
    id: bytes
    shard: str = ""
    offset: int = 0
    image: bytes = b""

    @property
    def name(self) -> str:
        """The id as text."""
        return readable_id(self.id)

    @cached_property
    def source(self) -> str:
        """Data URI of a small copy of the image, or an empty string if the image does not decode."""
        try:
            image = as_seen(open_image(self.image))
        except BadImage:
            return ""
        image.thumbnail((_MAX_PIXELS, _MAX_PIXELS))
        kind = "PNG" if max(image.size) <= _MAX_PIXELS // 2 else "JPEG"  # small pictures stay lossless
        out = io.BytesIO()
        image.save(out, kind)
        return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


@dataclass
class Exhibit:
    """Image that a check found, or a sample of a class.

    Args:
        picture: the image.
        note: what is wrong with it.
        twin: the other image, if the image equals or nearly equals another.
    """

    picture: ExamplePicture
    note: str = ""
    twin: ExamplePicture | None = None

    @property
    def pictures(self) -> list[ExamplePicture]:
        """The image, and its twin if it has one."""
        return [self.picture, self.twin] if self.twin else [self.picture]


def read_pictures(folders: Mapping[str, Path], exhibits: Iterable[Exhibit]) -> None:
    """Read the images of exhibits from the examples into the exhibits.

    Args:
        folders: the folder of the examples of each split.
        exhibits: exhibits whose pictures name a shard and an offset.
    """
    for picture in chain.from_iterable(exhibit.pictures for exhibit in exhibits):
        picture.image = tfrecord.read_example(folders[picture.split] / picture.shard, picture.offset).image
