#!/usr/bin/env bash
# Builds the CPU image on a Debian 13 that debootstrap makes in place of debian:13-slim, and runs the sample in it as a
# cluster would: user 10001, read-only root, no capabilities, no network. Of the GPU image it resolves the lock. It asks
# no registry of images for anything.
#
#     apt-get install --no-install-recommends debootstrap buildah podman runc
#     kubeflow/images/check.sh [FOLDER]       as root
#
# FOLDER takes 10 GB and stays, so that a next time builds only what changed; without it a temporary one is used. Where
# SSL_CERT_FILE is set, the build trusts those certificates, too.
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
    buildah "${STORE[@]}" rm --all >/dev/null # of a build that failed
    umount --quiet "$FOLDER/images/overlay" || true # of the engine itself
    if ((!KEEP)) && grep -qF " $FOLDER/" /proc/mounts; then
        echo "$FOLDER is left as it is: something is mounted below it" >&2
    elif ((!KEEP)); then
        rm -rf --one-file-system "$FOLDER"
    fi
}
trap clean_up EXIT

step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

build() {
    # chroot: a step of the build then needs no namespaces, which a machine may not allow.
    if ! buildah "${STORE[@]}" build --pull-never --isolation=chroot --layers --file kubeflow/images/Dockerfile \
        --build-arg=CODE_VERSION="$CODE_VERSION" "$@" . >"$FOLDER/build.log" 2>&1; then
        tail -n 40 "$FOLDER/build.log"
        exit 1
    fi
    grep 'STEP ' "$FOLDER/build.log" | cut -c 1-120
}

run() {
    # The limits are those of this machine: an engine asks for more, and may not get it.
    podman "${STORE[@]}" --runtime=runc run --rm --read-only --read-only-tmpfs=false --tmpfs=/tmp --cap-drop=all \
        --security-opt=no-new-privileges --ulimit=nofile="$(ulimit -n):$(ulimit -n)" --ulimit=nproc=8192:8192 "$@"
}

in_image() { run --network=none --volume="$FOLDER/vitpipe:/vitpipe" "$@"; }

if ! buildah "${STORE[@]}" images --quiet debian:13-slim >/dev/null 2>&1; then
    step "a Debian 13, from debootstrap"
    debootstrap --variant=minbase trixie "$FOLDER/debian" >"$FOLDER/debootstrap.log"
    # As the images of Debian have it: apt keeps nothing.
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

step "the GPU image's lock, resolved and not installed"
build --target=uv --tag=check-uv
run --network=host --volume="$PWD/requirements:/requirements:ro" check-uv sh -c '
    /uv/bin/uv venv --quiet --no-cache /tmp/venv &&
    /uv/bin/uv pip sync --no-cache --dry-run --require-hashes --python /tmp/venv /requirements/gpu.txt' \
    2>&1 | grep -iE '^(error|would)|nvidia|tensorflow=='

step "the CPU image"
build --tag=vitpipe
podman "${STORE[@]}" image inspect vitpipe --format 'user {{.User}}, {{.Size}} bytes, {{json .Labels}}'
podman "${STORE[@]}" history vitpipe --format 'table {{.Size}} {{.CreatedBy}}' | cut -c 1-120

rm -rf --one-file-system "$FOLDER/vitpipe"
install --directory --owner=10001 --group=10001 "$FOLDER/vitpipe"

step "what is left in it"
# shellcheck disable=SC2016 # expands inside
in_image --user=0 --cap-add=DAC_READ_SEARCH --entrypoint=sh vitpipe -euc '
    for tool in pip pip3 uv gcc cc make git; do ! command -v $tool || exit 1; done
    echo "no pip, uv, compiler, make or git"
    caches=$(find / -xdev \( -name "*.whl" -o -path "*/.cache/*" -o -path "/var/lib/apt/lists/*_*" \))
    [ -z "$caches" ] || { echo "$caches"; exit 1; }
    echo "no caches"
    loose=$(find /opt /usr /etc -xdev ! -type l \( -perm -o+w -o -user 10001 -o -group 10001 \))
    [ -z "$loose" ] || { echo "$loose"; exit 1; }
    echo "the user owns and may write nothing below /opt, /usr and /etc"'

step "the code in it is that of the checkout"
ask='from pipeline.provenance import code_version, digest; print(code_version(), digest("pipeline.run"))'
inside=$(in_image --entrypoint=python vitpipe -c "$ask")
outside=$(in_image --volume="$PWD:/checkout:ro" --env=PYTHONPATH=/checkout --entrypoint=python vitpipe -c "$ask")
echo "image $inside, checkout $outside"
[[ ${inside%% *} == "$CODE_VERSION" && ${inside##* } == "${outside##* }" ]]

step "vitpipe doctor"
in_image vitpipe doctor

step "a step names its own command"
# shellcheck disable=SC2016 # expands inside
in_image --entrypoint=sh vitpipe -euc '
    for step in start node verdict report; do python -m kubeflow.steps.$step --help >/dev/null; done
    echo "python -m kubeflow.steps.start, node, verdict and report are found"'

step "a sample run"
in_image vitpipe data prepare sample --out data/sample
in_image vitpipe run -c sample
in_image vitpipe runs list

step "done; not checked: debian:13-slim itself, Docker's own builder, the GPU image on a GPU"
