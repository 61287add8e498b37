"""Images and their equal or nearly equal twins."""

from typing import NamedTuple


class Image(NamedTuple):
    """Image without its pixels. Images sort by split, then by id."""

    split: str
    id: bytes
    label: int
    shard: str = ""  # name of its file in the folder of the split
    offset: int = 0  # of its record in the shard, in bytes


class Twin(NamedTuple):
    """Image that is equal or nearly equal to another."""

    image: Image
    correlation: float  # of the edges; 1 for equal pixels
    exact: bool  # true for equal pixels
    leaks: bool = False  # true if the image is left out of training together with the leaks

    @property
    def rank(self) -> tuple[bool, float, Image]:
        """Key that sorts the closest twin first. Among equally close twins it sorts by split and id."""
        return not self.exact, -self.correlation, self.image
