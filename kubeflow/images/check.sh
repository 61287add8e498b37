#!/usr/bin/env bash
# Build the CPU image and run the sample in it under the conditions of a cluster: user 10001, read-only root, no
# capabilities, no network. For the GPU image, only resolve the lock file. No image registry is used, see build.sh.
#
#     apt-get install --no-install-recommends debootstrap buildah podman runc
#     kubeflow/images/check.sh [FOLDER]       as root
#
# FOLDER needs 10 GB. It is kept, so that the next call builds only what has changed. Without FOLDER, a temporary folder
# is used.
set -euo pipefail
cd "$(dirname "$0")/../.."

CODE_VERSION=$(git describe --always --dirty --abbrev=12 --exclude='*')
KEEP=$#
if ((KEEP)); then
    FOLDER=$(mkdir -p "$1" && realpath "$1")
else
    FOLDER=$(mktemp --directory)
fi
STORE=(--root "$FOLDER/images" --runroot "$FOLDER/running")

clean_up() {
    buildah "${STORE[@]}" rm --all >/dev/null 2>&1 || true # containers of a build that failed
    umount --quiet "$FOLDER/images/overlay" || true # a mount that the engine itself has made
    if ((!KEEP)) && grep -qF " $FOLDER/" /proc/mounts; then
        echo "$FOLDER is not removed, because something is mounted below it" >&2
    elif ((!KEEP)); then
        rm -rf --one-file-system "$FOLDER"
    fi
}
trap clean_up EXIT

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

build() {
    kubeflow/images/build.sh "$FOLDER" "$@"
    grep 'STEP ' "$FOLDER/build.log" | cut -c 1-120
}

run() {
    # Use the limits of this machine. The defaults of the engine are higher, and may not be allowed.
    podman "${STORE[@]}" --runtime=runc run --rm --read-only --read-only-tmpfs=false --tmpfs=/tmp --cap-drop=all \
        --security-opt=no-new-privileges --ulimit=nofile="$(ulimit -n):$(ulimit -n)" --ulimit=nproc=8192:8192 "$@"
}

in_image() { run --network=none --volume="$FOLDER/check-volume:/vitpipe" "$@"; }

step "resolving the lock file of the GPU image"
build localhost/check-uv --target=uv
run --network=host --volume="$PWD/requirements:/requirements:ro" localhost/check-uv sh -c '
    /uv/bin/uv venv --quiet --no-cache /tmp/venv &&
    /uv/bin/uv pip sync --no-cache --dry-run --require-hashes --python /tmp/venv /requirements/gpu.txt' \
    2>&1 | grep -iE '^(error|would)|nvidia|tensorflow=='

step "building the CPU image"
build localhost/vitpipe
podman "${STORE[@]}" image inspect vitpipe --format 'user {{.User}}, {{.Size}} bytes, {{json .Labels}}'
podman "${STORE[@]}" history vitpipe --format 'table {{.Size}} {{.CreatedBy}}' | cut -c 1-120

rm -rf --one-file-system "$FOLDER/check-volume"
install --directory --owner=10001 --group=10001 "$FOLDER/check-volume"

step "checking for leftover tools, caches and write permissions"
# shellcheck disable=SC2016 # the container expands it
in_image --user=0 --cap-add=DAC_READ_SEARCH --entrypoint=sh vitpipe -euc '
    for tool in pip pip3 uv gcc cc make git; do ! command -v $tool || exit 1; done
    echo "no pip, uv, compiler, make or git"
    caches=$(find / -xdev \( -name "*.whl" -o -path "*/.cache/*" -o -path "/var/lib/apt/lists/*_*" \))
    [ -z "$caches" ] || { echo "$caches"; exit 1; }
    echo "no caches"
    loose=$(find /opt /usr /etc -xdev ! -type l \( -perm -o+w -o -user 10001 -o -group 10001 \))
    [ -z "$loose" ] || { echo "$loose"; exit 1; }
    echo "the user owns nothing below /opt, /usr and /etc, and cannot write there"'

step "comparing the code in the image with the checkout"
ask='from pipeline.provenance import code_version, digest; print(code_version(), digest("pipeline.run"))'
inside=$(in_image --entrypoint=python vitpipe -c "$ask")
outside=$(in_image --volume="$PWD:/checkout:ro" --env=PYTHONPATH=/checkout --entrypoint=python vitpipe -c "$ask")
echo "image $inside, checkout $outside"
[[ ${inside%% *} == "$CODE_VERSION" && ${inside##* } == "${outside##* }" ]]

step "vitpipe doctor"
in_image vitpipe doctor

step "starting the commands of the steps"
# shellcheck disable=SC2016 # the container expands it
in_image --entrypoint=sh vitpipe -euc '
    for step in start node verdict report; do python -m kubeflow.steps.$step --help >/dev/null; done
    echo "python -m kubeflow.steps.start, node, verdict and report start"'

step "running the sample"
in_image vitpipe data prepare sample --out data/sample
in_image vitpipe run -c sample
in_image vitpipe runs list

step "done. Not checked: debian:13-slim itself, Docker's own builder, the GPU image on a GPU"
