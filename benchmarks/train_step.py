"""Images per second of one training step of ViT-Tiny on this CPU: ours, the article's and PyTorch's, in one run.

    python benchmarks/train_step.py
    python benchmarks/train_step.py --torch-python ../torch/bin/python --batch 128 --rounds 5

ViT-Tiny is 6 blocks, 256 wide, 4 heads, patch 4, 32x32 pixels. A step is forward, backward and AdamW, for ours and
PyTorch's without dropout and augmentation, with gradients clipped; the article's goes through `model.fit`, as it stands
(its dropout 0.1) and without dropout. Ours computes only the CLS token in its last block, which gives the same logits;
"PyTorch, CLS alone" is taught the same. Each contender is a process of its own and computes while the others wait;
rounds take turns, and the median counts. GFLOP/s count what each computes, 1.92 GFLOP an image where it is all;
"of peak" is their share of what a large float32 matrix product reaches in the same rounds.

PyTorch is a contender where this Python has it, or the one named by --torch-python. bfloat16 is tried where the CPU has
instructions for it. `--contenders` picks some, among them what is left out by default.

`docs/benchmarks.md` has the figures; with RECORD=1 a measurement is added to them.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

import numpy as np
import record
from flops import training_flops

sys.path.append(str(Path(__file__).parent.parent))  # `trainer`, for an interpreter without vitpipe

WHOLE = training_flops(whole=True)
SIZE, CLASSES = 32, 10


def article(dropout):
    def prepare(batch):
        import article
        import tensorflow as tf

        model = article.vit(dropout=dropout)
        article.compile_recipe(model, total_steps=100_000)
        images, labels = random_batch(batch)
        one_hot = np.eye(CLASSES, dtype=np.float32)[labels]
        data = tf.data.Dataset.from_tensors((images.astype(np.float32) / 255, one_hot)).repeat()
        return lambda steps: model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0)

    return prepare


def ours(precision, augmented=False):
    def prepare(batch):
        import keras
        import tensorflow as tf

        from trainer.input import Split
        from trainer.learner import Learner
        from trainer.optimizer import WarmupCosine
        from trainer.settings import AugmentSettings, TrainingSettings
        from trainer.vit import ViT

        # The trainer's own step: here, and nowhere else, this script depends on how it is called.
        training = TrainingSettings(batch_size=batch, ema_epochs=0)
        nothing = {"crop_padding": 0, "flip": False, "randaugment_ops": 0, "mixup": 0, "cutmix": 0, "erase": 0}
        augmentation = AugmentSettings(**{} if augmented else nothing)
        learner = Learner(
            lambda: ViT(dtype=keras.DTypePolicy(precision)),
            10,
            WarmupCosine(1e-3, 100_000, 5_000, 1e-5),
            training,
            augmentation,
            1,
            tf.distribute.get_strategy(),
        )
        batches = learner.batches(Split(*random_batch(batch)), first_epoch=0)
        return lambda steps: list(learner.train(batches, steps, mixing=augmented))

    return prepare


def pytorch(bfloat16=False, compiled=False, cls_alone=False):
    def prepare(batch):
        import torch
        from torch import nn
        from torch.nn import functional

        class Block(nn.Module):
            def __init__(self, width, heads):
                super().__init__()
                self.heads = heads
                self.attention_norm, self.mlp_norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
                self.qkv, self.projection = nn.Linear(width, 3 * width), nn.Linear(width, width)
                self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

            def forward(self, x, first_only=False):
                n, tokens, width = x.shape
                qkv = self.qkv(self.attention_norm(x)).view(n, tokens, 3, self.heads, width // self.heads)
                q, k, v = qkv.permute(2, 0, 3, 1, 4)
                if first_only:
                    x, q = x[:, :1], q[:, :, :1]
                attended = functional.scaled_dot_product_attention(q, k, v)
                x = x + self.projection(attended.transpose(1, 2).reshape(x.shape))
                return x + self.mlp(self.mlp_norm(x))

        class ViT(nn.Module):
            def __init__(self, patch=4, width=256, heads=4, depth=6):
                super().__init__()
                self.patches = nn.Conv2d(3, width, patch, patch)
                self.cls = nn.Parameter(torch.zeros(1, 1, width))
                self.positions = nn.Parameter(0.02 * torch.randn(1, (SIZE // patch) ** 2 + 1, width))
                self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
                self.norm, self.head = nn.LayerNorm(width, 1e-6), nn.Linear(width, CLASSES)

            def forward(self, images):
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

        def run(steps):
            for _ in range(steps):
                optimizer.zero_grad()
                with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                    loss = functional.cross_entropy(forward(images).float(), labels, label_smoothing=0.1)
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()

        return run

    return prepare


def matrix_product(batch):
    """As many operations as the other contenders' steps."""
    import tensorflow as tf

    size = 2048
    matrix = tf.random.normal((size, size))
    products = max(1, round(batch * WHOLE / (2 * size**3)))
    multiply = tf.function(tf.matmul)

    def run(steps):
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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128, help="images a step")
    parser.add_argument("--steps", type=int, default=3, help="steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--torch-python", default=sys.executable, help="an interpreter that has torch")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--serve", choices=CONTENDERS, help=argparse.SUPPRESS)  # what the contenders are started with
    args = parser.parse_args()
    if args.serve:
        serve(args.serve, args.batch, args.steps)
        return
    names = args.contenders or usual(args.torch_python)
    processes = {name: start(name, args) for name in names}
    for name in [*names]:  # compiling is over, and not timed, when a contender has said its first line
        if not answer(processes[name]):
            print(f"{name}: left out, it ended before its first step")
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


def usual(torch_python: str) -> list[str]:
    """All contenders that can do well here; says why others are left out."""
    names = list(CONTENDERS)
    if subprocess.run([torch_python, "-c", "import torch"], capture_output=True).returncode:
        print(f"PyTorch: left out, {torch_python} has no torch (--torch-python names another)")
        names = [name for name in names if not name.startswith("PyTorch")]
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or not {"avx512_bf16", "amx_bf16"} & set(cpuinfo.read_text().split()):
        print("bfloat16: left out, this CPU has no instructions for it (avx512_bf16, amx_bf16)")
        names = [name for name in names if not name.endswith("bfloat16")]
    return names


def start(name: str, args: argparse.Namespace) -> subprocess.Popen:
    python = args.torch_python if name.startswith("PyTorch") else sys.executable
    command = [python, __file__, "--serve", name, "--batch", str(args.batch), "--steps", str(args.steps)]
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def answer(process: subprocess.Popen) -> str:
    """The next line that the contender itself said: libraries may print others."""
    for line in process.stdout:
        if line.startswith("seconds "):
            return line.split()[1]
    return ""


def serve(name: str, batch: int, steps: int) -> None:
    """Runs a contender: two rounds at once to compile and warm up, then one for each line that comes in."""
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
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (batch, SIZE, SIZE, 3), dtype=np.uint8)
    return images, generator.integers(0, CLASSES, batch)


def report(images_per_second: dict[str, float]) -> None:
    # The best of those that compute what is usual.
    whole = [name for name in images_per_second if name.startswith("PyTorch") and not name.endswith("CLS alone")]
    torch = max((images_per_second[name] for name in whole), default=None)
    article, peak = images_per_second.get("article"), images_per_second.get("matrix product")

    def ratio(speed, to):
        return f"{speed / to:.2f}" if to else "-"

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
