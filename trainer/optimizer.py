"""AdamW, Muon, their learning rate schedule, gradient clipping and weight averaging, for any Keras backend."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Literal

import keras
from keras import ops


@keras.saving.register_keras_serializable("vitpipe")
class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Schedule of the learning rate: a linear warmup to the peak, then half a cosine down to the floor.

    The warmup starts at the rate `peak / warmup_steps`, because a step at rate 0 would be wasted. The last step has the
    rate `floor`.

    Args:
        peak: Highest learning rate.
        total_steps: Number of steps of the training.
        warmup_steps: Number of steps of the warmup, less than `total_steps`.
        floor: Learning rate of the last step.

    Raises:
        ValueError: If `warmup_steps` is negative, or not less than `total_steps`.
    """

    def __init__(self, peak: float, total_steps: int, warmup_steps: int, floor: float) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"warmup_steps {warmup_steps} must be from 0 to {total_steps - 1}, total_steps - 1")
        self.peak, self.total_steps, self.warmup_steps, self.floor = peak, total_steps, warmup_steps, floor

    def __call__(self, step: keras.KerasTensor | int) -> keras.KerasTensor:
        """Return the learning rate, float32, at a step counted from 0."""
        step = ops.cast(step, "float32") + 1.0
        rising = self.peak * step / max(self.warmup_steps, 1)
        progress = ops.clip((step - self.warmup_steps) / (self.total_steps - self.warmup_steps), 0.0, 1.0)
        falling = self.floor + (self.peak - self.floor) * 0.5 * (1.0 + ops.cos(math.pi * progress))
        return ops.where(step <= self.warmup_steps, rising, falling)

    def get_config(self) -> dict[str, float]:
        """Return the arguments that build this schedule."""
        return {
            "peak": self.peak,
            "total_steps": self.total_steps,
            "warmup_steps": self.warmup_steps,
            "floor": self.floor,
        }


def build_optimizer(
    name: Literal["adamw", "muon"],
    model: keras.Model,
    schedule: keras.optimizers.schedules.LearningRateSchedule,
    weight_decay: float,
    ema_momentum: float = 0.0,
) -> "ReducedAdamW":
    """Build AdamW (Loshchilov and Hutter, 2017) or Muon for a model.

    The optimizer expects gradients that are summed over the replicas and clipped.

    Args:
        name: Name of the optimizer.
        model: The model, already built.
        schedule: Learning rate at each step.
        weight_decay: Weight decay of matrices. Biases, LayerNorm, the CLS token and the positions have none.
        ema_momentum: Momentum of the moving average of the weights, which `finalize_variable_values` copies to a
            model. 0: no average.

    Returns:
        The optimizer, built for the model's trainable variables.
    """
    kind = Muon if name == "muon" else ReducedAdamW
    optimizer = kind(schedule, weight_decay=weight_decay, use_ema=ema_momentum > 0, ema_momentum=ema_momentum or 0.99)
    # Keras matches these against `variable.name`, which is the last part of its path.
    optimizer.exclude_from_weight_decay(var_names=["bias", "beta", "gamma", "cls", "positions"])
    optimizer.build(model.trainable_variables)
    return optimizer


class ReducedAdamW(keras.optimizers.AdamW):
    """Keras' AdamW for gradients that are already summed over the replicas of a distributed step.

    Keras itself would sum them after clipping, and the gradients would be clipped separately on each replica.
    """

    def _all_reduce_sum_gradients(
        self, grads_and_vars: Iterable[tuple[keras.KerasTensor, keras.Variable]]
    ) -> list[tuple[keras.KerasTensor, keras.Variable]]:
        return list(grads_and_vars)


class Muon(ReducedAdamW):
    """Muon for the matrices of the encoder blocks, and AdamW for all other weights.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon) replaces the momentum of a matrix by the
    nearest orthogonal matrix, so that an update changes all directions equally. The update is scaled as in Moonlight
    (Liu et al., 2025, https://arxiv.org/abs/2502.16982), so that the learning rate and weight decay of AdamW fit.

    Keras' own Muon updates one matrix at a time and treats a fused qkv kernel as one matrix. This class stacks matrices
    of equal shape, so that a few large products replace many small ones, and splits a qkv kernel into its three
    matrices. A matrix also has AdamW's second moment, which stays zero, so that all weights have the same variables.
    """

    momentum = 0.95
    scale = 0.2  # root mean square of an update at learning rate 1, close to that of AdamW

    def _backend_update_step(
        self,
        grads: Sequence[keras.KerasTensor],
        trainable_variables: Sequence[keras.Variable],
        learning_rate: keras.KerasTensor,
    ) -> None:
        grads = list(grads)
        stacks: dict[tuple[int, int], list[tuple[int, keras.KerasTensor]]] = defaultdict(list)
        momenta = {}
        for index, (gradient, variable) in enumerate(zip(grads, trainable_variables, strict=True)):
            if not _is_block_matrix(variable):
                continue
            old = self._momentums[self._get_variable_index(variable)]
            momenta[index] = old + (1 - self.momentum) * (gradient - old)
            # Nesterov's momentum looks one step ahead.
            ahead = gradient + self.momentum * (momenta[index] - gradient)
            for part in _matrices(variable, ahead):
                stacks[tuple(part.shape)].append((index, part))
        updates: dict[int, list[keras.KerasTensor]] = defaultdict(list)
        for shape, stack in stacks.items():
            orthogonal = orthogonalize(ops.stack([part for _, part in stack]))
            orthogonal = orthogonal * (self.scale * max(shape) ** 0.5)
            for (index, _), update in zip(stack, ops.unstack(orthogonal, num=len(stack)), strict=True):
                updates[index].append(update)
        for index, parts in updates.items():
            # Keras passes one array for each variable to `update_step`, on every replica. So momentum and update
            # are stacked into one array.
            update = parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=1)
            grads[index] = ops.stack([momenta[index], ops.reshape(update, momenta[index].shape)])
        super()._backend_update_step(grads, trainable_variables, learning_rate)

    def update_step(
        self, gradient: keras.KerasTensor, variable: keras.Variable, learning_rate: keras.KerasTensor
    ) -> None:
        """Update one variable.

        Args:
            gradient: Gradient of a variable that AdamW updates. For a matrix that Muon updates: its new momentum and
                its update, stacked along a new first axis.
            variable: The variable, which is changed.
            learning_rate: Learning rate of this step.
        """
        if len(gradient.shape) == len(variable.shape):
            super().update_step(gradient, variable, learning_rate)
            return
        self.assign(self._momentums[self._get_variable_index(variable)], gradient[0])
        self.assign_sub(variable, ops.cast(learning_rate, variable.dtype) * gradient[1])


def _is_block_matrix(variable: keras.Variable) -> bool:
    return "block_" in variable.path and variable.name == "kernel"


def _matrices(variable: keras.Variable, kernel: keras.KerasTensor) -> list[keras.KerasTensor]:
    """Return the matrices [inputs, outputs] of a kernel: three if it is a fused qkv kernel, else one."""
    matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
    return ops.split(matrix, 3, axis=1) if "/qkv/" in variable.path else [matrix]


def orthogonalize(matrices: keras.KerasTensor) -> keras.KerasTensor:
    """Approximate the nearest orthogonal matrix of each matrix in a stack.

    If the singular value decomposition of a matrix is U S V', its nearest orthogonal matrix is U V'. Five Newton-Schulz
    iterations with Jordan's coefficients bring the singular values to about 0.7 to 1.2.

    Args:
        matrices: Stack of matrices, float32 [N, rows, columns].

    Returns:
        float32 [N, rows, columns].
    """
    rows, columns = matrices.shape[1:]
    x = ops.swapaxes(matrices, 1, 2) if rows > columns else matrices
    x = x / (ops.sqrt(ops.sum(ops.square(x), axis=(1, 2), keepdims=True)) + 1e-7)
    for _ in range(5):
        square = ops.matmul(x, ops.swapaxes(x, 1, 2))
        x = 3.4445 * x + ops.matmul(-4.7750 * square + 2.0315 * ops.matmul(square, square), x)
    return ops.swapaxes(x, 1, 2) if rows > columns else x


def clip_by_global_norm(gradients: Sequence[keras.KerasTensor], limit: float = 1.0) -> list[keras.KerasTensor]:
    """Scale gradients by one common factor so that their global norm is at most `limit` (Pascanu et al., 2013).

    Args:
        gradients: Gradients of any shapes.
        limit: Largest Euclidean norm of all gradients together.

    Returns:
        The scaled gradients.
    """
    norm = ops.sqrt(sum(ops.sum(ops.square(gradient)) for gradient in gradients))
    scale = limit / ops.maximum(norm, limit)
    return [gradient * scale for gradient in gradients]


def ema_momentum(horizon_epochs: float, steps_per_epoch: int) -> float:
    """Compute the momentum of a moving average of weights from its horizon.

    Args:
        horizon_epochs: Number of epochs over which to average, approximately.
        steps_per_epoch: Number of steps of an epoch.

    Returns:
        The momentum; 0, which means no average, if the horizon is at most one step.
    """
    horizon = horizon_epochs * steps_per_epoch
    return 1.0 - 1.0 / horizon if horizon > 1 else 0.0
