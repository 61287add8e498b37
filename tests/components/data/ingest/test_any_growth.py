"""Property test: no image moves to another split when a source grows, shrinks or is rearranged between spans."""

import hashlib
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from hypothesis import event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from components.data.ingest.history import SplitHistory, keys
from components.data.ingest.source import SPLITS
from components.data.ingest.spool import Spool, SpoolFile

CLASSES = ("cat", "dog")


@dataclass(frozen=True)
class Image:
    """Image of the source. `known` is its split in the newest span, if a later span must recognise it by its name."""

    split: str | None
    class_name: str
    name: str
    picture: int
    known: str | None = None

    @property
    def digest(self) -> str:
        return hashlib.sha256(b"%d" % self.picture).hexdigest()


class Growth(RuleBasedStateMachine):
    """Source without splits, or with train and test, and the spans made from it."""

    def __init__(self) -> None:
        super().__init__()
        self.images: dict[int, Image] = {}
        self.numbers = iter(range(10**6))
        self.top = ""
        self.history = SplitHistory()
        self.spans = 0
        self.splits_of: dict[int, str] = {}  # by picture, as earlier spans have it

    @initialize(with_test=st.booleans())
    def begin(self, with_test: bool) -> None:
        self.given = ("train", "test") if with_test else (None,)
        for class_name in CLASSES:
            for split in self.given:
                for _ in range(4):
                    self.add(split, class_name, next(self.numbers))

    def add(self, split: str | None, class_name: str, picture: int) -> None:
        number = next(self.numbers)
        self.images[number] = Image(split, class_name, f"{number}.png", picture)

    def some(self, data: st.DataObject) -> list[int]:
        return data.draw(st.lists(st.sampled_from(sorted(self.images)), unique=True, min_size=1, max_size=6))

    @rule(data=st.data(), count=st.integers(1, 8))
    def grow(self, data: st.DataObject, count: int) -> None:
        for _ in range(count):
            split, class_name = data.draw(st.sampled_from(self.given)), data.draw(st.sampled_from(CLASSES))
            self.add(split, class_name, next(self.numbers))

    @precondition(lambda self: len(self.images) > 8)
    @rule(data=st.data())
    def shrink(self, data: st.DataObject) -> None:
        for number in self.some(data):
            del self.images[number]

    @precondition(lambda self: self.images)
    @rule(data=st.data())
    def copy(self, data: st.DataObject) -> None:
        for number in self.some(data):
            image = self.images[number]
            self.add(image.split, data.draw(st.sampled_from(CLASSES)), image.picture)

    @precondition(lambda self: self.images)
    @rule(data=st.data())
    def rename(self, data: st.DataObject) -> None:
        for number in self.some(data):
            self.images[number] = replace(self.images[number], name=f"{next(self.numbers)}.png", known=None)

    @precondition(lambda self: self.images)
    @rule(data=st.data())
    def sort_into_other_classes(self, data: st.DataObject) -> None:
        for number in self.some(data):
            class_name = data.draw(st.sampled_from(CLASSES))
            known = self.images[number].known if class_name == self.images[number].class_name else None
            self.images[number] = replace(self.images[number], class_name=class_name, known=known)

    @precondition(lambda self: self.images)
    @rule(data=st.data(), ending=st.sampled_from(["png", "jpg", "JPEG"]))
    def encode_again_with_loss(self, data: st.DataObject, ending: str) -> None:
        for number in self.some(data):
            image = self.images[number]
            name = f"{image.name.partition('.')[0]}.{ending}"
            self.images[number] = replace(image, picture=next(self.numbers), name=name)

    @rule(top=st.sampled_from(["", "pets/", "new/"]))
    def put_a_folder_around(self, top: str) -> None:
        self.top = top

    @precondition(lambda self: self.images)
    @rule(
        fraction=st.sampled_from([0.1, 0.01, 0.3, 0.49]),
        seed=st.sampled_from([0, 0, 1]),
        per_class=st.sampled_from([None, None, None, 3, 5]),
        reverse=st.booleans(),
    )
    def make_a_span(self, fraction: float, seed: int, per_class: int | None, reverse: bool) -> None:
        placed, rows = self.placed(fraction, seed, per_class, reverse)
        other_order, _ = self.placed(fraction, seed, per_class, not reverse)
        assert placed == other_order
        assert len(placed) == len(self.images) or per_class is not None
        by_picture: dict[int, str] = {}
        for number, split in placed.items():
            image = self.images[number]
            assert by_picture.setdefault(image.picture, split) == split, "copies are in two splits"
            assert self.splits_of.get(image.picture, split) == split, "an image has moved"
            if image.known and image.picture not in self.splits_of:
                assert image.known == split, "an image that was encoded again has moved"
            assert image.split in (None, split) or (image.split, split) == ("train", "val")
        filled = {(image.class_name, placed[number]) for number, image in self.images.items() if number in placed}
        missing = [(name, split) for name in CLASSES for split in SPLITS if (name, split) not in filled]
        if missing:
            event("a span that is refused: a class has no image in a split")
            assert self.spans or not self.can_fill(missing)
            return
        event("a span")
        self.spans += 1
        self.history = self.history.with_span(self.spans, rows)
        self.splits_of |= by_picture
        names = [(image.class_name, image.name.partition(".")[0]) for image in self.images.values()]
        for number, image in self.images.items():
            alone = names.count((image.class_name, image.name.partition(".")[0])) == 1
            self.images[number] = replace(image, known=placed.get(number) if alone else None)

    def can_fill(self, missing: list[tuple[str, str]]) -> bool:
        """Return whether the classes of a first span have enough pictures for the splits that are held out."""
        if len(self.given) == 2 and any(split == "test" for _, split in missing):
            return False
        pictures = {
            name: {
                image.picture for image in self.images.values() if image.class_name == name and image.split != "test"
            }
            for name in CLASSES
        }
        shared = pictures[CLASSES[0]] & pictures[CLASSES[1]]
        return all(len(pictures[name] - shared) >= 4 - len(self.given) for name, _ in missing)

    def placed(
        self, fraction: float, seed: int, per_class: int | None, reverse: bool
    ) -> tuple[dict[int, str], dict[str, np.ndarray]]:
        """Return the split of each image, by its number, and the rows of the span."""
        with tempfile.TemporaryDirectory() as folder, SpoolFile(Path(folder, "spool")) as file:
            for number in sorted(self.images, reverse=reverse):
                image = self.images[number]
                id = f"{self.top}{image.split or ''}/{image.class_name}/{image.name}".encode()
                label = CLASSES.index(image.class_name)
                file.add(image.split, label, id, b"%d" % number, keys(image.class_name, id, image.digest))
            spool = Spool(file, file.finish(), range(len(CLASSES)), seed)
            assert spool.repeated_id() is None
            rows = spool.split(fraction, self.history, per_class)
            return {int(spool.read(row)[1]): split for split, those in rows.items() for row in those}, rows


TestGrowth = Growth.TestCase
TestGrowth.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=30)
