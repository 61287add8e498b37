"""Time of one update of all weights of ViT-Tiny by each optimizer, of this project and of Keras.

    python benchmarks/optimizers.py [--rounds 20]

The gradients are random. Each update is one program, compiled by XLA as in the training step and also without XLA. The
optimizers take turns in each round, so that changes of the machine's load affect all of them.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median

import keras
import numpy as np
import record
import tensorflow as tf

from trainer.optimizer import build_optimizer
from trainer.vit import ViT

OPTIMIZERS: dict[str, Callable[[keras.Model], keras.optimizers.Optimizer]] = {
    "AdamW": lambda model: build_optimizer("adamw", model, 1e-3, weight_decay=0.05),
    "Muon": lambda model: build_optimizer("muon", model, 1e-3, weight_decay=0.05),
    "Muon of Keras": lambda _: keras.optimizers.Muon(1e-3, weight_decay=0.05, exclude_layers=["head"]),
}


def update(name: str, xla: bool) -> Callable[[], object]:
    """Return a compiled update of a new model by an optimizer.

    Args:
        name: Key of OPTIMIZERS.
        xla: Whether XLA compiles it.
    """
    keras.utils.set_random_seed(0)
    model = ViT(classes=10)
    optimizer = OPTIMIZERS[name](model)
    optimizer.build(model.trainable_variables)
    generator = np.random.default_rng(0)
    gradients = [
        tf.constant(generator.normal(size=variable.shape), tf.float32) for variable in model.trainable_variables
    ]

    @tf.function(jit_compile=xla)
    def run() -> None:
        optimizer.apply(gradients, model.trainable_variables)

    run()
    return run


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="number of rounds")
    args = parser.parse_args()
    updates = {(name, xla): update(name, xla) for name in OPTIMIZERS for xla in (True, False)}
    seconds: dict[tuple[str, bool], list[float]] = {key: [] for key in updates}
    for _ in range(args.rounds):
        for key, run in updates.items():
            begin = time.perf_counter()
            run()
            seconds[key].append(time.perf_counter() - begin)
    columns = ["optimizer", "ms with XLA", "ms without XLA"]
    rows = [[name, *(f"{median(seconds[name, xla]) * 1e3:.1f}" for xla in (True, False))] for name in OPTIMIZERS]
    for line in (columns, ["-"] * len(columns), *rows):
        print(f"| {' | '.join(line)} |")
    record.write("optimizers", columns, rows, note=f"Medians of {args.rounds} rounds.")


if __name__ == "__main__":
    main()
