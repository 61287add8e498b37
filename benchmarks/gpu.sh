#!/bin/sh
# Prepare trainings on a machine with a GPU that has Python 3.12 with JAX, but neither TensorFlow nor a network. Rehearse
# them here, on the CPU, and print what to do there.
#
#   [PYTHON=/path/to/python3.12] benchmarks/gpu.sh [MIB]    MIB: size of what can be copied to that machine (default 64)
#
# Needs an environment of `make setup` and a Python 3.12. Writes build/accelerator/, which Git ignores.
set -eu
cd "$(dirname "$0")/.."
limit=${1:-64}
carried=build/accelerator
export PATH="$PWD/.venv/bin:$PATH"
mkdir -p $carried
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

[ -d data/cifar10/span-1 ] || vitpipe data prepare cifar10
[ -f $carried/cifar10.npz ] || python benchmarks/packed.py data/cifar10/span-1 $carried/cifar10.npz
# Packages that the other machine lacks, with the versions and hashes of the lock.
awk '/^[a-z]/ { wanted = /^(keras|namex|optree|pydantic|pydantic-core|annotated-types|typing-inspection|typing-extensions)==/ }
     wanted && !/^ *#/' requirements/base.txt > "$scratch/requirements.txt"
rm -rf $carried/site
.uv/bin/uv pip install --quiet --require-hashes --no-deps --only-binary :all: --python-version 3.12 \
    --python-platform x86_64-manylinux_2_28 --target $carried/site -r "$scratch/requirements.txt"

mkdir "$scratch/checkout" "$scratch/results"
git ls-files -z --cached --others --exclude-standard | tar --null -T - -cf - $carried | tar -xf - -C "$scratch/checkout"
size=$(du -sm "$scratch/checkout" | cut -f1)
if [ "$size" -gt "$limit" ]; then
    echo "The checkout with $carried has $size MiB, but $limit MiB can be copied: remove large files, or give a larger" >&2
    echo "limit if the machine accepts it. The official archive of CIFAR-10 makes PNG images, which are several times as" >&2
    echo "large as JPEG images." >&2
    exit 1
fi

.uv/bin/uv venv --quiet --no-python-downloads --python "${PYTHON:-3.12}" "$scratch/python"
.uv/bin/uv pip install --quiet --python "$scratch/python/bin/python" -r benchmarks/gpu_machine.txt
rehearse() {
    echo "Rehearsing $*"
    (cd "$scratch/checkout" && PATH="$scratch/python/bin:$PATH" OUT="$scratch/results" REHEARSE=1 bash benchmarks/gpu_train.sh "$@")
}
rehearse cifar10 --set training.precision=bfloat16 # as on a GPU
rehearse cifar10-best --teacher-width 8 # JAX computes convolutions slowly on a CPU
python benchmarks/gpu_results.py --check "$scratch/results"
largest=$(find "$scratch/results" -type f -size +16M)
[ -z "$largest" ] || { echo "larger than 16 MiB: $largest" >&2; exit 1; }

cat <<END

The rehearsal passed. Copy the checkout with $carried ($size MiB) to the machine with the GPU, and run there, with OUT
set to an existing folder:

    PEAK_TFLOPS=790 bash benchmarks/gpu_train.sh cifar10         about 4 minutes on an H200
    PEAK_TFLOPS=790 bash benchmarks/gpu_train.sh cifar10-best    about 6 minutes on an H200

Copy the files in \$OUT back, and add the figures to docs/benchmarks.md and push the models with:

    RECORD=1 python benchmarks/gpu_results.py FOLDER
END
