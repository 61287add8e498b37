"""manifest.json: contents and origin of a span."""

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
_MAX_BYTES = 64 * 2**20  # of a manifest; one of 10,000 classes and 10 million images has 3 MB
HISTORY = "history.npy"  # see `components.data.ingest.history`
MAX_REJECTED_IDS = 100  # listed for each reason; all are counted

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
# A manifest may have been written by anyone: a shard's name cannot lead out of the span.
ShardName = Annotated[str, StringConstraints(pattern=r"^(train|val|test)/part-[\w.-]+\.tfrecord$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Recipe(_Frozen):
    """The numbers that shape a span. The first spans of two data folders hold the same if source and recipe are one."""

    seed: int = 0  # of the shuffle and of what is held out
    held_out: float = Field(default=0.1, gt=0, lt=0.5)  # of the images, for val; without splits for test too
    examples_per_shard: PositiveInt = 2_500  # CIFAR-10: 18 training shards of 6 MB; photographs of 100 kB: 250 MB each
    max_rejected: float = Field(default=0.01, ge=0, le=1)  # of the records; more than this and the source is refused
    classes: tuple[str, ...] | None = None  # nothing but these, sorted
    per_class: int | None = Field(default=None, ge=3)  # images of train and val together, at most, of each class


class Shard(_Frozen):
    examples: PositiveInt
    sha256: Sha256


class Rejection(_Frozen):
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
    """The history that a span keeps.

    sha256: of the file; spans: `Manifest.digest()` of each earlier span that it includes, by number.
    """

    sha256: Sha256
    spans: dict[NonNegativeInt, Sha256]


class Manifest(_Frozen):
    """What one span holds.

    counts: examples by split and class; image_shape: height, width, channels, or None when the sizes differ;
    shards: by path inside the span; passed_over: files that are plainly no images; history: None in spans of versions
    that kept none.
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
    history: HistoryFile | None = None
    tool_version: str

    @model_validator(mode="after")
    def check_counts(self) -> Self:
        if set(self.counts) != set(SPLITS):
            raise ValueError(f"counts are of {', '.join(self.counts) or 'nothing'}, expected {', '.join(SPLITS)}")
        return self

    def examples(self, split: str) -> int:
        """Number of examples in a split."""
        return sum(self.counts[split].values())

    def digest(self) -> str:
        """sha256 over the names and digests of the shards: equal for spans that hold the same bytes."""
        lines = "".join(f"{self.shards[name].sha256}  {name}\n" for name in sorted(self.shards))
        return hashlib.sha256(lines.encode()).hexdigest()


def read(span: Path) -> Manifest:
    """Return the manifest of a span folder.

    Raises DataRefused if the span is not a folder, or if the manifest is missing, invalid, a link or a special file.
    """
    path = span / NAME
    try:
        safe_files.check_folder(span)
        return Manifest.model_validate_json(safe_files.read_bytes(path, _MAX_BYTES))
    except FileNotFoundError:
        raise DataRefused(f"{path}: missing; the folder is no span that `vitpipe data prepare` wrote") from None
    except OSError as error:
        raise DataRefused(f"{path}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataRefused(f"{path}: {where}: {first['msg']}") from None


def write(manifest: Manifest, span: Path) -> None:
    """Writes the manifest into a span folder."""
    (span / NAME).write_text(manifest.model_dump_json(indent=1) + "\n", encoding="utf-8")
