"""List of a study's cells, each of which is computed once, and the path from its data to its results."""

import hashlib
import inspect
import multiprocessing
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import product
from pathlib import Path
from typing import NamedTuple

from components.errors import SettingsError, StudyError
from pipeline import provenance
from pipeline.backbone import read_backbone
from trainer.backbone import digest
from trainer.input import Split
from trainer.settings import ModelSettings
from vitpipe.study import cells, draw, training
from vitpipe.study.architectures import ARCHITECTURES, Architecture
from vitpipe.study.cells import Cell, Place
from vitpipe.study.settings import PRETRAINED, StudySettings

CELLS, LOG = "cells", "training.log"  # within the study's folder


class Arm(NamedTuple):
    """What one line of the chart is of: a registered architecture, or the source of a pretrained ViT."""

    name: str
    title: str
    trained: Architecture | str
    identity: object  # what its cells depend on, beside settings, data and code


def arms(settings: StudySettings, source: str | None) -> list[Arm]:
    """source: of the backbone, located; None for no such arm.

    Raises SettingsError for an architecture that nobody registered, DataRefused for a backbone that cannot be read.
    """
    for name in (*settings.architectures, *settings.learning_rates):
        if name not in ARCHITECTURES:
            raise SettingsError(f"no architecture {name}: the registered ones are {', '.join(ARCHITECTURES)}")
    found = []
    for name in settings.architectures:
        registered = ARCHITECTURES[name]
        rate = settings.learning_rates.get(name, registered.learning_rate)
        one = registered._replace(learning_rate=rate)
        source_text = inspect.getsource(sys.modules[one.build.__module__])  # it may lie outside our packages
        identity = [source_text, one.build.__qualname__, one.learning_rate, one.weight_decay]
        found.append(Arm(name, one.title, one, identity))
    if source:
        backbone = read_backbone(source, ModelSettings(image_size=settings.image_size), settings.finetune)
        identity = [digest(backbone), settings.finetune.model_dump(exclude={"source"})]
        found.append(Arm(PRETRAINED, "ViT, pretrained", source, identity))
    return found


class Study:
    """The cells of `settings` on two splits, in the order in which they are trained: a whole round of each seed."""

    def __init__(
        self, settings: StudySettings, of: Sequence[Arm], train_split: Split, test_split: Split, classes: int, out: Path
    ):
        self.settings, self.classes, self.out = settings, classes, out
        self._train, self._test = train_split, test_split
        self._arms = {arm.name: arm for arm in of}
        whole = draw.whole_size(train_split, classes)
        sizes = [whole if size is None else size for size in settings.sizes]
        for size in sizes:
            if size > whole:
                raise SettingsError(
                    f"sizes: {size} images a class, and the rarest class has {whole}: take at most as many, or null "
                    "for all of them"
                )
            if size * classes < settings.batch_size:
                raise SettingsError(
                    f"batch_size {settings.batch_size} is more than the {size * classes} training images of size "
                    f"{size}: lower it, or leave that size out"
                )
        # Not what says which cells there are: more seeds or sizes leave those at hand as they are.
        own = {"architectures", "learning_rates", "finetune"}  # in the identities of the arms
        how = settings.model_dump(mode="json", exclude={"sizes", "steps", "seeds", "split", *own})
        data = hashlib.sha256((train_split.digest() + test_split.digest()).encode()).hexdigest()
        # Not of all that those modules import: how data is prepared and gated makes no difference here.
        code = [inspect.getsource(draw), inspect.getsource(training), provenance.digest("trainer.finetune")]
        self.places = [
            Place(
                architecture=arm.name,
                size=size,
                seed=seed,
                steps=steps,
                key=cells.key(how=how, arm=arm.identity, data=data, code=code, size=size, seed=seed, steps=steps),
            )
            for seed, (size, steps), arm in product(range(settings.seeds), zip(sizes, settings.steps, strict=True), of)
        ]

    def kept(self) -> list[Cell]:
        """The cells that are there already."""
        return [cell for place in self.places if (cell := cells.read_result(self.out / CELLS, place))]

    def run(self, starts: Callable[[Place], None] = lambda place: None) -> Iterator[Cell]:
        """The missing cells, each kept before it is given.

        Each is trained in a process of its own: TensorFlow gives no memory of a compiled step back. Raises StudyError.
        """
        there = {cell.place for cell in self.kept()}
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as process:
            for place in self.places:
                if place in there:
                    continue
                starts(place)
                drawn = draw.draw(self._train, self.classes, place.size, place.seed)
                trained = process.submit(
                    training.train_logged,
                    self.out / LOG,
                    self._arms[place.architecture].trained,
                    self.settings,
                    place.steps,
                    place.seed,
                    drawn,
                    self._test,
                    self.classes,
                )
                try:
                    cell = Cell(place=place, result=trained.result())
                except (FloatingPointError, ValueError, FileNotFoundError, BrokenProcessPool) as error:
                    raise StudyError(
                        f"{place.words}: {error}; the log is {self.out / LOG}. What is done is kept: the same "
                        "command goes on from there"
                    ) from error
                cells.write_result(self.out / CELLS, cell)
                yield cell


def expected_seconds(place: Place, done: Sequence[Cell]) -> float:
    """How long a cell will take, by those done: of its architecture where there are some, else of any."""
    alike = [cell for cell in done if cell.place.architecture == place.architecture] or list(done)
    if not alike:
        return 20 + 0.1 * place.steps  # until the first is done
    per_step = sum(cell.result.seconds_per_step for cell in alike) / len(alike)
    beside = sum(cell.result.seconds - cell.result.seconds_per_step * cell.place.steps for cell in alike) / len(alike)
    return beside + per_step * place.steps
