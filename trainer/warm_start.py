"""What a warm start takes over from the model that serves now, whose classes may be others.

Imports no TensorFlow: the command and the report read it.
"""

from pathlib import Path

from trainer.settings import Group

FILE = "warm_start.json"  # of a training's folder: its `WarmStart`
WARM_START = "warm_start"  # property of a model: the same, as JSON


class WarmStart(Group):
    """Which classes of the head a training took over, by name, and which not. `version`: of the serving model."""

    version: int | None
    kept: list[str]
    new: list[str]
    dropped: list[str]
    rebuilt: bool  # the head; not so where the classes are the same, in the same order

    def __str__(self) -> str:
        start = "warm start from " + ("the serving model" if self.version is None else f"version {self.version}")
        if not self.rebuilt:
            return f"{start}: the same {len(self.kept)} classes"
        changes = [f"weights of {_counted(self.kept)} copied by name"]
        changes += [f"{len(self.new)} new: {_listed(self.new)}"] if self.new else []
        changes += [f"{len(self.dropped)} dropped: {_listed(self.dropped)}"] if self.dropped else []
        return f"{start}: head rebuilt, {', '.join(changes)}"


def compare_classes(old: list[str], new: list[str], version: int | None) -> WarmStart:
    """Say what becomes of the head.

    Args:
        old: classes of the serving model, in index order.
        new: classes of the data, in index order.
        version: of the serving model.
    """
    return WarmStart(
        version=version,
        kept=[name for name in new if name in old],
        new=[name for name in new if name not in old],
        dropped=[name for name in old if name not in new],
        rebuilt=old != new,
    )


def read(folder: Path) -> WarmStart | None:
    """Read what `trainer.run` wrote to a training's folder; None if it started from scratch."""
    file = folder / FILE
    return WarmStart.model_validate_json(file.read_text("utf-8")) if file.is_file() else None


def _counted(names: list[str]) -> str:
    return f"{len(names)} class{'' if len(names) == 1 else 'es'}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
