"""Page of a model: its attention over many test images, and a test of whether rollout finds the decisive patches."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from components.errors import DataRefused
from pipeline.drawing import attention_maps, charts
from pipeline.drawing.document import document
from pipeline.drawing.explain_images import columns, views
from pipeline.explainable_model import Model
from trainer import explain
from trainer.settings import Group

PAGE, DATA = "model.html", "model.json"
SEEDS = 5  # random orders of each image
_STEPS = 16  # of a curve
_BATCH = 128  # images at a time
_COMPONENTS = 28  # of the filters, as many as the paper shows
_SURE = 1.96  # standard errors, 95 % of a normal distribution


class Curve(Group):
    """Deletion or insertion: the probability of the answer, mean over the images, in both orders of patches."""

    name: str
    rollout: list[float]  # at each of `Removal.shares`
    random: list[float]  # mean over the seeds, too
    rollout_area: float
    random_area: float
    random_areas: list[float]  # of each seed
    difference: float  # of the areas, rollout less random
    interval: tuple[float, float]  # of the difference, with 95 % confidence, over the images

    @property
    def verdict(self) -> str:
        low, high = self.interval if self.name == "insertion" else (-self.interval[1], -self.interval[0])
        return "better than chance" if low > 0 else "worse than chance" if high < 0 else "not to be told from chance"

    @property
    def line(self) -> str:
        random = f"{min(self.random_areas):.4f} to {max(self.random_areas):.4f}, {len(self.random_areas)} seeds"
        return (
            f"{self.name}: area {self.rollout_area:.4f} in rollout's order, {self.random_area:.4f} at random "
            f"({random}), difference "
            f"{self.difference:+.4f} ({self.interval[0]:+.4f} to {self.interval[1]:+.4f}): {self.verdict}"
        )


class Removal(Group):
    images: int
    baseline: tuple[int, int, int]  # the colour of a patch that is out
    shares: list[float]  # of the patches that were moved
    curves: list[Curve]


class AttentionFigures(Group):
    """Means over images; lists [depth][heads + 2] in the order of `columns`."""

    model: str
    data: str
    images: int
    accuracy: float
    columns: list[str]
    entropy: list[list[float]]  # bits
    most_entropy: float
    distance: list[list[float]]  # pixels
    even_distance: float  # of attention that is the same to all patches
    to_itself: list[list[float]] | None  # None without a CLS token
    removal: Removal | None


def measure(
    model: Model, data: str, encoded: Sequence[bytes], labels: Sequence[int], curves: int, tell: Callable[[str], None]
) -> AttentionFigures:
    """The figures over images (PNG or JPEG files), and deletion and insertion over the first `curves` of them, if any.

    data: where they are from; tell: takes what goes on. Images that do not decode are left out.
    Raises DataRefused where none does.
    """
    sums, seen, right = None, 0, 0
    pixels: list[np.ndarray] = []
    orders: list[np.ndarray] = []
    for start in range(0, len(encoded), _BATCH):
        tell(f"attention: {start:,} of {len(encoded):,} images")
        found = model.explain(encoded[start : start + _BATCH])
        shown = views(found.attention)
        maps = explain.patch_attention(shown)
        of_batch = np.stack(
            [
                explain.entropy(maps),
                explain.attention_distance(shown, model.patch_size),
                explain.cls_self_attention(shown),
            ]
        ).sum(1, dtype="float64")
        sums = of_batch if sums is None else sums + of_batch
        right += int((found.probabilities.argmax(1) == np.array(labels[start : start + _BATCH])[found.valid]).sum())
        seen += len(found.pixels)
        if sum(len(of) for of in pixels) < curves:
            pixels.append(found.pixels)
            orders.append(explain.rank_patches(maps[:, -1, -1]))  # rollout through all blocks
        heads, tokens = found.attention.shape[2:4]
    if sums is None or not seen:
        raise DataRefused(f"none of {len(encoded):,} test images of {data} decodes: name other data with --data")
    entropy, distance, to_itself = (sums / seen).tolist()
    grid, has_cls = explain.layout(tokens)
    removal = None
    if curves:
        removal = _removal(model, np.concatenate(pixels)[:curves], np.concatenate(orders)[:curves], tell)
    return AttentionFigures(
        model=str(model.path),
        data=data,
        images=seen,
        accuracy=right / seen,
        columns=columns(heads),
        entropy=entropy,
        most_entropy=float(np.log2(grid**2)),
        distance=distance,
        even_distance=float(explain.patch_distances(grid, model.patch_size).mean()),
        to_itself=to_itself if has_cls else None,
        removal=removal,
    )


def _removal(model: Model, images: np.ndarray, orders: np.ndarray, tell: Callable[[str], None]) -> Removal:
    baseline = np.round(images.mean((0, 1, 2))).astype("uint8")

    def answer(batch: np.ndarray) -> np.ndarray:
        parts = [model.answer(batch[start : start + _BATCH]) for start in range(0, len(batch), _BATCH)]
        return np.concatenate(parts)

    tell(f"deletion and insertion: rollout's order, {len(images):,} images")
    shares, *by_rollout = explain.removal_curves(images, orders, baseline, answer, _STEPS)
    by_chance = []
    for seed in range(SEEDS):
        tell(f"deletion and insertion: random order {seed + 1} of {SEEDS}, {len(images):,} images")
        shuffled = np.random.default_rng(seed).permuted(np.sort(orders, axis=1), axis=1)
        by_chance.append(explain.removal_curves(images, shuffled, baseline, answer, _STEPS)[1:])
    return Removal(
        images=len(images),
        baseline=tuple(baseline.tolist()),
        shares=shares.tolist(),
        curves=[
            _curve(name, shares, by_rollout[number], np.stack([of_seed[number] for of_seed in by_chance]))
            for number, name in enumerate(("deletion", "insertion"))
        ],
    )


def _curve(name: str, shares: np.ndarray, rollout: np.ndarray, random: np.ndarray) -> Curve:
    """Of rollout [images, steps + 1] and random [seeds, images, steps + 1]."""
    areas, random_areas = explain.area_under_curve(shares, rollout), explain.area_under_curve(shares, random)
    differences = areas - random_areas.mean(0)  # of the same images
    # One image bounds nothing; but no area of probabilities is outside of 0 to 1.
    error = differences.std(ddof=1) / len(differences) ** 0.5 if len(differences) > 1 else np.inf
    low, high = np.clip(differences.mean() + _SURE * error * np.array([-1, 1]), -1, 1)
    return Curve(
        name=name,
        rollout=rollout.mean(0).tolist(),
        random=random.mean((0, 1)).tolist(),
        rollout_area=areas.mean(),
        random_area=random_areas.mean(),
        random_areas=random_areas.mean(1).tolist(),
        difference=differences.mean(),
        interval=(low, high),
    )


def write(model: Model, figures: AttentionFigures, out: Path) -> Path:
    """The page, its pictures as PNG files and the figures as JSON. Gives the page."""
    out.mkdir(parents=True, exist_ok=True)
    drawn, parameters = {}, _parameters(model)
    for name, (picture, _) in parameters.items():
        picture.save(out / f"{name}.png")
        drawn[name] = attention_maps.data_uri(picture)
    (out / DATA).write_text(figures.model_dump_json(indent=1) + "\n", "utf-8")
    removal, names = figures.removal, figures.columns
    text = document(
        Path(__file__).with_suffix(".html"),
        model=model,
        figures=figures,
        tables=_tables(figures),
        drawn=drawn,
        shown_share={name: share for name, (_, share) in parameters.items()},
        charts=[
            charts.by_block(
                "Mean attention distance", "pixels", figures.columns, figures.distance, figures.even_distance
            ),
            charts.by_block("Entropy", "bits", names, figures.entropy, figures.most_entropy),
        ],
        removals=[charts.removal(one.name, removal.shares, one.rollout, one.random) for one in removal.curves]
        if removal
        else [],
    )
    page = out / PAGE
    page.write_text(text, "utf-8")
    return page


def _parameters(model: Model) -> dict[str, tuple[Image.Image, float]]:
    """Pictures of the weights by name, and how much of them each shows; empty without the Keras model."""
    found = {}
    if model.vit is not None:
        positions = np.asarray(model.vit.tokens.positions, "float32")[0]
        found["positions"] = attention_maps.similarities(explain.position_similarity(positions)), 1.0
        if not model.vit.config["conv_stem"]:
            components, shares = explain.filter_components(np.asarray(model.vit.patches.kernel, "float32"))
            shown = components[:_COMPONENTS]
            found["filters"] = attention_maps.filters(shown), float(shares[: len(shown)].sum())
    return found


def _tables(figures: AttentionFigures) -> list[dict[str, Any]]:
    made = [
        {
            "title": "Entropy, bits",
            "about": f"0: one patch; {figures.most_entropy:.2f}: all evenly.",
            "rows": figures.entropy,
            "most": figures.most_entropy,
            "digits": 2,
        },
        {
            "title": "Mean attention distance, pixels",
            "about": f"0: each patch itself; {figures.even_distance:.1f}: all evenly.",
            "rows": figures.distance,
            "most": 2 * figures.even_distance,
            "digits": 1,
        },
    ]
    if figures.to_itself is not None:
        made.append(
            {
                "title": "What CLS takes from itself",
                "about": "Of 1, and so from no patch.",
                "rows": figures.to_itself,
                "most": 1,
                "digits": 3,
            }
        )
    return made
