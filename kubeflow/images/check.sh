#!/usr/bin/env bash
# Build the CPU image and run the sample in it under the conditions of a cluster: user 10001, read-only root, no
# capabilities, no network. For the GPU image, only resolve the lock file. No image registry is used: instead of
# debian:13-slim, the base image is a Debian 13 that debootstrap installs.
#
#     apt-get install --no-install-recommends debootstrap buildah podman runc
#     kubeflow/images/check.sh [FOLDER]       as root
#
# FOLDER needs 10 GB. It is kept, so that the next call builds only what has changed. Without FOLDER, a temporary folder
# is used. If SSL_CERT_FILE is set, the build also trusts those certificates.
set -euo pipefail
cd "$(dirname "$0")/../.."

if [[ $(id -u) != 0 ]]; then
    echo "kubeflow/images/check.sh mounts and changes owners: start it as root" >&2
    exit 2
fi
for tool in debootstrap buildah podman runc; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is missing: apt-get install --no-install-recommends debootstrap buildah podman runc" >&2
        exit 2
    fi
done

CODE_VERSION=$(git describe --always --dirty --abbrev=12 --exclude='*')
KEEP=$#
if ((KEEP)); then
    FOLDER=$(mkdir -p "$1" && realpath "$1")
else
    FOLDER=$(mktemp --directory)
fi
STORE=(--root "$FOLDER/images" --runroot "$FOLDER/running")

clean_up() {
    buildah "${STORE[@]}" rm --all >/dev/null # containers of a build that failed
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
    # With chroot isolation the build needs no namespaces, which some machines do not allow.
    if ! buildah "${STORE[@]}" build --pull-never --isolation=chroot --layers --file kubeflow/images/Dockerfile \
        --build-arg=CODE_VERSION="$CODE_VERSION" "$@" . >"$FOLDER/build.log" 2>&1; then
        tail -n 40 "$FOLDER/build.log"
        exit 1
    fi
    grep 'STEP ' "$FOLDER/build.log" | cut -c 1-120
}

run() {
    # Use the limits of this machine. The defaults of the engine are higher, and may not be allowed.
    podman "${STORE[@]}" --runtime=runc run --rm --read-only --read-only-tmpfs=false --tmpfs=/tmp --cap-drop=all \
        --security-opt=no-new-privileges --ulimit=nofile="$(ulimit -n):$(ulimit -n)" --ulimit=nproc=8192:8192 "$@"
}

in_image() { run --network=none --volume="$FOLDER/vitpipe:/vitpipe" "$@"; }

if ! buildah "${STORE[@]}" images --quiet debian:13-slim >/dev/null 2>&1; then
    step "installing Debian 13 with debootstrap"
    debootstrap --variant=minbase trixie "$FOLDER/debian" >"$FOLDER/debootstrap.log"
    # Debian's own images configure apt the same way: it keeps no downloaded files.
    cat >"$FOLDER/debian/etc/apt/apt.conf.d/keep-nothing" <<'CONF'
APT::Keep-Downloaded-Packages "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
CONF
    if [[ -n ${SSL_CERT_FILE:-} ]]; then
        trusted=$FOLDER/debian/usr/local/share/ca-certificates
        mkdir -p "$trusted" "$FOLDER/debian/etc/uv"
        awk '/BEGIN CERT/ { n++ } n { print > sprintf("%s/caller-%03d.crt", into, n) }' into="$trusted" "$SSL_CERT_FILE"
        echo 'system-certs = true' >"$FOLDER/debian/etc/uv/uv.toml"
    fi
    tar -C "$FOLDER/debian" -c . | podman "${STORE[@]}" import --quiet - docker.io/library/debian:13-slim
    rm -r --one-file-system "$FOLDER/debian"
fi

step "resolving the lock file of the GPU image"
build --target=uv --tag=check-uv
run --network=host --volume="$PWD/requirements:/requirements:ro" check-uv sh -c '
    /uv/bin/uv venv --quiet --no-cache /tmp/venv &&
    /uv/bin/uv pip sync --no-cache --dry-run --require-hashes --python /tmp/venv /requirements/gpu.txt' \
    2>&1 | grep -iE '^(error|would)|nvidia|tensorflow=='

step "building the CPU image"
build --tag=vitpipe
podman "${STORE[@]}" image inspect vitpipe --format 'user {{.User}}, {{.Size}} bytes, {{json .Labels}}'
podman "${STORE[@]}" history vitpipe --format 'table {{.Size}} {{.CreatedBy}}' | cut -c 1-120

rm -rf --one-file-system "$FOLDER/vitpipe"
install --directory --owner=10001 --group=10001 "$FOLDER/vitpipe"

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
