"""Function that runs a whole study, from its data to its page."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.data import ingest
from components.errors import UsageError
from pipeline.console.logs import display_path, redirected
from trainer.framing import Framing
from vitpipe.study.cells import Cell, Place
from vitpipe.study.settings import study_settings

if TYPE_CHECKING:
    from vitpipe.study.results import StudyFigures
    from vitpipe.study.study import Study


@dataclass(frozen=True)
class StudyResult:
    """Result of a study.

    Attributes:
        found: the figures, see `vitpipe.study.results.StudyFigures`.
        page: the page that shows them.
    """

    found: "StudyFigures"
    page: Path


class StudyProgress:
    """Receives the progress of a study. The methods of this class do nothing; a subclass overrides them."""

    def line(self, text: str) -> None:
        """Receive a message about what is being done."""

    def planned(self, study: "Study", kept: list[Cell]) -> None:
        """Receive the plan before the first cell is trained.

        Args:
            study: the study.
            kept: the cells that an earlier call has stored. They are not trained again.
        """

    def started(self, place: Place) -> None:
        """Receive the place of the cell that is trained next."""

    def ended(self, cell: Cell) -> None:
        """Receive a cell that was trained."""


def run_study(
    data: Path,
    *,
    pretrained: str | None = None,
    budget: str = "small",
    overrides: list[str] | None = None,
    span: int | None = None,
    runs: Path = Path("runs"),
    out: Path = Path("study"),
    progress: StudyProgress | None = None,
) -> StudyResult:
    """Compare architectures: measure the accuracy of each after training on different numbers of images.

    Each architecture is trained at several training-set sizes, several times with different seeds. At one size, every
    architecture takes the same number of steps with the same batch size and augmentation. One such training is a cell.
    Each cell is computed once, so the same call continues a study that was stopped.

    Args:
        data: a data folder that `vitpipe data prepare` wrote.
        pretrained: backbone of a pretrained ViT to compare with, in the form of the setting `finetune.source`. None:
            compare without a pretrained ViT.
        budget: "small" for two CPU cores, "full" for a GPU.
        overrides: settings of the budget to change, each as `a.b=c`.
        span: number of the span. None: the newest.
        runs: folder of the run folders, in which a pipeline named by `pretrained` is looked up.
        out: folder for the cells and the page.
        progress: receives the progress of the study. None: show nothing.

    Returns:
        The figures, and the page that shows them.

    Raises:
        SettingsError: if a setting is invalid or does not fit the data, or the backbone does not exist.
        UsageError: if the data, the span or the budget does not exist, or `out` cannot be written.
        DataRefused: if the data or the backbone cannot be read.
        StudyError: if a cell cannot be trained. The cells before it are kept.
    """
    from components.data.ingest import manifest

    progress = progress or StudyProgress()
    settings = study_settings(budget, overrides)
    pretrained = pretrained or settings.finetune.source or None
    spans = ingest.spans(data)
    if not spans:
        raise UsageError(f"no data in {data}: name a folder that `vitpipe data prepare` wrote")
    if span is not None and span not in spans:
        raise UsageError(f"no span {span} in {data}: it has {', '.join(map(str, spans))}")
    folder = ingest.span_folder(data, span or spans[-1])
    classes = list(manifest.read(folder).class_names)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror}): name another folder") from None
    with redirected(out / "training.log"):  # the log of what libraries print
        from pipeline.backbone import locate
        from vitpipe.study import page, results
        from vitpipe.study.draw import read_split
        from vitpipe.study.study import Study, make_arms

        arms = make_arms(settings, locate(pretrained, runs) if pretrained else None)
        if not pretrained:
            progress.line("the study has no pretrained ViT: name a backbone with --pretrained to add one")
        progress.line(f"reading {display_path(folder)}")
        framing = Framing.of(settings.model_dump())
        train_split = read_split(folder, "train", framing.at(settings.augment.stored_size or framing.size))
        test_split = read_split(folder, settings.split, framing)
        study = Study(settings, arms, train_split, test_split, len(classes), out)
        done = study.stored_cells()
        progress.planned(study, [*done])
        for cell in study.run(progress.started):
            done.append(cell)
            progress.ended(cell)
        # The page shows every learning rate that was used, also the registered ones.
        rates = {arm.name: arm.trained.learning_rate for arm in arms if not isinstance(arm.trained, str)}
        settings = settings.model_copy(update={"learning_rates": rates})
        found = results.StudyFigures(
            data=display_path(folder),
            classes=classes,
            test_images=len(test_split),
            pretrained=pretrained,
            settings=settings.model_dump(mode="json"),
            machine=results.describe_machine(),
            rows=results.make_rows({arm.name: arm.title for arm in arms}, done),
        )
        written = page.write(found, out)
    return StudyResult(found, written)
