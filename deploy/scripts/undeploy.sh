#!/usr/bin/env bash
# Takes the service out of a Kubernetes cluster.
#
#   undeploy.sh --yes [--namespace NAME] [--release NAME] [--secrets] [--dry-run]
#
# Live sessions end with it. What stays: databases, volume claims, Redis, the KubeRay operator and its
# kinds, the namespace; and the Secrets, unless --secrets says otherwise.
#
# KUBECTL, HELM: the programs.
set -euo pipefail

kubectl="${KUBECTL:-kubectl}"
helm="${HELM:-helm}"
namespace=whisper-serve
release=whisper-serve
agreed=false
dry_run=false
with_secrets=false
# Those that deploy.sh makes; a database's password is not among them.
readonly OURS=(whisper-serve-ray whisper-serve-environment whisper-serve-keys)

usage() {
    sed -n '2,/^set -euo/p' "$0" | sed -n 's/^# \{0,1\}//p'
}

fail() {
    echo "undeploy.sh: $*" >&2
    exit 1
}

argument() { # of an option
    [ "$#" -ge 2 ] || fail "$1 needs a value"
    printf '%s' "$2"
}

while [ "$#" -gt 0 ]; do
    case "$1" in
        --namespace) namespace="$(argument "$@")"; shift 2 ;;
        --release) release="$(argument "$@")"; shift 2 ;;
        --yes) agreed=true; shift ;;
        --secrets) with_secrets=true; shift ;;
        --dry-run) dry_run=true; shift ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done

for tool in "$kubectl" "$helm"; do
    command -v "$tool" >/dev/null || fail "$tool is not here"
done

say() { echo "undeploy.sh: $*" >&2; }

run() { # unless this is a rehearsal
    if $dry_run; then say "would run: $*"; else "$@"; fi
}

context="$("$kubectl" config current-context)" || fail "kubectl knows no cluster"
say "release $release in namespace $namespace of $context; databases and claims stay"
$agreed || $dry_run || fail "nothing was done: say --yes to end it, or --dry-run to see what would happen"

if "$helm" status "$release" --namespace "$namespace" >/dev/null 2>&1; then
    run "$helm" uninstall "$release" --namespace "$namespace" --wait --timeout 10m
else
    say "there is no release $release"
fi

if $with_secrets; then
    run "$kubectl" --namespace "$namespace" delete secret --ignore-not-found "${OURS[@]}"
fi
