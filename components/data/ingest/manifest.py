"""Manifest of a span, the file manifest.json, which records the content and the origin of the span."""

import hashlib
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    StringConstraints,
    ValidationError,
    model_validator,
)

from components.data.ingest import safe_files
from components.data.ingest.source import SPLITS
from components.errors import DataRefused

NAME = "manifest.json"
_MAX_BYTES = 64 * 2**20  # the manifest of 10 million images of 10,000 classes has 3 MB
HISTORY = "history.npy"  # see `components.data.ingest.history`
MAX_REJECTED_IDS = 100  # listed for each reason or remark, although all are counted

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# A manifest may come from an untrusted source, so the name of a shard must not lead out of the span.
ShardName = Annotated[str, StringConstraints(pattern=r"^(train|val|test)/part-[\w.-]+\.tfrecord$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class DecisionsFile(_Frozen):
    """Table of a person's decisions about images, as `components.data.ingest.decisions` reads it.

    Args:
        sha256: digest of the sorted decisions: id, verdict and new label.
        keep: number of images whose label is confirmed.
        relabel: number of images that get another label.
        drop: number of images that are left out.
        by: names of those who decided, if the table has them.
        first_at: time of the first decision, if the table has times.
        last_at: time of the last decision, if the table has times.
    """

    sha256: Sha256
    keep: NonNegativeInt
    relabel: NonNegativeInt
    drop: NonNegativeInt
    by: tuple[str, ...] = ()
    first_at: str | None = None
    last_at: str | None = None


class Recipe(_Frozen):
    """Parameters of a span.

    The first spans of two data folders are equal if they are made from the same source with the same recipe.

    Args:
        seed: seed of the shuffle and of the choice of images that are held out.
        held_out: share of the images that is held out for val and, if the source has no splits, for test.
        examples_per_shard: largest number of examples in a shard. With the default CIFAR-10 has 18 training shards of
            6 MB, and a shard of photographs of 100 kB has 250 MB.
        max_rejected: largest share of records that may be rejected. If more are rejected, the source is refused.
        classes: sorted names of the classes to keep; None for all.
        per_class: largest number of images of each class in train and val together; None for all.
        decisions: the decisions that were applied to the source; None without decisions.
    """

    seed: int = 0
    held_out: float = Field(default=0.1, gt=0, lt=0.5)
    examples_per_shard: PositiveInt = 2_500
    max_rejected: float = Field(default=0.01, ge=0, le=1)
    classes: tuple[str, ...] | None = None
    per_class: int | None = Field(default=None, ge=3)
    decisions: DecisionsFile | None = None


class Shard(_Frozen):
    """Number of examples and digest of a shard."""

    examples: PositiveInt
    sha256: Sha256


class Rejection(_Frozen):
    """Records that were rejected for the same reason."""

    reason: str
    count: PositiveInt
    ids: tuple[str, ...]  # the first MAX_REJECTED_IDS


class RemarkCount(_Frozen):
    """Accepted images with the same remark, a key of `components.data.ingest.images.REMARKS`."""

    remark: str
    count: PositiveInt
    images: PositiveInt  # all accepted images, with and without the remark
    ids: tuple[str, ...]  # the first MAX_REJECTED_IDS


class HistoryFile(_Frozen):
    """Description of the history file of a span.

    Args:
        sha256: digest of the file.
        spans: `Manifest.digest()` of each earlier span that the history includes, by number.
    """

    sha256: Sha256
    spans: dict[NonNegativeInt, Sha256]


class Manifest(_Frozen):
    """Content and origin of a span.

    Args:
        kind: name of the kind of source.
        source: description of the source.
        source_sha256: digest of the source.
        recipe: parameters of the span.
        class_names: names in index order.
        counts: number of examples by split and class.
        image_shape: height, width and channels of all images, or None if they differ.
        shards: shards by path within the span.
        rejected: rejected records by reason.
        remarked: accepted images by remark.
        passed_over: files that are obviously not images.
        dropped: keys of the pixels of images that a decision dropped, see `components.data.ingest.history.keys`. A
            window takes them from no earlier span.
        history: the history file, or None if an earlier version without histories wrote the span.
        tool_version: the version of vitpipe that wrote the span.
    """

    kind: str
    source: str
    source_sha256: Sha256
    recipe: Recipe
    class_names: tuple[str, ...]
    counts: dict[str, dict[str, NonNegativeInt]]
    image_shape: tuple[int, int, int] | None
    shards: dict[ShardName, Shard]
    rejected: tuple[Rejection, ...]
    remarked: tuple[RemarkCount, ...] = ()
    passed_over: Rejection | None = None
    dropped: tuple[NonNegativeInt, ...] = ()
    history: HistoryFile | None = None
    tool_version: str

    @model_validator(mode="after")
    def check_counts(self) -> Self:
        """Reject counts that do not cover exactly the three splits."""
        if set(self.counts) != set(SPLITS):
            raise ValueError(f"counts are of {', '.join(self.counts) or 'no split'}, expected {', '.join(SPLITS)}")
        return self

    def examples(self, split: str) -> int:
        """Return the number of examples in a split."""
        return sum(self.counts[split].values())

    def digest(self) -> str:
        """Return a sha256 over the names and digests of the shards, and over the dropped images if there are any."""
        lines = "".join(f"{self.shards[name].sha256}  {name}\n" for name in sorted(self.shards))
        lines += "".join(f"{key}  dropped\n" for key in self.dropped)
        return hashlib.sha256(lines.encode()).hexdigest()


def read(span: Path) -> Manifest:
    """Return the manifest of a span folder.

    Raises:
        DataRefused: if the span is not a folder, or if the manifest is missing, invalid, a link or a special file.
    """
    path = span / NAME
    try:
        safe_files.check_folder(span)
        return Manifest.model_validate_json(safe_files.read_bytes(path, _MAX_BYTES))
    except FileNotFoundError:
        raise DataRefused(
            f"{path}: missing, so the folder is not a span that `vitpipe data prepare` wrote: restore the file, or "
            "remove the folder"
        ) from None
    except OSError as error:
        raise DataRefused(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataRefused(f"{path}: {where}: {first['msg']}") from None


def write(manifest: Manifest, span: Path) -> None:
    """Write the manifest into a span folder.

    Args:
        manifest: the manifest.
        span: the folder.
    """
    (span / NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
