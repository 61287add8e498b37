"""AdamW, its schedule, gradient clipping and weight averaging. Keras 3 only, so it runs on any Keras backend."""

import math
from collections.abc import Iterable, Sequence

import keras
from keras import ops


@keras.saving.register_keras_serializable("vitpipe")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Learning rate at a step: linear from peak/warmup_steps up to `peak`, then a half cosine down to `floor`.

    The first step already learns (a rate of zero would waste it), and the last of `total_steps` reaches the floor.
    """

    def __init__(self, peak: float, total_steps: int, warmup_steps: int, floor: float):
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"warmup_steps {warmup_steps} must lie within 0 and total_steps {total_steps} - 1")
        self.peak, self.total_steps, self.warmup_steps, self.floor = peak, total_steps, warmup_steps, floor

    def __call__(self, step: keras.KerasTensor | int) -> keras.KerasTensor:
        step = ops.cast(step, "float32") + 1.0
        rising = self.peak * step / max(self.warmup_steps, 1)
        progress = ops.clip((step - self.warmup_steps) / (self.total_steps - self.warmup_steps), 0.0, 1.0)
        falling = self.floor + (self.peak - self.floor) * 0.5 * (1.0 + ops.cos(math.pi * progress))
        return ops.where(step <= self.warmup_steps, rising, falling)

    def get_config(self) -> dict[str, float]:
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "floor": self.floor,
        }


def adamw(
    model: keras.Model,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float,
    ema_momentum: float = 0.0,
) -> "ReducedAdamW":
    """AdamW (Loshchilov and Hutter, 2017) for a built `model`, with a moving average of the weights.

    Decay applies to matrices only: not to biases, LayerNorm, the CLS token or the positions. The average is read with
    `finalize_variable_values`; without momentum there is none. Gradients come in summed over replicas and clipped.
    """
    optimizer = ReducedAdamW(
        schedule, weight_decay=weight_decay, use_ema=ema_momentum > 0, ema_momentum=ema_momentum or 0.99
    )
    # Keras matches these against `variable.name`, which is the last part of its path.
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma", "cls", "positions"])
    optimizer.build(model.trainable_variables)
    return optimizer


class ReducedAdamW(keras.optimizers.AdamW):
    """Keras' AdamW for gradients that are already summed over the replicas of a distributed step.

    Keras would sum them itself, but only after clipping, so that the bound would hold for each replica alone.
    """

    def _all_reduce_sum_gradients(
        self, grads_and_vars: Iterable[tuple[keras.KerasTensor, keras.Variable]]
    ) -> list[tuple[keras.KerasTensor, keras.Variable]]:
        return list(grads_and_vars)


def clip_by_global_norm(gradients: Sequence[keras.KerasTensor], limit: float = 1.0) -> list[keras.KerasTensor]:
    """The gradients, scaled together so that their common norm is at most `limit` (Pascanu et al., 2013)."""
    norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))
    scale = limit / ops.maximum(norm, limit)
    return [gradient * scale for gradient in gradients]


def ema_momentum(horizon_epochs: float, steps_per_epoch: int) -> float:
    """Momentum of a moving average that looks back over about `horizon_epochs`; 0 for a horizon of none."""
    horizon = horizon_epochs * steps_per_epoch
    return 1.0 - 1.0 / horizon if horizon > 1 else 0.0
