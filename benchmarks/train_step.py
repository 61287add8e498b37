"""Images per second of training steps of ViT-Tiny on this CPU, for this project, the article and PyTorch.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --torch-python ../torch/bin/python --batch 128 --rounds 5

ViT-Tiny has 6 blocks, width 256, 4 heads and patches of 4x4 pixels, and its images have 32x32 pixels. A step is a
forward pass, a backward pass and AdamW. "ours" (this project) and PyTorch clip the gradients, and have no dropout and
no augmentation. The article's step is called through `model.fit`, with its dropout of 0.1 and without dropout. "ours"
computes only the CLS token in the last block, which results in the same logits; "PyTorch, CLS alone" does the same.

Each contender has its own process and waits while another one computes. Rounds alternate, and medians are printed.
GFLOP/s count what a contender computes, which is 1.92 GFLOP for an image if it computes every token. "of peak" is the
share of the GFLOP/s of a large float32 matrix product in the same rounds.

PyTorch takes part if this Python, or that of --torch-python, has it. bfloat16 is measured if the CPU has instructions
for it. `--contenders` selects contenders, also those that do not take part by default.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import record
from flops import training_flops

sys.path.append(str(Path(__file__).parent.parent))  # `trainer`, for an interpreter without vitpipe

WHOLE = training_flops(whole=True)
SIZE, CLASSES = 32, 10

Run = Callable[[int], object]  # runs a number of steps
Prepare = Callable[[int], Run]  # prepares a contender for a batch size


def article(dropout: float) -> Prepare:
    """Return a contender with the article's model and training step."""

    def prepare(batch: int) -> Run:
        import article
        import tensorflow as tf

        model = article.vit(dropout=dropout)
        article.compile_recipe(model, total_steps=100_000)
        images, labels = random_batch(batch)
        one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
        data = tf.data.Dataset.from_tensors((images.astype(np.float32) / 255, one_hot)).repeat()
        return lambda steps: model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)

    return prepare


def ours(precision: str, augmented: bool = False) -> Prepare:
    """Return a contender with this project's model and training step.

    Args:
        precision: Keras dtype policy of the model.
        augmented: Whether images are augmented.

    Returns:
        The contender.
    """

    def prepare(batch: int) -> Run:
        import keras
        import tensorflow as tf

        from trainer.input import Split
        from trainer.learner import Learner
        from trainer.optimizer import WarmupCosine
        from trainer.settings import AugmentSettings, TrainingSettings
        from trainer.vit import ViT

        training = TrainingSettings(batch_size=batch, ema_epochs=0)
        all_off = {"crop_padding": 0, "flip": False, "randaugment_ops": 0, "mixup": 0, "cutmix": 0, "erase": 0}
        augmentation = AugmentSettings(**{} if augmented else all_off)
        learner = Learner(
            lambda: ViT(dtype=keras.DTypePolicy(precision)),
            10,
            WarmupCosine(1e-3, 100_000, 5_000, 1e-5),
            training,
            augmentation,
            SIZE,
            1,
            tf.distribute.get_strategy(),
        )
        batches = learner.batches(Split(*random_batch(batch)), first_epoch=0)
        return lambda steps: list(learner.train(batches, steps, mixing=augmented))

    return prepare


def pytorch(bfloat16: bool = False, compiled: bool = False, cls_alone: bool = False) -> Prepare:
    """Return a contender with the same model in PyTorch.

    Args:
        bfloat16: Whether to compute in bfloat16.
        compiled: Whether to use `torch.compile`.
        cls_alone: Whether to compute only the CLS token in the last block.

    Returns:
        The contender.
    """

    def prepare(batch: int) -> Run:
        import torch
        from torch import nn
        from torch.nn import functional

        class Block(nn.Module):
            def __init__(self, width: int, heads: int) -> None:
                super().__init__()
                self.heads = heads
                self.attention_norm, self.mlp_norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
                self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
                self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

            def forward(self, x: torch.Tensor, first_only: bool = False) -> torch.Tensor:
                n, tokens, width = x.shape
                qkv = self.qkv(self.attention_norm(x)).view(n, tokens, 3, self.heads, width // self.heads)
                q, k, v = qkv.permute(2, 0, 3, 1, 4)
                if first_only:
                    x, q = x[:, :1], q[:, :, :1]
                attended = functional.scaled_dot_product_attention(q, k, v)
                x = x + self.projection(attended.transpose(1, 2).reshape(x.shape))
                return x + self.mlp(self.mlp_norm(x))

        class ViT(nn.Module):
            def __init__(self, patch: int = 4, width: int = 256, heads: int = 4, depth: int = 6) -> None:
                super().__init__()
                self.patches = nn.Conv2d(3, width, patch, patch)
                self.cls = nn.Parameter(torch.zeros(1, 1, width))
                self.positions = nn.Parameter(0.02 * torch.randn(1, (SIZE // patch) ** 2 + 1, width))
                self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
                self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, CLASSES)

            def forward(self, images: torch.Tensor) -> torch.Tensor:
                x = self.patches((images.float() - 127.5) / 127.5).flatten(2).transpose(1, 2)
                x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.positions
                for block in self.blocks[:-1]:
                    x = block(x)
                return self.head(self.norm(self.blocks[-1](x, first_only=cls_alone)[:, 0]))

        model = ViT()
        forward = torch.compile(model) if compiled else model
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05, fused=True)
        images, labels = (torch.from_numpy(array) for array in random_batch(batch))
        images = images.permute(0, 3, 1, 2).contiguous()

        def run(steps: int) -> None:
            for _ in range(steps):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    loss = functional.cross_entropy(forward(images).float(), labels, label_smoothing=0.1)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()

        return run

    return prepare


def matrix_product(batch: int) -> Run:
    """Prepare a contender that multiplies matrices, with about as many operations as a step of the others."""
    import tensorflow as tf

    size = 2048
    matrix = tf.random.normal((size, size))
    products = max(1, round(batch * WHOLE / (2 * size**3)))
    multiply = tf.function(tf.matmul)

    def run(steps: int) -> None:
        for _ in range(steps * products):
            result = multiply(matrix, matrix)
        result.numpy()

    run.images = products * 2 * size**3 / WHOLE
    return run


CONTENDERS = {
    "matrix product": matrix_product,
    "article": article(0.1),
    "article, no dropout": article(0.0),
    "ours": ours("float32"),
    "ours, augmented": ours("float32", augmented=True),
    "ours, bfloat16": ours("mixed_bfloat16"),
    "PyTorch": pytorch(),
    "PyTorch, CLS alone": pytorch(cls_alone=True),
    "PyTorch, compiled": pytorch(compiled=True),
    "PyTorch, bfloat16": pytorch(bfloat16=True),
}


def main() -> None:
    """Measure all contenders and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128, help="images of a step")
    parser.add_argument("--steps", type=int, default=3, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds")
    parser.add_argument("--torch-python", default=sys.executable, help="Python interpreter that has torch")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    # The script starts itself with --serve, to run each contender in its own process.
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.batch, args.steps)
        return
    names = args.contenders or supported(args.torch_python)
    processes = {name: start(name, args) for name in names}
    for name in [*names]:  # a contender writes its first line after compilation, which is not timed
        if not answer(processes[name]):
            print(f"{name}: left out, because its process ended before the first step")
            names.remove(name)
    seconds = {name: [] for name in names}
    for _ in range(args.rounds):
        for name in names:
            processes[name].stdin.write("go\n")
            processes[name].stdin.flush()
            seconds[name].append(float(answer(processes[name])))
    for process in processes.values():
        process.stdin.close()
        process.wait()
    report({name: args.batch * args.steps / median(values) for name, values in seconds.items()})


def supported(torch_python: str) -> list[str]:
    """Return the contenders that this machine supports, and print why others are left out."""
    names = list(CONTENDERS)
    if subprocess.run([torch_python, "-c", "import torch"], capture_output=True).returncode:
        print(f"PyTorch: left out, because {torch_python} has no torch; set --torch-python to one that has it")
        names = [name for name in names if not name.startswith("PyTorch")]
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or not {"avx512_bf16", "amx_bf16"} & set(cpuinfo.read_text().split()):
        print("bfloat16: left out, because this CPU has no instructions for it (avx512_bf16, amx_bf16)")
        names = [name for name in names if not name.endswith("bfloat16")]
    return names


def start(name: str, args: argparse.Namespace) -> subprocess.Popen[str]:
    """Start the process of a contender.

    Args:
        name: Name of the contender.
        args: Arguments of this script.

    Returns:
        The process.
    """
    python = args.torch_python if name.startswith("PyTorch") else sys.executable
    command = [python, __file__, "--serve", name, "--batch", str(args.batch), "--steps", str(args.steps)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def answer(process: subprocess.Popen[str]) -> str:
    """Return the seconds of a contender's next round; empty if its process ended. Other output is ignored."""
    for line in process.stdout:
        if line.startswith("seconds "):
            return line.split()[1]
    return ""


def serve(name: str, batch: int, steps: int) -> None:
    """Run a contender: two steps to compile and warm up, then one round for each line of stdin.

    Args:
        name: Name of the contender.
        batch: Images of a step.
        steps: Steps of a round.
    """
    run = CONTENDERS[name](batch)
    scale = batch / getattr(run, "images", batch)
    run(1)
    run(1)
    print("seconds 0", flush=True)
    for _ in sys.stdin:
        started = time.perf_counter()
        run(steps)
        print("seconds", (time.perf_counter() - started) * scale, flush=True)


def random_batch(batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Make random images, uint8 [N, SIZE, SIZE, 3], and labels, int64 [N]."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)
    return images, generator.integers(0, CLASSES, batch)


def report(images_per_second: dict[str, float]) -> None:
    """Print the table. The column "x PyTorch" compares with the fastest PyTorch contender that computes every token."""
    whole = [name for name in images_per_second if name.startswith("PyTorch") and not name.endswith("CLS alone")]
    torch = max((images_per_second[name] for name in whole), default=None)
    article, peak = images_per_second.get("article"), images_per_second.get("matrix product")

    def ratio(speed: float, reference: float | None) -> str:
        return f"{speed / reference:.2f}" if reference else "-"

    print("| step                | images/s | x article | x PyTorch | GFLOP/s | of peak |")
    print("| ------------------- | -------- | --------- | --------- | ------- | ------- |")
    rows = []
    for name, speed in images_per_second.items():
        flops = speed * (training_flops() if name.startswith("ours") or name.endswith("CLS alone") else WHOLE)
        of_peak = ratio(flops, peak and peak * WHOLE)
        row = [name, f"{speed:.1f}", ratio(speed, article), ratio(speed, torch), f"{flops / 1e9:.1f}", of_peak]
        print("| {:19} | {:>8} | {:>9} | {:>9} | {:>7} | {:>7} |".format(*row))
        rows.append(row)
    record.write("step", ["step", "images/s", "x article", "x PyTorch", "GFLOP/s", "of peak"], rows)


if __name__ == "__main__":
    main()
