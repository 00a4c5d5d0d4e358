#!/usr/bin/env bash
# Puts the service into a Kubernetes cluster, or a new version over the one that is there.
#
#   deploy.sh --values FILE... [--namespace NAME] [--release NAME] [--set KEY=VALUE]...
#       [--skip-operator] [--dry-run]
#
# What it does: the namespace, the KubeRay operator (unless --skip-operator), Secrets that are missing
# (Ray's token, the key that signs tokens; an empty file of API keys), the chart, and a wait until
# the service is ready. Secrets that are there are left alone, and none is ever printed.
#
# TIMEOUT: how long to wait, as kubectl takes it (default 30m). KUBECTL, HELM: the programs.
set -euo pipefail

readonly KUBERAY_REPOSITORY=https://ray-project.github.io/kuberay-helm/
readonly KUBERAY_VERSION="${KUBERAY_VERSION:-1.7.0}"

kubectl="${KUBECTL:-kubectl}"
helm="${HELM:-helm}"
timeout="${TIMEOUT:-30m}"
namespace=whisper-serve
release=whisper-serve
files=()
values=()
settings=()
dry_run=false
with_operator=true

usage() {
    sed -n '2,/^set -euo/p' "$0" | sed -n 's/^# \{0,1\}//p'
}

fail() {
    echo "deploy.sh: $*" >&2
    exit 1
}

argument() { # of an option
    [ "$#" -ge 2 ] || fail "$1 needs a value"
    printf '%s' "$2"
}

while [ "$#" -gt 0 ]; do
    case "$1" in
        --values) file="$(argument "$@")"; files+=("$file"); values+=(--values "$file"); shift 2 ;;
        --namespace) namespace="$(argument "$@")"; shift 2 ;;
        --release) release="$(argument "$@")"; shift 2 ;;
        --set) setting="$(argument "$@")"; settings+=(--set "$setting"); shift 2 ;;
        --dry-run) dry_run=true; shift ;;
        --skip-operator) with_operator=false; shift ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown option $1; see --help" ;;
    esac
done

for tool in "$kubectl" "$helm" openssl; do
    command -v "$tool" >/dev/null || fail "$tool is not here"
done
[ "${#files[@]}" -gt 0 ] ||
    fail "--values is needed, such as deploy/helm/whisper-serve/values-eks.yaml"
for file in "${files[@]}"; do
    [ -f "$file" ] || fail "$file is not a file"
done

root="$(cd "$(dirname "$0")/../.." && pwd)"
chart="$root/deploy/helm/whisper-serve"

say() { echo "deploy.sh: $*" >&2; }

run() { # unless this is a rehearsal
    if $dry_run; then say "would run: $*"; else "$@"; fi
}

in_namespace() { "$kubectl" --namespace "$namespace" "$@"; }

is_there() { "$kubectl" --namespace "$namespace" get secret "$1" >/dev/null 2>&1; }

# Values reach kubectl through files that only this process reads, never as arguments, which
# everybody on the machine could see.
make_secret() { # NAME KEY COMMAND...: with what the command prints, unless it is there
    local name="$1" key="$2"
    shift 2
    if is_there "$name"; then
        say "the Secret $name is there"
        return
    fi
    if $dry_run; then
        say "would make the Secret $name"
        return
    fi
    "$@" | tr -d '\n' >"$scratch/$key"
    in_namespace create secret generic "$name" --from-file="$key=$scratch/$key" >/dev/null
    rm -f "$scratch/$key"
    say "made the Secret $name"
}

umask 077
scratch="$(mktemp -d)"
trap 'rm -rf "$scratch"' EXIT

"$helm" lint --strict "$chart" "${values[@]}" ${settings[@]+"${settings[@]}"} >"$scratch/lint" 2>&1 ||
    { cat "$scratch/lint" >&2; fail "the chart does not take these values"; }

context="$("$kubectl" config current-context)" || fail "kubectl knows no cluster"
say "release $release in namespace $namespace of $context, from ${files[*]}"

"$kubectl" get namespace "$namespace" >/dev/null 2>&1 || run "$kubectl" create namespace "$namespace"

if $with_operator; then
    run "$helm" upgrade --install kuberay-operator kuberay-operator \
        --repo "$KUBERAY_REPOSITORY" --version "$KUBERAY_VERSION" \
        --namespace kuberay-system --create-namespace \
        --values "$root/deploy/kuberay/operator-values.yaml" --wait --timeout 5m
fi

make_secret whisper-serve-ray auth_token openssl rand -hex 32
make_secret whisper-serve-environment WHISPER_SERVE__AUTH__SIGNING_KEY openssl rand -hex 32
make_secret whisper-serve-keys keys.json echo '[]'

run "$helm" upgrade --install "$release" "$chart" --namespace "$namespace" \
    "${values[@]}" ${settings[@]+"${settings[@]}"}

if $dry_run; then
    say "would wait $timeout for rayservice/$release"
    exit 0
fi
say "waiting for the service, $timeout at most; the first time machines are started and images pulled"
if in_namespace wait --for=condition=Ready "rayservice/$release" --timeout="$timeout"; then
    say "ready. Keys: whisper-serve keys new NAME --file keys.json, then docs/deployment.md, \"Keys\""
    exit 0
fi
say "not ready after $timeout. What there is:"
in_namespace get rayservice,raycluster,pods >&2 || true
in_namespace describe rayservice "$release" 2>/dev/null | sed -n '/^Events:/,$p' >&2 || true
fail "see \"What to check when it does not start\" in docs/deployment.md"
