#!/usr/bin/env bash
# Build the image of the service, and push it where that is asked for.
set -euo pipefail

usage() {
    cat <<'TEXT'
usage: deploy/scripts/build_image.sh [--push] [-- OPTION ...]

Builds deploy/Dockerfile and prints the name of the image. --push sends it to $REGISTRY, and is
never asked for. What stands behind `--` goes to the builder as it is.

  VARIANT          cpu (default) or cuda
  MODELS           Whisper models whose weights lie in the image, divided by spaces; the first is
                   its model.size (default: base). Empty: none, mount them at /models.
                   Those in models/ are taken from there, others are fetched.
  VERSION          of the image's name (default: the version of the package)
  REGISTRY         what stands before the image's name, such as registry.example.org/speech
  BASE_IMAGE       instead of that of the Dockerfile, such as one with a digest
  TORCH_INDEX_URL  where torch comes from, such as the index of its builds without CUDA, with
                   which the cpu variant is 3 GB smaller (default: pip's own)
  BUILDER          docker, podman or buildah (default: the first of these that is here)
TEXT
}

fail() {
    echo "build_image.sh: error: $*" >&2
    exit 2
}

push=false
while [ $# -gt 0 ]; do
    case "$1" in
        --push) push=true ;;
        -h | --help) usage; exit 0 ;;
        --) shift; break ;;
        *) fail "unknown option: $1 (--help tells what there is)" ;;
    esac
    shift
done

root="$(cd "$(dirname "$0")/../.." && pwd)"
variant="${VARIANT:-cpu}"
version="${VERSION:-$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$root/whisper_serve/__init__.py")}"
registry="${REGISTRY:-}"
registry="${registry%/}"

case "$variant" in
    cpu | cuda) ;;
    *) fail "VARIANT: it must be cpu or cuda, not '$variant'" ;;
esac
[[ "$version" =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]{0,120}$ ]] \
    || fail "VERSION: '$version' cannot be in an image's name"
if $push && [ -z "$registry" ]; then
    fail "REGISTRY: --push needs to know where to"
fi

builder="${BUILDER:-}"
for name in docker podman buildah; do
    if [ -z "$builder" ] && command -v "$name" >/dev/null; then
        builder="$name"
    fi
done
[ -n "$builder" ] || fail "BUILDER: neither docker nor podman nor buildah is here"
command -v "$builder" >/dev/null || fail "BUILDER: '$builder' is not here"

image="${registry:+$registry/}whisper-serve:$version-$variant"
options=(
    --file "$root/deploy/Dockerfile"
    --tag "$image"
    --build-arg "VARIANT=$variant"
    --build-arg "MODELS=${MODELS-base}"
    --build-arg "VERSION=$version"
    --build-arg "REVISION=$(git -C "$root" rev-parse HEAD 2>/dev/null || echo unknown)"
)
for name in BASE_IMAGE TORCH_INDEX_URL; do
    if [ -n "${!name:-}" ]; then
        options+=(--build-arg "$name=${!name}")
    fi
done
if [ "$(basename "$builder")" != docker ]; then
    # A health check is Docker's own and not in OCI's format.
    options+=(--format docker)
fi

export DOCKER_BUILDKIT=1
"$builder" build "${options[@]}" "$@" "$root" >&2
if $push; then
    "$builder" push "$image" >&2
fi
echo "$image"
