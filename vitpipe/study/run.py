"""Run of a study, from its data to its page."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.data import ingest
from components.errors import UsageError
from pipeline.console.logs import display_path, redirected
from vitpipe.study.cells import Cell, Place
from vitpipe.study.settings import study_settings

if TYPE_CHECKING:
    from vitpipe.study.results import Found
    from vitpipe.study.study import Study


@dataclass(frozen=True)
class StudyResult:
    """Figures of a study, and the page that shows them."""

    found: "Found"
    page: Path


class StudyProgress:
    """Progress of a study, in calls that do nothing here. A subclass shows it."""

    def line(self, text: str) -> None:
        """Take a sentence on what is being done."""

    def planned(self, study: "Study", kept: list[Cell]) -> None:
        """Take the study, before its first cell is trained, and the cells that an earlier call has kept."""

    def started(self, place: Place) -> None:
        """Take the cell that is trained next."""

    def ended(self, cell: Cell) -> None:
        """Take a cell that was trained."""


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
    """Measure how right each architecture is after training on n images a class, at several n and seeds.

    At one size every architecture takes the same number of steps with the same batch size and augmentation. Each cell
    is computed once: the same call continues a study that was stopped.

    Args:
        data: a data folder that `vitpipe data prepare` wrote.
        pretrained: backbone of a pretrained ViT, a value of `finetune.source`; None leaves that ViT out.
        budget: "small" for two CPU cores, "full" for a GPU.
        overrides: `a.b=c` for each setting of the budget to change.
        span: number of the span; None for the newest.
        runs: folder of the run folders, in which a pipeline named by `pretrained` is looked up.
        out: folder of the cells and the page.
        progress: shows how far the study is.

    Raises:
        SettingsError: if the budget's settings are wrong, or do not fit the data.
        UsageError: if there is no such data, span or backbone, or `out` cannot be written.
        DataRefused: if the data or the backbone cannot be read.
        StudyError: if a cell cannot be trained. The cells before it are kept.
    """
    from components.data.ingest import manifest

    progress = progress or StudyProgress()
    settings = study_settings(budget, overrides)
    pretrained = pretrained or settings.finetune.source or None
    there = ingest.spans(data)
    if not there or (span is not None and span not in there):
        wanted = f"no span {span}" if span is not None and there else "no data"
        have = f"; it has {', '.join(map(str, there))}" if there else ""
        raise UsageError(f"{wanted} in {data}{have}: name a folder that `vitpipe data prepare` wrote")
    folder = ingest.span_folder(data, span or there[-1])
    classes = list(manifest.read(folder).class_names)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {out} cannot be written ({error.strerror}): name another folder") from None
    with redirected(out / "training.log"):  # what libraries print
        from pipeline.backbone import locate
        from vitpipe.study import draw, page, results
        from vitpipe.study.study import Study, arms

        of = arms(settings, locate(pretrained, runs) if pretrained else None)
        if not pretrained:
            progress.line("no pretrained ViT: name its backbone with --pretrained to have it, too")
        progress.line(f"reading {display_path(folder)}")
        train_split, test_split = (draw.read(folder, split, settings.image_size) for split in ("train", settings.split))
        study = Study(settings, of, train_split, test_split, len(classes), out)
        done = study.kept()
        progress.planned(study, [*done])
        for cell in study.run(progress.started):
            done.append(cell)
            progress.ended(cell)
        rates = {arm.name: arm.trained.learning_rate for arm in of if not isinstance(arm.trained, str)}
        settings = settings.model_copy(update={"learning_rates": rates})  # the registered ones, too
        found = results.Found(
            data=display_path(folder),
            classes=classes,
            test_images=len(test_split),
            pretrained=pretrained,
            settings=settings.model_dump(mode="json"),
            machine=results.machine(),
            rows=results.rows({arm.name: arm.title for arm in of}, done),
        )
        written = page.write(found, out)
    return StudyResult(found, written)
