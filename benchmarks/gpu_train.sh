#!/bin/bash
# Train a preset on this machine's GPU, with JAX. benchmarks/gpu.sh says what this needs.
#
#   OUT=FOLDER [PEAK_TFLOPS=N] bash benchmarks/gpu_train.sh PRESET [ARGUMENT of train_accelerator.py]...
#
# PEAK_TFLOPS: matrix products of this GPU in bfloat16, TFLOP/s; an H200 reaches 790. Writes PRESET.npz with the weights, PRESET.log and results.jsonl to $OUT. With REHEARSE=1, few images are used.
set -eo pipefail
cd "$(dirname "$0")/.."
preset=$1
shift
# The cache is kept, so that a second training does not compile what the first one did.
export PYTHONPATH="build/accelerator/site:." KERAS_BACKEND=jax JAX_COMPILATION_CACHE_DIR="$PWD/build/jax-cache" PYTHONUNBUFFERED=1
arguments=(build/accelerator/cifar10.npz --preset "$preset")
[ -z "$PEAK_TFLOPS" ] || arguments+=(--peak-tflops "$PEAK_TFLOPS")
[ -z "$REHEARSE" ] || arguments+=(--images 96 --epochs 2 --set training.batch_size=32)
python3 benchmarks/train_accelerator.py "${arguments[@]}" --out "$OUT/results.jsonl" --save "$OUT/$preset.npz" "$@" 2>&1 |
    tee "$OUT/$preset.log"
