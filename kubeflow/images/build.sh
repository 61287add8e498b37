#!/usr/bin/env bash
# Build the CPU image of this checkout without an image registry: the whole Dockerfile, with localhost/debian:trixie from
# debian.sh in place of debian:13-slim.
#
#     kubeflow/images/build.sh FOLDER IMAGE [OPTION...]       as root
#
# FOLDER needs 10 GB and is kept, so that the next call builds only what has changed. OPTIONS are options of
# `buildah build`, such as --target=uv.
set -euo pipefail
if (($# < 2)); then
    echo "usage: $0 FOLDER IMAGE [OPTION...]" >&2
    exit 2
fi
FOLDER=$(realpath --canonicalize-missing "$1") IMAGE=$2
shift 2
cd "$(dirname "$0")/../.."

kubeflow/images/debian.sh "$FOLDER" trixie
# With chroot isolation the build needs no namespaces, which some machines do not allow.
if ! buildah --root "$FOLDER/images" --runroot "$FOLDER/running" build --pull-never --isolation=chroot --layers \
    --file kubeflow/images/Dockerfile --build-arg=BASE=localhost/debian:trixie \
    --build-arg=CODE_VERSION="$(git describe --always --dirty --abbrev=12 --exclude='*')" \
    --timestamp=0 --tag="$IMAGE" "$@" . >"$FOLDER/build.log" 2>&1; then
    tail -n 40 "$FOLDER/build.log" >&2
    exit 1
fi
