#!/usr/bin/env bash
# Writes the manifests that are rendered from the chart, or with --check says which are out of date.
# HELM names the program (default: helm).
set -euo pipefail

usage() {
    echo "usage: render.sh [--check]" >&2
    exit 2
}

check=false
case "${1:-}" in
    "") ;;
    --check) check=true ;;
    *) usage ;;
esac
[ "$#" -le 1 ] || usage

helm="${HELM:-helm}"
command -v "$helm" >/dev/null || {
    echo "render.sh: helm is not here: make helm, and HELM=.venv/bin/helm" >&2
    exit 1
}

cd "$(dirname "$0")/../.."
chart=deploy/helm/whisper-serve
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

# render FILE VALUES TEMPLATE...: FILE of deploy/, from VALUES over values.yaml.
render() {
    local file="$1" values="$2" template options=()
    shift 2
    for template in "$@"; do options+=(--show-only "templates/$template"); done
    mkdir -p "$folder/$(dirname "$file")"
    {
        echo "# Rendered from $chart with $values by deploy/scripts/render.sh: change those."
        "$helm" template whisper-serve "$chart" --namespace whisper-serve \
            --values "$chart/$values" "${options[@]}" 2>"$folder/said" ||
            { cat "$folder/said" >&2; return 1; }
    } >"$folder/$file"
}

render kuberay/rayservice.yaml values-eks.yaml \
    serviceaccount.yaml configmap.yaml rayservice.yaml disruption.yaml networkpolicy.yaml
render karpenter/nodepools.yaml values-eks.yaml karpenter/nodepools.yaml
render karpenter/ec2nodeclasses.yaml values-eks.yaml karpenter/ec2nodeclasses.yaml
render monitoring/podmonitors.yaml values-eks.yaml monitoring/podmonitors.yaml
{
    echo "# For \`serve deploy\`. Rendered from $chart by deploy/scripts/render.sh: change that."
    "$helm" template whisper-serve "$chart" --set printServeConfig=true 2>/dev/null |
        grep -v -e '^---$' -e '^# Source:'
} >"$folder/serve.yaml"
rm -f "$folder/said"

stale=0
while IFS= read -r file; do
    cmp -s "$folder/$file" "deploy/$file" && continue
    stale=$((stale + 1))
    if $check; then
        echo "deploy/$file is not what the chart renders: run deploy/scripts/render.sh" >&2
    else
        mkdir -p "deploy/$(dirname "$file")"
        cp "$folder/$file" "deploy/$file"
        echo "deploy/$file"
    fi
done < <(cd "$folder" && find . -type f | sed 's#^\./##' | sort)
if $check && [ "$stale" -gt 0 ]; then exit 1; fi
