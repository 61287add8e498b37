"""Choice of images that are worth labelling, and the folder in which a person labels them."""

import csv
import hashlib
import heapq
import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from components.errors import UsageError
from pipeline.monitoring.measured import MeasuredAnswer
from pipeline.monitoring.serving_log import Answer
from trainer.disk import sync_tree

TABLE = "labels.csv"  # which a person completes, and `vitpipe data prepare images --source` reads
ORIGIN = "sample.json"  # where the images come from
IMAGES = 200  # default number of images

_COLUMNS = ("path", "label", "id", "answer", "confidence", "reason", "version", "place")
_PNG = b"\x89PNG"


class Choice(NamedTuple):
    """Image that was chosen, and why."""

    reason: str  # unsure, far, rare or random
    measured: MeasuredAnswer


class Sampler:
    """Chooses images from traffic, about a quarter for each reason. Only candidates are in memory.

    - unsure: the lowest confidence;
    - far: the largest distance from the training images;
    - rare: answers of the classes that the fewest images were answered with;
    - random: any image, so that the labels also measure the accuracy on ordinary traffic.

    Args:
        images: number of images to choose.
        seed: seed of the random choice.
    """

    def __init__(self, images: int, seed: int = 0) -> None:
        self._images, self._draw = images, random.Random(seed)
        self._number = 0
        self._answers: Counter[int] = Counter()
        self._unsure: list[tuple[float, int, MeasuredAnswer]] = []
        self._far: list[tuple[float, int, MeasuredAnswer]] = []
        self._held: set[tuple[str, str]] = set()  # kind and digest of the images in the two lists above
        self._rare: dict[int, list[MeasuredAnswer]] = {}  # the first answers of the rarest classes
        self._rares = 0  # number of these answers
        self._random: list[MeasuredAnswer] = []

    def add(self, measured: Sequence[MeasuredAnswer]) -> None:
        """Consider answers. Those without a usable image are never chosen."""
        for item in measured:
            if item.distance is None:
                continue
            self._number += 1
            self._keep("far", self._far, item.distance, item)
            if item.confidence is not None:
                self._keep("unsure", self._unsure, -item.confidence, item)
            if item.index >= 0:
                self._answers[item.index] += 1
                self._keep_rare(item)
            # Reservoir sampling: every image has the same chance.
            if len(self._random) < self._images:
                self._random.append(item)
            elif (place := self._draw.randrange(self._number)) < self._images:
                self._random[place] = item

    def choose(self) -> list[Choice]:
        """Return different images, at most as many as wanted."""
        by_class = sorted(self._rare, key=lambda index: (self._answers[index], index))
        candidates = {
            "unsure": [item for _, _, item in sorted(self._unsure, key=lambda far: far[:2], reverse=True)],
            "far": [item for _, _, item in sorted(self._far, key=lambda far: far[:2], reverse=True)],
            "rare": [item for index in by_class for item in self._rare[index]],
            "random": self._random,
        }
        chosen: list[Choice] = []
        seen: set[str] = set()
        queues = {reason: iter(of_reason) for reason, of_reason in candidates.items()}
        while queues and len(chosen) < self._images:
            for reason in [*queues]:
                item = next((item for item in queues[reason] if _digest(item) not in seen), None)
                if item is None:
                    del queues[reason]
                elif len(chosen) < self._images:
                    seen.add(_digest(item))
                    chosen.append(Choice(reason, item))
        return chosen

    def _keep_rare(self, item: MeasuredAnswer) -> None:
        self._rare.setdefault(item.index, []).append(item)
        self._rares += 1
        if self._rares > self._images:
            # Every class keeps candidates, because the rarest class is known only at the end.
            most = max(self._rare, key=lambda index: (len(self._rare[index]), self._answers[index], index))
            self._rare[most].pop()
            self._rares -= 1
            if not self._rare[most]:
                del self._rare[most]

    def _keep(
        self, kind: str, heap: list[tuple[float, int, MeasuredAnswer]], score: float, item: MeasuredAnswer
    ) -> None:
        key = kind, _digest(item)
        if key in self._held or (len(heap) == self._images and score <= heap[0][0]):
            return
        # The number decides between equal scores, because answers cannot be compared.
        heapq.heappush(heap, (score, -self._number, item))
        self._held.add(key)
        if len(heap) > self._images:
            self._held.remove((kind, _digest(heapq.heappop(heap)[2])))


def check_folder(folder: Path) -> None:
    """Check that a sample can be written.

    Raises:
        UsageError: if the folder exists, or cannot be made.
    """
    try:
        if folder.exists() or folder.is_symlink():
            raise UsageError(f"--sample {folder} exists: name a new folder")
        parent = next(parent for parent in folder.absolute().parents if parent.exists())
        Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=parent)).rmdir()
    except OSError as error:
        raise UsageError(
            f"--sample {folder} cannot be written ({error.strerror}): name a folder where this user may write"
        ) from None


def write_sample(
    folder: Path, chosen: Iterable[Choice], classes: dict[int, list[str]], origin: dict[str, object]
) -> int:
    """Write chosen images with a table in which a person enters their classes.

    Args:
        folder: the new folder.
        chosen: the images.
        classes: class names by version, in index order.
        origin: facts about the traffic, which are written to `sample.json`.

    Returns:
        The number of images.

    Raises:
        UsageError: if the folder exists, or cannot be made.
    """
    check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    reasons: Counter[str] = Counter()
    try:
        (temporary / "images").mkdir()
        with (temporary / TABLE).open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(_COLUMNS)
            for reason, item in chosen:
                image = item.answer.image or b""
                path = f"images/{_digest(item)[:32]}.{'png' if image.startswith(_PNG) else 'jpg'}"
                (temporary / path).write_bytes(image)
                version = item.version
                answer = classes[version][item.index] if item.index >= 0 else ""
                confidence = "" if item.confidence is None else f"{item.confidence:.4f}"
                label = classes[version][item.label] if item.label is not None and item.label >= 0 else ""
                table.writerow([path, label, _id(item.answer), answer, confidence, reason, version, item.answer.place])
                reasons[reason] += 1
        facts = {**origin, "images": reasons.total(), "reasons": reasons}
        (temporary / ORIGIN).write_text(json.dumps(facts, indent=1) + "\n", "utf-8")
        temporary.chmod(0o755)
        sync_tree(temporary)
        temporary.rename(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return reasons.total()


def _id(answer: Answer) -> str:
    """Return the id of an answer, or the sha256 of its image if a spreadsheet or a terminal could interpret the id.

    Spreadsheets take a text that begins with one of `=+-@` for a formula.
    """
    is_plain = answer.id.isprintable() and not answer.id.startswith(("=", "+", "-", "@"))
    return answer.id if answer.id and is_plain else answer.digest


def _digest(item: MeasuredAnswer) -> str:
    return hashlib.sha256(item.answer.image or b"").hexdigest()
