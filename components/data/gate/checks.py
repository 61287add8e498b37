"""Checks of a span's statistics against the bounds of the data gate. Imports no TFX."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.spatial.distance import jensenshannon

from components.data.gate.bounds import UNUSABLE, Bound, DataGateSettings, Finding, Level
from components.data.ingest.images import REMARKS
from components.data.labels.suspects import LabelFigures
from components.data.statistics.figures import ImageFigures, SplitFigures
from trainer.settings import Group

Histogram = Sequence[int] | dict[str, int]

_MAX_ANOMALIES = 20  # listed in a finding, because ML Metadata stores its text and several pages show it


class DataVerdict(Group):
    """Decision of the data gate, with everything that it is based on."""

    figures: ImageFigures
    previous_span: int | None  # the span that drift was measured against
    findings: list[Finding]
    left_out: int  # examples that are left out of training and selection; the figures do not count them by label
    accepted: dict[str, str]  # a person's reason for each accepted check

    @property
    def passed(self) -> bool:
        """True if training may start."""
        return not self.findings_at("stop")

    def findings_at(self, level: Level) -> list[Finding]:
        """Return the findings of one level of severity."""
        return [finding for finding in self.findings if finding.level == level]


def judge(
    settings: DataGateSettings,
    figures: ImageFigures,
    anomalies: list[str],
    previous: ImageFigures | None = None,
    accepted: dict[str, str] | None = None,
    left_out: int = 0,
    examples: dict[str, list[str]] | None = None,
    labels: LabelFigures | None = None,
) -> DataVerdict:
    """Check a span against the bounds, and measure its drift since an earlier span.

    Args:
        settings: the bounds.
        figures: statistics of the span, without the examples that are left out.
        anomalies: descriptions of TFDV's anomalies.
        previous: statistics of the newest earlier span that passed; without them drift is not checked.
        accepted: a person's reason for each check that must not stop this run.
        left_out: number of examples that are left out of training because they leak.
        examples: names of the first affected images for each check.
        labels: figures of the label check; without them the share of wrong labels is not checked.

    Returns:
        The verdict, with a finding for each check.
    """
    accepted, examples = accepted or {}, examples or {}
    findings: list[Finding] = []

    def add(
        check: str, value: float, text: str, fix: str = "", sense: Literal["at most", "at least"] = "at most"
    ) -> None:
        bound = Bound(stop=0) if check in UNUSABLE else getattr(settings, check)
        findings.append(
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
    named = "; ".join(anomalies[:_MAX_ANOMALIES])
    more = f"; and {len(anomalies) - _MAX_ANOMALIES:,} more" if len(anomalies) > _MAX_ANOMALIES else ""
    add("anomalies", len(anomalies), named + more or "no violation of the schema")

    reasons = [
        f"{count:,} in {split}: {reason}"
        for split, measured in splits.items()
        for reason, count in measured.undecodable.items()
    ]
    undecodable = sum(sum(measured.undecodable.values()) for measured in splits.values())
    add("undecodable", undecodable, "; ".join(reasons) or "every image decodes", "repair or remove these images")
    outside = sum(measured.outside_labels for measured in splits.values())
    allowed = f"from 0 to {len(train.labels) - 1}"
    text = f"{outside:,} labels are not {allowed}" if outside else f"every label is {allowed}"
    add("outside_labels", outside, text)
    repeated = figures.repeated_ids
    text = f"{repeated:,} examples have the id of an earlier example" if repeated else "no example repeats an id"
    add("repeated_ids", repeated, text)

    missing = [
        f"{name!r} in {split}"
        for split, measured in splits.items()
        for name, count in measured.labels.items()
        if not count
    ]
    text = f"no image of {', '.join(missing[:5])}" if missing else "every class has images in every split"
    add("missing_classes", len(missing), text)
    sides = {measured.smallest_side: split for split, measured in splits.items() if measured.smallest_side is not None}
    if sides:
        smallest = min(sides)
        text = f"the smallest image has a side of {smallest} pixels, in {sides[smallest]}"
        add("image_side", smallest, text, "remove such images, or lower data_gate.image_side.stop", "at least")

    for check, remark in REMARKS.items():
        counts = {split: measured.remarks.get(check, 0) for split, measured in splits.items()}
        marked = ", ".join(f"{count:,} in {split}" for split, count in counts.items() if count)
        add(check, sum(counts.values()), f"{marked}: {remark.text}: {remark.fix}" if marked else "no image is affected")

    rare = min(train.labels, key=lambda name: train.labels[name])
    common = max(train.labels, key=lambda name: train.labels[name])
    fewest, most = train.labels[rare], train.labels[common]
    add("class_examples", fewest, f"{rare!r} has {fewest:,} images in train", "add images of this class", "at least")
    ratio = most / max(fewest, 1)
    add("imbalance", ratio, f"{common!r} has {ratio:.1f} times the images of {rare!r}, {most:,} against {fewest:,}")
    share = train.duplicates / max(train.images, 1)
    add("duplicates", share, f"{train.duplicates:,} images in train repeat an earlier image ({share:.4f})")

    conflicts = figures.conflicts
    text = "no image also appears with another label"
    if conflicts.exact or conflicts.near:
        text = (
            f"labels contradict: {conflicts.exact + conflicts.near:,} images also appear with another label "
            f"({conflicts.exact:,} equal, {conflicts.near:,} nearly equal)"
        )
    add("conflicting_labels", conflicts.exact + conflicts.near, text, "relabel or remove one image of each pair")

    if labels is not None and labels.problem:
        text = f"the labels were not checked, so that all may be wrong: {labels.problem}"
        fix = "prepare the data again with more images of each class, or remove the bound data_gate.wrong_labels"
        add("wrong_labels", 1, text, fix)
    elif labels is not None:
        text = (
            f"about {labels.wrong:.4f} of the labels are wrong, by the estimate of confident learning; a ViT that was "
            f"not trained on an image predicts its label for {labels.accuracy:.4f} of the images"
        )
        if labels.too_small:
            first = ", ".join(map(repr, labels.too_small[:5]))
            text += f"; classes with too few images for the estimate: {len(labels.too_small):,} (first: {first})"
        fix = (
            "look through `vitpipe data suspects last`, and prepare the data again with `--decisions` "
            "(those about test images take effect when data.gate_span is the new span), or raise label_check.epochs, "
            "because a better ViT estimates better"
        )
        add("wrong_labels", labels.wrong, text, fix)

    leaks = figures.leaks
    fix = "prepare the data without them, or leave them out with --set data_gate.leave_out_leaks=true"
    without = f" ({left_out:,} examples are left out of training)" if left_out else ""
    exact = sum(leak.exact for leak in leaks)
    where = [f"{leak.exact:,} of {leak.target} in {leak.source}" for leak in leaks if leak.exact]
    text = f"images appear in two splits: {', '.join(where)}" if where else "no image appears in two splits"
    add("exact_leaks", exact, text + without, fix)
    near = {leak: leak.near / splits[leak.target].images for leak in leaks}
    where = [f"{leak.near:,} of {leak.target} in {leak.source} ({near[leak]:.4f})" for leak in leaks if leak.near]
    text = "no nearly equal images appear in two splits"
    if where:
        text = f"nearly equal images appear in two splits: {', '.join(where)}"
    add("near_leaks", max(near.values(), default=0.0), text + without, fix)

    if previous is not None:
        rows = drift(train, previous.splits["train"])
        # What is measured on the model's input cannot be compared if the input is made in another way.
        incomparable = {"drift_sharpness"} if previous.image_size != figures.image_size else set()
        if (previous.resize, previous.background) != (figures.resize, figures.background):
            incomparable |= {"drift_sharpness", "drift_colour", "drift_brightness"}
        for check, value, text in (row for row in rows if row[0] not in incomparable):
            fix = f'find out what changed; if the change is intended, pass --accept {check} --reason "..."'
            add(check, value, f"{text} since span {previous.span}", fix)
    return DataVerdict(
        figures=figures,
        previous_span=previous.span if previous else None,
        findings=findings,
        left_out=left_out,
        accepted=accepted,
    )


def drift(now: SplitFigures, before: SplitFigures) -> list[tuple[str, float, str]]:
    """Measure how images and labels changed.

    Args:
        now: statistics of the newer images.
        before: statistics of the earlier images, with the same classes.

    Returns:
        The name, value and description of each drift check.
    """
    shares_now, shares_before = _shares(now.labels), _shares(before.labels)
    changes = np.abs(shares_now - shares_before)
    most = int(changes.argmax())
    name = list(now.labels)[most]
    colour = np.abs(np.subtract(now.mean, before.mean)) / np.maximum(before.spread, 1e-9)
    channel = int(colour.argmax())
    mix, brightness, sharpness, sizes = (
        divergence(getattr(now, name), getattr(before, name)) for name in ("labels", "brightness", "sharpness", "sides")
    )
    return [
        (
            "drift_labels_linf",
            float(changes[most]),
            f"the share of {name!r} went from {shares_before[most]:.3f} to {shares_now[most]:.3f}",
        ),
        ("drift_labels_js", mix, f"the distribution of labels changed by {mix:.3f} bits"),
        (
            "drift_colour",
            float(colour[channel]),
            f"mean {('red', 'green', 'blue')[channel]} went from {before.mean[channel]:.1f} to {now.mean[channel]:.1f}",
        ),
        ("drift_brightness", brightness, f"brightness changed by {brightness:.3f} bits"),
        ("drift_sharpness", sharpness, f"sharpness changed by {sharpness:.3f} bits"),
        ("drift_sizes", sizes, f"image sizes changed by {sizes:.3f} bits"),
    ]


def _shares(histogram: Histogram) -> np.ndarray:
    counts = np.array(list(histogram.values() if isinstance(histogram, dict) else histogram), float)
    shares: np.ndarray = counts / max(counts.sum(), 1)
    return shares


def divergence(now: Histogram, before: Histogram) -> float:
    """Return the Jensen-Shannon divergence of two histograms in bits, or 0 if one of them is empty.

    Args:
        now: number of images in each bin.
        before: number of images in the same bins.
    """
    first, second = _shares(now), _shares(before)
    if not first.any() or not second.any():
        return 0.0
    return float(jensenshannon(first, second, base=2) ** 2)
