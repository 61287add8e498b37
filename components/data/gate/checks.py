"""Checks of a span's measured figures against bounds. Plain arithmetic; imports no TFX."""

from typing import Literal

import numpy as np
from scipy.spatial.distance import jensenshannon

from components.data.gate.bounds import UNUSABLE, Bound, DataGateSettings, Finding, Level
from components.data.ingest.images import REMARKS
from components.data.statistics.figures import ImageFigures, SplitFigures
from trainer.settings import Group

_MOST_ANOMALIES = 20  # anomalies in a finding, whose text ML Metadata stores and pages repeat


class DataVerdict(Group):
    """Everything the data gate weighed."""

    figures: ImageFigures
    previous_span: int | None  # that it was compared with
    findings: list[Finding]
    left_out: int  # examples that are not trained or selected on, nor part of the figures' numbers of labels
    accepted: dict[str, str]  # the person's words by check

    @property
    def passed(self) -> bool:
        return not self.of_level("stop")

    def of_level(self, level: Level) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == level]


def judge(
    settings: DataGateSettings,
    figures: ImageFigures,
    anomalies: list[str],
    previous: ImageFigures | None = None,
    accepted: dict[str, str] | None = None,
    left_out: int = 0,
    examples: dict[str, list[str]] | None = None,
) -> DataVerdict:
    """Weigh a span against the bounds and, where an earlier one has passed, against that.

    figures: of what is to be trained on; anomalies: TFDV's, in words; accepted: a person's reason for each check that
    is not to stop this run; left_out: how many examples were left out because they leak; examples: the first that each
    check is about.
    """
    accepted, examples = accepted or {}, examples or {}
    found: list[Finding] = []

    def weigh(
        check: str, value: float, text: str, fix: str = "", sense: Literal["at most", "at least"] = "at most"
    ) -> None:
        bound = Bound(stop=0) if check in UNUSABLE else getattr(settings, check)
        found.append(
            Finding(
                check=check,
                value=value,
                bound=bound,
                sense=sense,
                text=text,
                fix=fix,
                examples=tuple(examples.get(check, ())),
                accepted=None if check in UNUSABLE else accepted.get(check),
            )
        )

    splits, train = figures.splits, figures.splits["train"]
    named = "; ".join(anomalies[:_MOST_ANOMALIES])
    more = f"; and {len(anomalies) - _MOST_ANOMALIES:,} more" if len(anomalies) > _MOST_ANOMALIES else ""
    weigh("anomalies", len(anomalies), named + more or "none against the schema")

    reasons = [
        f"{count:,} in {split}: {reason}" for split, of in splits.items() for reason, count in of.undecodable.items()
    ]
    undecodable = sum(sum(of.undecodable.values()) for of in splits.values())
    weigh("undecodable", undecodable, "; ".join(reasons) or "every image decodes", "repair or remove these images")
    outside = sum(of.outside_labels for of in splits.values())
    weigh("outside_labels", outside, f"{outside:,} labels are not from 0 to {len(train.labels) - 1}")
    weigh("repeated_ids", figures.repeated_ids, f"{figures.repeated_ids:,} examples have the id of another")

    missing = [f"{name!r} in {split}" for split, of in splits.items() for name, count in of.labels.items() if not count]
    weigh(
        "missing_classes", len(missing), f"no image of {', '.join(missing[:5])}" if missing else "every class is there"
    )
    sides = {of.smallest_side: split for split, of in splits.items() if of.smallest_side is not None}
    if sides:
        smallest = min(sides)
        text = f"the smallest image has a side of {smallest} pixels, in {sides[smallest]}"
        weigh("image_side", smallest, text, "remove it, or lower the bound", "at least")

    for check, remark in REMARKS.items():
        counts = {split: of.remarks.get(check, 0) for split, of in splits.items()}
        marked = ", ".join(f"{count:,} in {split}" for split, count in counts.items() if count)
        weigh(check, sum(counts.values()), f"{marked}: {remark.text}: {remark.fix}" if marked else "no image")

    rare, common = (pick(train.labels, key=lambda name: train.labels[name]) for pick in (min, max))
    fewest, most = train.labels[rare], train.labels[common]
    weigh("class_examples", fewest, f"{rare!r} has {fewest:,} images in train", "add some", "at least")
    ratio = most / max(fewest, 1)
    weigh("imbalance", ratio, f"{common!r} has {ratio:.1f} times the images of {rare!r}, {most:,} against {fewest:,}")
    share = train.duplicates / max(train.images, 1)
    weigh("duplicates", share, f"{train.duplicates:,} images in train repeat an earlier one ({share:.4f})")

    conflicts = figures.conflicts
    text = "no picture has two labels"
    if conflicts.exact or conflicts.near:
        text = (
            f"labels contradict: {conflicts.exact + conflicts.near:,} images show a picture that also has another "
            f"label ({conflicts.exact:,} pixel by pixel, {conflicts.near:,} nearly)"
        )
    weigh("conflicting_labels", conflicts.exact + conflicts.near, text, "relabel or remove one image of each pair")

    leaks = figures.leaks
    fix = "prepare the data without them, or leave them out with --set data_gate.leave_out_leaks=true"
    without = f" ({left_out:,} examples are left out of training)" if left_out else ""
    exact = sum(leak.exact for leak in leaks)
    where = [f"{leak.exact:,} of {leak.target} in {leak.source}" for leak in leaks if leak.exact]
    weigh("exact_leaks", exact, f"images appear in two splits: {', '.join(where) or 'none'}{without}", fix)
    near = {leak: leak.near / splits[leak.target].images for leak in leaks}
    where = [f"{leak.near:,} of {leak.target} in {leak.source} ({near[leak]:.4f})" for leak in leaks if leak.near]
    text = f"nearly equal images appear in two splits: {', '.join(where) or 'none'}{without}"
    weigh("near_leaks", max(near.values(), default=0.0), text, fix)

    if previous is not None:
        drift = _drift(train, previous.splits["train"])
        if previous.image_size != figures.image_size:  # an image that is resized is another in all but its mean
            drift = [found for found in drift if found[0] != "drift_sharpness"]
        for check, value, text in drift:
            weigh(
                check, value, f"{text} since span {previous.span}", "look at what changed; --accept it if it is right"
            )
    return DataVerdict(
        figures=figures,
        previous_span=previous.span if previous else None,
        findings=found,
        left_out=left_out,
        accepted=accepted,
    )


def _drift(now: SplitFigures, before: SplitFigures) -> list[tuple[str, float, str]]:
    shares = {name: _shares(of.labels) for name, of in (("now", now), ("before", before))}
    changes = np.abs(shares["now"] - shares["before"])
    most = int(changes.argmax())
    name = list(now.labels)[most]
    colour = np.abs(np.subtract(now.mean, before.mean)) / np.maximum(before.spread, 1e-9)
    channel = int(colour.argmax())
    mix, brightness, sharpness, sizes = (
        _divergence(getattr(now, name), getattr(before, name))
        for name in ("labels", "brightness", "sharpness", "sides")
    )
    return [
        (
            "drift_labels_linf",
            float(changes[most]),
            f"the share of {name!r} went from {shares['before'][most]:.3f} to {shares['now'][most]:.3f}",
        ),
        ("drift_labels_js", mix, f"the classes' mix changed by {mix:.3f} bits"),
        (
            "drift_colour",
            float(colour[channel]),
            f"mean {('red', 'green', 'blue')[channel]} went from {before.mean[channel]:.1f} to {now.mean[channel]:.1f}",
        ),
        ("drift_brightness", brightness, f"brightness changed by {brightness:.3f} bits"),
        ("drift_sharpness", sharpness, f"sharpness changed by {sharpness:.3f} bits"),
        ("drift_sizes", sizes, f"image sizes changed by {sizes:.3f} bits"),
    ]


def _shares(histogram: list[int] | dict[str, int]) -> np.ndarray:
    counts = np.array(list(histogram.values() if isinstance(histogram, dict) else histogram), float)
    shares: np.ndarray = counts / max(counts.sum(), 1)
    return shares


def _divergence(now: list[int] | dict[str, int], before: list[int] | dict[str, int]) -> float:
    """Jensen-Shannon divergence of two histograms, in bits; 0 where one is empty."""
    first, second = _shares(now), _shares(before)
    if not first.any() or not second.any():
        return 0.0
    return float(jensenshannon(first, second, base=2) ** 2)
