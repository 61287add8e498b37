"""Record of the classes that a warm start takes over from the serving model, whose classes may differ.

Imports no TensorFlow, because the command and the report use this module, too.
"""

from pathlib import Path

from trainer.settings import Group

FILE = "warm_start.json"  # file in the folder of a training: its `WarmStart`, as JSON
WARM_START = "warm_start"  # property of a Model artifact, with the content of that file


class WarmStart(Group):
    """Classes that a warm start kept, added and dropped."""

    version: int | None  # version of the serving model, if known
    kept: list[str]
    new: list[str]
    dropped: list[str]
    rebuilt: bool  # whether the head was rebuilt, which is not needed for the same classes in the same order

    def __str__(self) -> str:
        """Return one sentence for the log and the report."""
        start = "warm start from " + ("the serving model" if self.version is None else f"version {self.version}")
        if not self.rebuilt:
            return f"{start}: the same {len(self.kept)} classes"
        kept = f"{len(self.kept)} class{'' if len(self.kept) == 1 else 'es'}"
        changes = [f"weights of {kept} copied by name"]
        changes += [f"{len(self.new)} new: {_shorten(self.new)}"] if self.new else []
        changes += [f"{len(self.dropped)} dropped: {_shorten(self.dropped)}"] if self.dropped else []
        return f"{start}: head rebuilt, {', '.join(changes)}"


def compare_classes(old: list[str], new: list[str], version: int | None) -> WarmStart:
    """Compare the classes of the serving model with those of the data.

    Args:
        old: Class names of the serving model, in index order.
        new: Class names of the data, in index order.
        version: Version of the serving model, if known.

    Returns:
        The comparison.
    """
    return WarmStart(
        version=version,
        kept=[name for name in new if name in old],
        new=[name for name in new if name not in old],
        dropped=[name for name in old if name not in new],
        rebuilt=old != new,
    )


def read(folder: Path) -> WarmStart | None:
    """Read the record that `trainer.run` wrote to the folder of a training; None if it was not a warm start."""
    file = folder / FILE
    return WarmStart.model_validate_json(file.read_text("utf-8")) if file.is_file() else None


def _shorten(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
