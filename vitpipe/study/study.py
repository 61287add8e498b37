"""Plan of a study: the list of its cells, and the loop that trains the missing ones."""

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

CELLS, LOG = "cells", "training.log"  # names within the study's folder


class Arm(NamedTuple):
    """One line of the chart.

    Attributes:
        name: the name of the architecture.
        title: its name in the legend of the chart.
        trained: a registered architecture, or the source of a pretrained ViT's backbone.
        identity: values that its cells depend on, in addition to settings, data and code.
    """

    name: str
    title: str
    trained: Architecture | str
    identity: object


def make_arms(settings: StudySettings, source: str | None) -> list[Arm]:
    """Return the arms of a study: the architectures of its settings, and a pretrained ViT if there is a source.

    Args:
        settings: the settings of the study.
        source: source of the pretrained ViT's backbone, as `pipeline.backbone.locate` returns it. None: no such arm.

    Raises:
        SettingsError: if an architecture is not registered.
        DataRefused: if the backbone cannot be read.
    """
    for name in (*settings.architectures, *settings.learning_rates):
        if name not in ARCHITECTURES:
            raise SettingsError(f"no architecture {name}: the registered ones are {', '.join(ARCHITECTURES)}")
    arms = []
    for name in settings.architectures:
        registered = ARCHITECTURES[name]
        rate = settings.learning_rates.get(name, registered.learning_rate)
        architecture = registered._replace(learning_rate=rate)
        # The source text is part of the identity, because the module may lie outside our packages.
        build = architecture.build
        source_text = inspect.getsource(sys.modules[build.__module__])
        identity = [source_text, build.__qualname__, architecture.learning_rate, architecture.weight_decay]
        arms.append(Arm(name, architecture.title, architecture, identity))
    if source:
        backbone = read_backbone(source, ModelSettings(image_size=settings.image_size), settings.finetune)
        identity = [digest(backbone), settings.finetune.model_dump(exclude={"source"})]
        arms.append(Arm(PRETRAINED, "ViT, pretrained", source, identity))
    return arms


class Study:
    """Plan of a study. `places` lists its cells in the order of training: all cells of one seed, then of the next.

    Args:
        settings: the settings of the study.
        arms: the architectures to compare.
        train_split: the images that training sets are drawn from.
        test_split: the images that every model is evaluated on.
        classes: number of classes.
        out: the folder of the study.

    Raises:
        SettingsError: if the sizes or the batch size do not fit the number of images.
    """

    def __init__(
        self,
        settings: StudySettings,
        arms: Sequence[Arm],
        train_split: Split,
        test_split: Split,
        classes: int,
        out: Path,
    ) -> None:
        self.settings, self.classes, self.out = settings, classes, out
        self._train, self._test = train_split, test_split
        self._arms = {arm.name: arm for arm in arms}
        largest = draw.largest_size(train_split, classes)
        sizes = [largest if size is None else size for size in settings.sizes]
        for size in sizes:
            if size > largest:
                raise SettingsError(
                    f"sizes: {size} images per class are not possible, because the rarest class has {largest}. Choose "
                    "at most that many, or null for exactly that many"
                )
            if size * classes < settings.batch_size:
                raise SettingsError(
                    f"batch_size {settings.batch_size} is more than the {size * classes} training images of size "
                    f"{size}. Lower it, or leave that size out"
                )
        # The key leaves out the settings that only list cells, so that stored cells stay valid when sizes or seeds are
        # added, and the settings that are part of the arms' identities.
        arm_settings = {"architectures", "learning_rates", "finetune"}
        how = settings.model_dump(mode="json", exclude={"sizes", "steps", "seeds", "split", *arm_settings})
        data = hashlib.sha256((train_split.digest() + test_split.digest()).encode()).hexdigest()
        # The modules that these import are left out: preparing and gating data does not affect a training.
        code = [inspect.getsource(draw), inspect.getsource(training), provenance.digest("trainer.finetune")]
        self.places = [
            Place(
                architecture=arm.name,
                size=size,
                seed=seed,
                steps=steps,
                key=cells.make_key(how=how, arm=arm.identity, data=data, code=code, size=size, seed=seed, steps=steps),
            )
            for seed, (size, steps), arm in product(
                range(settings.seeds), zip(sizes, settings.steps, strict=True), arms
            )
        ]

    def stored_cells(self) -> list[Cell]:
        """Return the cells that were computed earlier."""
        return [cell for place in self.places if (cell := cells.read_result(self.out / CELLS, place))]

    def run(self, starts: Callable[[Place], None] = lambda place: None) -> Iterator[Cell]:
        """Train the missing cells. Each one is trained in a new process, because TensorFlow never frees compiled steps.

        Args:
            starts: called with the place of each cell before its training.

        Yields:
            Each cell, after it was stored.

        Raises:
            StudyError: if a cell cannot be trained.
        """
        stored = {cell.place for cell in self.stored_cells()}
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as process:
            for place in self.places:
                if place in stored:
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
                        f"{place.label}: {error}; the log is {self.out / LOG}. Finished trainings are kept: the same "
                        "command continues after them"
                    ) from error
                cells.write_result(self.out / CELLS, cell)
                yield cell


def expected_seconds(place: Place, done: Sequence[Cell]) -> float:
    """Estimate the duration of a cell from finished ones, if possible from those of the same architecture.

    Args:
        place: the place of the cell.
        done: the finished cells.

    Returns:
        The duration in seconds.
    """
    alike = [cell for cell in done if cell.place.architecture == place.architecture] or list(done)
    if not alike:
        return 20 + 0.1 * place.steps  # a guess, until the first cell is done
    per_step = sum(cell.result.seconds_per_step for cell in alike) / len(alike)
    fixed = sum(cell.result.seconds - cell.result.seconds_per_step * cell.place.steps for cell in alike) / len(alike)
    return fixed + per_step * place.steps
