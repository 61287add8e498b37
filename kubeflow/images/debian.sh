#!/usr/bin/env bash
# Install a Debian with debootstrap and import it as the image localhost/debian:SUITE, for machines that reach no image
# registry. Does nothing if the image exists.
#
#     kubeflow/images/debian.sh FOLDER SUITE        as root
#
# The image is kept in the folder. If SSL_CERT_FILE is set, the image also trusts those certificates.
set -euo pipefail
FOLDER=$1 SUITE=$2
STORE=(--root "$FOLDER/images" --runroot "$FOLDER/running")

if [[ $(id -u) != 0 ]]; then
    echo "$0 mounts and changes owners: start it as root" >&2
    exit 2
fi
for tool in debootstrap buildah podman runc; do
    if ! command -v "$tool" >/dev/null; then
        echo "$tool is missing: apt-get install --no-install-recommends debootstrap buildah podman runc" >&2
        exit 2
    fi
done
if podman "${STORE[@]}" image exists "localhost/debian:$SUITE"; then
    exit
fi

root=$FOLDER/debian-$SUITE
rm -rf --one-file-system "$root" # left by a call that was interrupted
mkdir -p "$root"
debootstrap --variant=minbase "$SUITE" "$root" >"$FOLDER/debootstrap.log"
# Debian's own images configure apt the same way: it keeps no downloaded files.
cat >"$root/etc/apt/apt.conf.d/keep-nothing" <<'CONF'
APT::Keep-Downloaded-Packages "false";
Dir::Cache::pkgcache "";
Dir::Cache::srcpkgcache "";
CONF
if [[ -n ${SSL_CERT_FILE:-} ]]; then
    trusted=$root/usr/local/share/ca-certificates
    mkdir -p "$trusted" "$root/etc/uv"
    awk '/BEGIN CERT/ { n++ } n { print > sprintf("%s/caller-%03d.crt", into, n) }' into="$trusted" "$SSL_CERT_FILE"
    echo 'system-certs = true' >"$root/etc/uv/uv.toml"
fi
tar -C "$root" -c . | podman "${STORE[@]}" import --quiet - "localhost/debian:$SUITE" >/dev/null
rm -r --one-file-system "$root"
