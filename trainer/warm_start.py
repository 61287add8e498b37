"""Record of what a warm start takes over from the model that serves now, whose classes may differ.

Imports no TensorFlow, because the command and the report use this module, too.
"""

from pathlib import Path

from trainer.settings import Group

FILE = "warm_start.json"  # in a training's folder: its `WarmStart`, as JSON
WARM_START = "warm_start"  # property of a model: the same JSON


class WarmStart(Group):
    """Classes of the head that a training kept, added and dropped. `version` is that of the serving model."""

    version: int | None
    kept: list[str]
    new: list[str]
    dropped: list[str]
    rebuilt: bool  # whether the head was rebuilt; not if the classes are the same, in the same order

    def __str__(self) -> str:
        start = "warm start from " + ("the serving model" if self.version is None else f"version {self.version}")
        if not self.rebuilt:
            return f"{start}: the same {len(self.kept)} classes"
        changes = [f"weights of {_counted(self.kept)} copied by name"]
        changes += [f"{len(self.new)} new: {_listed(self.new)}"] if self.new else []
        changes += [f"{len(self.dropped)} dropped: {_listed(self.dropped)}"] if self.dropped else []
        return f"{start}: head rebuilt, {', '.join(changes)}"


def compare_classes(old: list[str], new: list[str], version: int | None) -> WarmStart:
    """Compare the classes of the serving model with those of the data.

    Args:
        old: classes of the serving model, in index order.
        new: classes of the data, in index order.
        version: version of the serving model, if known.
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
