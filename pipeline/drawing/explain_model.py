"""Page that shows a model's attention over many test images, and tests whether rollout finds the decisive patches."""

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
SEEDS = 5  # number of random orders for each image
_STEPS = 16  # steps of a curve
_BATCH = 128  # images in one call of the model
_COMPONENTS = 28  # principal components of the filters, as many as the ViT paper shows
_STANDARD_ERRORS = 1.96  # for 95 % confidence in a normal distribution


class Curve(Group):
    """Probability of the answer during a deletion or an insertion, as a mean over the images.

    The area under the curve is small in a deletion, and large in an insertion, if the decisive patches come first.
    """

    name: str  # deletion or insertion
    rollout: list[float]  # probability at each of `Removal.shares`, in the order of rollout
    random: list[float]  # probability at each share in random order, as a mean over the seeds
    rollout_area: float
    random_area: float
    random_areas: list[float]  # area of each seed
    difference: float  # rollout_area minus random_area
    interval: tuple[float, float]  # 95 % confidence interval of the difference, over the images

    @property
    def verdict(self) -> str:
        """Comparison of rollout with random orders, in words."""
        low, high = self.interval if self.name == "insertion" else (-self.interval[1], -self.interval[0])
        return (
            "better than chance" if low > 0 else "worse than chance" if high < 0 else "not distinguishable from chance"
        )

    @property
    def line(self) -> str:
        """Summary of the curve in one line."""
        random = f"{min(self.random_areas):.4f} to {max(self.random_areas):.4f}, {len(self.random_areas)} seeds"
        return (
            f"{self.name}: area {self.rollout_area:.4f} in the order of rollout, {self.random_area:.4f} at random "
            f"({random}), difference "
            f"{self.difference:+.4f} ({self.interval[0]:+.4f} to {self.interval[1]:+.4f}): {self.verdict}"
        )


class Removal(Group):
    """Deletion and insertion of patches in test images."""

    images: int
    baseline: tuple[int, int, int]  # colour of a deleted patch: red, green, blue
    shares: list[float]  # shares of the patches that have been deleted or inserted
    curves: list[Curve]


class AttentionFigures(Group):
    """Means over test images. Lists are [depth][heads + 2], in the order of `columns`."""

    model: str
    data: str
    images: int
    accuracy: float
    columns: list[str]
    entropy: list[list[float]]  # bits
    most_entropy: float
    distance: list[list[float]]  # pixels
    even_distance: float  # distance of even attention to all patches
    to_itself: list[list[float]] | None  # None without a CLS token
    removal: Removal | None


def measure(
    model: Model,
    data: str,
    encoded: Sequence[bytes],
    labels: Sequence[int],
    curves: int,
    progress: Callable[[str], None],
) -> AttentionFigures:
    """Measure the attention of a model over test images. Images that do not decode are left out.

    Args:
        model: the model.
        data: name of the data, for the page.
        encoded: PNG or JPEG files.
        labels: class index of each image.
        curves: number of images, from the first one on, for deletion and insertion; 0 for none.
        progress: called with a description of what is being measured.

    Raises:
        DataRefused: if no image decodes.
    """
    sums, seen, correct = None, 0, 0
    pixels: list[np.ndarray] = []
    orders: list[np.ndarray] = []
    for start in range(0, len(encoded), _BATCH):
        progress(f"attention: {start:,} of {len(encoded):,} images")
        explanation = model.explain(encoded[start : start + _BATCH])
        all_views = views(explanation.attention)
        maps = explain.patch_attention(all_views)
        of_batch = np.stack(
            [
                explain.entropy(maps),
                explain.attention_distance(all_views, model.patch_size),
                explain.cls_self_attention(all_views),
            ]
        ).sum(1, dtype="float64")
        sums = of_batch if sums is None else sums + of_batch
        correct += int(
            (explanation.probabilities.argmax(1) == np.array(labels[start : start + _BATCH])[explanation.valid]).sum()
        )
        seen += len(explanation.pixels)
        if sum(map(len, pixels)) < curves:
            pixels.append(explanation.pixels)
            orders.append(explain.rank_patches(maps[:, -1, -1]))  # rollout through all blocks
        heads, tokens = explanation.attention.shape[2:4]
    if sums is None or not seen:
        raise DataRefused(f"none of {len(encoded):,} test images of {data} decodes: name other data with --data")
    entropy, distance, to_itself = (sums / seen).tolist()
    grid, has_cls = explain.layout(tokens)
    removal = None
    if curves:
        removal = _removal(model, np.concatenate(pixels)[:curves], np.concatenate(orders)[:curves], progress)
    return AttentionFigures(
        model=str(model.path),
        data=data,
        images=seen,
        accuracy=correct / seen,
        columns=columns(heads),
        entropy=entropy,
        most_entropy=float(np.log2(grid**2)),
        distance=distance,
        even_distance=float(explain.patch_distances(grid, model.patch_size).mean()),
        to_itself=to_itself if has_cls else None,
        removal=removal,
    )


def _removal(model: Model, images: np.ndarray, orders: np.ndarray, progress: Callable[[str], None]) -> Removal:
    baseline = np.round(images.mean((0, 1, 2))).astype("uint8")

    def answer(batch: np.ndarray) -> np.ndarray:
        parts = [model.answer(batch[start : start + _BATCH]) for start in range(0, len(batch), _BATCH)]
        return np.concatenate(parts)

    progress(f"deletion and insertion: order of rollout, {len(images):,} images")
    shares, *by_rollout = explain.removal_curves(images, orders, baseline, answer, _STEPS)
    random_curves = []
    for seed in range(SEEDS):
        progress(f"deletion and insertion: random order {seed + 1} of {SEEDS}, {len(images):,} images")
        shuffled = np.random.default_rng(seed).permuted(np.sort(orders, axis=1), axis=1)
        random_curves.append(explain.removal_curves(images, shuffled, baseline, answer, _STEPS)[1:])
    return Removal(
        images=len(images),
        baseline=tuple(baseline.tolist()),
        shares=shares.tolist(),
        curves=[
            _curve(name, shares, by_rollout[number], np.stack([curves[number] for curves in random_curves]))
            for number, name in enumerate(("deletion", "insertion"))
        ],
    )


def _curve(name: str, shares: np.ndarray, rollout: np.ndarray, random: np.ndarray) -> Curve:
    """Return the curve for the probabilities rollout [images, steps + 1] and random [seeds, images, steps + 1]."""
    areas, random_areas = explain.area_under_curve(shares, rollout), explain.area_under_curve(shares, random)
    differences = areas - random_areas.mean(0)  # differences between areas of the same image
    # A single image gives no interval, except that areas of probabilities are between 0 and 1.
    error = differences.std(ddof=1) / len(differences) ** 0.5 if len(differences) > 1 else np.inf
    low, high = np.clip(differences.mean() + _STANDARD_ERRORS * error * np.array([-1, 1]), -1, 1)
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
    """Write the page, its pictures as PNG files and the figures as JSON.

    Args:
        model: the model.
        figures: the figures, from `measure`.
        out: folder to write to.

    Returns:
        Path of the page.
    """
    out.mkdir(parents=True, exist_ok=True)
    pictures, parameters = {}, _parameters(model)
    for name, (picture, _) in parameters.items():
        picture.save(out / f"{name}.png")
        pictures[name] = attention_maps.data_uri(picture)
    (out / DATA).write_text(figures.model_dump_json(indent=1) + "\n", "utf-8")
    removal, names = figures.removal, figures.columns
    text = document(
        Path(__file__).with_suffix(".html"),
        model=model,
        figures=figures,
        tables=_tables(figures),
        drawn=pictures,
        shown_share={name: share for name, (_, share) in parameters.items()},
        charts=[
            charts.by_block(
                "Mean attention distance", "pixels", figures.columns, figures.distance, figures.even_distance
            ),
            charts.by_block("Entropy", "bits", names, figures.entropy, figures.most_entropy),
        ],
        removals=[charts.removal(curve.name, removal.shares, curve.rollout, curve.random) for curve in removal.curves]
        if removal
        else [],
    )
    page = out / PAGE
    page.write_text(text, "utf-8")
    return page


def _parameters(model: Model) -> dict[str, tuple[Image.Image, float]]:
    """Return pictures of the weights by name, each with the share of the variance that it shows.

    It is empty without the Keras model.
    """
    pictures = {}
    if model.vit is not None:
        positions = np.asarray(model.vit.tokens.positions, "float32")[0]
        pictures["positions"] = attention_maps.similarities(explain.position_similarity(positions)), 1.0
        if not model.vit.config["conv_stem"]:
            components, shares = explain.filter_components(np.asarray(model.vit.patches.kernel, "float32"))
            strongest = components[:_COMPONENTS]
            pictures["filters"] = attention_maps.filters(strongest), float(shares[: len(strongest)].sum())
    return pictures


def _tables(figures: AttentionFigures) -> list[dict[str, Any]]:
    made = [
        {
            "title": "Entropy, bits",
            "about": f"0: attention to a single patch. {figures.most_entropy:.2f}: even attention to all patches.",
            "rows": figures.entropy,
            "most": figures.most_entropy,
            "digits": 2,
        },
        {
            "title": "Mean attention distance, pixels",
            "about": f"0: each patch attends to itself only. {figures.even_distance:.1f}: even attention to all.",
            "rows": figures.distance,
            "most": 2 * figures.even_distance,
            "digits": 1,
        },
    ]
    if figures.to_itself is not None:
        made.append(
            {
                "title": "Attention of CLS to itself",
                "about": "The rest, up to 1, is its attention to the patches.",
                "rows": figures.to_itself,
                "most": 1,
                "digits": 3,
            }
        )
    return made
