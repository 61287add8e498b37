"""Training curves of a run, also while it trains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from pipeline.result.figures import Epoch, best_epoch
from pipeline.result.run_result import RunResult
from trainer.settings import MOST_EPOCHS

FILE = "history.jsonl"  # `trainer.history.FILE`, whose module would load TensorFlow
_OUTPUT = "model_run"  # channel of the Trainer whose artifact has the history


@dataclass(frozen=True)
class Training:
    """Epochs that a training has finished so far.

    `planned` is the number of epochs in the settings, None if unknown. `earlier` is True if an earlier run trained the
    model and this run took it from the cache.
    """

    epochs: Sequence[Epoch]
    planned: int | None
    earlier: bool

    @property
    def best(self) -> Epoch:
        """Epoch whose model is exported, or would be if the training ended now."""
        best = best_epoch(self.epochs)
        assert best
        return best


def training(result: RunResult) -> Training | None:
    """Return the training of a run; None if no epoch can be read."""
    folder = _folder(result)
    epochs = _epochs(folder / FILE) if folder else []
    return Training(epochs, _planned(result), not result.trained) if epochs else None


def _folder(result: RunResult) -> Path | None:
    """Return the folder of the history. TFX registers an output only when its node has ended, so it may be a guess."""
    if trained := result.record.output("Trainer", _OUTPUT):
        return Path(trained.uri)
    trainer = result.record.node("Trainer")
    examples = trainer.inputs.get("examples", ()) if trainer else ()
    if trainer is None or not examples:
        return None
    # TFX puts every output into <root>/<node>/<channel>/<execution>.
    root = Path(examples[0].uri).parent.parent.parent
    return root / trainer.node / _OUTPUT / str(trainer.id)


def _epochs(file: Path) -> list[Epoch]:
    epochs = []
    try:
        lines = file.read_text("utf-8").splitlines() if file.is_file() else []
    except (OSError, ValueError):
        return []
    for line in lines:
        with suppress(ValidationError):  # the line is half written, or by another version
            epoch = Epoch.model_validate_json(line)
            # Anything may be in the file. Numbers beyond these, and NaN, cannot be drawn.
            if 1 <= epoch.epoch <= MOST_EPOCHS and all(value is None or abs(value) < 1e12 for _, value in epoch):
                epochs.append(epoch)
    # Either all epochs of a training measure val, or none does.
    return [
        epoch
        for epoch in epochs
        if (epoch.val_loss is None) == (epoch.val_accuracy is None) == (epochs[0].val_accuracy is None)
    ]


def _planned(result: RunResult) -> int | None:
    finetune = _group(result, "finetune")
    if finetune.get("source"):
        return _number(finetune, "head_epochs") + _number(finetune, "epochs") or None
    return _number(_group(result, "training"), "epochs") or None


def _group(result: RunResult, name: str) -> Mapping[str, object]:
    group = result.settings.get(name)
    return group if isinstance(group, Mapping) else {}


def _number(group: Mapping[str, object], name: str) -> int:
    value = group.get(name)
    return value if isinstance(value, int) and 0 <= value <= MOST_EPOCHS else 0
