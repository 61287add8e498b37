#!/bin/sh
# Download the wheels that train_accelerator.py needs on a machine that has Python 3.12 and JAX, but neither Keras nor a
# network, into .whl/. This script requires pip. Versions and hashes are those of requirements/base.txt.
set -eu
cd "$(dirname "$0")/.."
requirements=$(mktemp)
trap 'rm -f "$requirements"' EXIT
awk '/^[a-z]/ { wanted = /^(keras|namex|optree|pydantic|pydantic-core|annotated-types|typing-inspection|typing-extensions)==/ }
     wanted && !/^ *#/' requirements/base.txt > "$requirements"
rm -rf .whl # pip installs nothing from a folder with two versions of a package
python3 -m pip download --quiet --require-hashes --no-deps --only-binary=:all: --implementation cp \
    --python-version 3.12 --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 \
    --platform manylinux2014_x86_64 --dest .whl --requirement "$requirements"
ls -l .whl
