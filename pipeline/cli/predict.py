"""`vitpipe predict`: ask a pushed model."""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from components.ingest import DataRefused
from components.serving_folder import RECORD, problems, read_record, versions
from pipeline.config import SettingsError
from pipeline.exits import Exit
from pipeline.logs import redirected

_BATCH = 32  # images a call


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="PNG or JPEG files.")],
    model: Annotated[Path | None, typer.Option(help="SavedModel folder; the newest pushed one when not given.")] = None,
    runs: Annotated[Path, typer.Option(help="Where the run folders are.")] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Class and probability of each image."""
    for image in images:
        if not image.is_file():
            raise SettingsError(f"{image} is not a file: name PNG or JPEG files")
    folder = model or _newest_pushed(runs)
    answers = _answers(folder, images)
    if as_json:
        print(json.dumps(answers, indent=2))
    else:
        print(f"model {folder}", file=sys.stderr)
        _show(answers)
    if not all(answer["valid"] for answer in answers):
        raise typer.Exit(Exit.DATA_REFUSED)


def _show(answers: list[dict]) -> None:
    """A table on a terminal, lines with tabs elsewhere."""
    console = Console(highlight=False)
    table = Table("image", "class", "probability", box=None, pad_edge=False)
    for answer in answers:
        row = answer["image"], answer["class"] or "not a PNG or JPEG image", f"{answer['probability']:.3f}"
        if console.is_terminal:
            table.add_row(*map(escape, row))
        else:
            print(*row, sep="\t")
    if console.is_terminal:
        console.print(table)


def _newest_pushed(runs: Path) -> Path:
    pushed = [folder / str(version) for folder in sorted(runs.glob("*/serving")) for version in versions(folder)[-1:]]
    if not pushed:
        raise SettingsError(f"no pushed model below {runs}: `vitpipe run` makes one, or name a folder with --model")
    try:
        return max(pushed, key=lambda folder: read_record(folder).pushed_at)
    except ValueError as error:
        raise SettingsError(str(error)) from None


def _answers(folder: Path, images: list[Path]) -> list[dict]:
    if not (folder / "saved_model.pb").is_file():
        raise SettingsError(f"{folder} holds no SavedModel: name a version folder, for example runs/sample/serving/1")
    if (folder / RECORD).is_file() and (changed := problems(folder)):
        raise DataRefused(f"{'; '.join(changed)}: this is not the model that was pushed; push or restore it again")
    answers = []
    with redirected(Path(os.devnull)):
        import tensorflow as tf

        signature = tf.saved_model.load(str(folder)).signatures["serving_bytes"]
        for start in range(0, len(images), _BATCH):
            batch = images[start : start + _BATCH]
            answer = signature(image_bytes=tf.constant([image.read_bytes() for image in batch]))
            rows = zip(
                batch, answer["class"].numpy(), answer["probabilities"].numpy(), answer["valid"].numpy(), strict=True
            )
            for image, name, probabilities, valid in rows:
                answers.append(
                    {
                        "image": str(image),
                        "valid": bool(valid),
                        "class": name.decode(),
                        "probability": float(probabilities.max()),
                        "probabilities": [float(p) for p in probabilities],
                    }
                )
    return answers
